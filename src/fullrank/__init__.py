"""fullrank: train self-supervised encoders without negatives, and see collapse coming."""

__version__ = "0.1.0"
