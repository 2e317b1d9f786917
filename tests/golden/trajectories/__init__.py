"""Whole optimisations of references, run from their settings through our own pieces."""
