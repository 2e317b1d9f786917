"""Encoders of several sizes on more and more of the data: who collapses, and whether that can be forecast."""
