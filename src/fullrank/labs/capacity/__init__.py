"""Encoder sizes on growing data: which collapse, and whether that can be forecast."""
