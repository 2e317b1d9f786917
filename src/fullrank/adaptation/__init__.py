"""Continued pretraining of an encoder that cannot end worse than it began."""
