"""Batches this small only wait for each other's threads."""

from one_thread import one_thread

__all__ = ["one_thread"]
