"""Comparisons of runs, encoders and embeddings: page and terminal view."""
