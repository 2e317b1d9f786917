"""Small convolutions on several threads wait for each other on a busy machine."""

from one_thread import one_thread

__all__ = ["one_thread"]
