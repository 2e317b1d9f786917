"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

PR_SET_PDEATHSIG = 1  # of prctl(2)
PARENT = "FULLRANK_PARENT"  # in the environment of a process that another one has started


@contextmanager
def child_of_this() -> Iterator[None]:
    """Tell processes that are started in the context which one has started them."""
    os.environ[PARENT] = str(os.getpid())
    try:
        yield
    finally:
        os.environ.pop(PARENT, None)


def parent_has_ended() -> bool:
    """Whether the parent of this process has ended, be it before this could ask.

    Example:
        >>> parent_has_ended()
        False
    """
    return os.environ.get(PARENT, "") not in ("", str(os.getppid()))


def end_with_parent(wanted: bool = True) -> bool:
    """Have the kernel kill this process when its parent ends, however that ends.

    Args:
        wanted: False takes it back.

    Returns:
        Whether the system can do that: Linux can.

    Example:
        >>> end_with_parent() == sys.platform.startswith("linux")
        True
    """
    if not sys.platform.startswith("linux"):
        return False
    parent = os.getppid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL if wanted else 0, 0, 0, 0)
    if wanted and (os.getppid() != parent or parent_has_ended()):  # in between, or before
        os.kill(os.getpid(), signal.SIGKILL)
    return True
