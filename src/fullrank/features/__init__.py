"""Embeddings of any file, and features of images through an encoder."""
