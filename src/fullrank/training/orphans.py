"""Processes that end with the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of prctl(2)


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
    if wanted and os.getppid() != parent:  # it ended in between
        os.kill(os.getpid(), signal.SIGKILL)
    return True
