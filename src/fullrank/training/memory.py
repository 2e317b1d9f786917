"""Memory that the C library keeps between the steps of a run on a CPU."""

from __future__ import annotations

import ctypes
import os
import platform

TRIM_THRESHOLD, MMAP_MAX = -1, -4  # parameters of `mallopt`, from malloc.h


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next step; False with another C library.

    A step frees and takes gigabytes of activations, and every page that was given back is cleared by the
    kernel before it can be written again: a seventh of the step of a ResNet-18 on two cores. The process then
    stays as large as its largest step. Settings of the user's own (`MALLOC_...`, `GLIBC_TUNABLES`) stand.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if own or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    never = 2**31 - 1  # the largest number of bytes that it takes
    return bool(mallopt(MMAP_MAX, 0)) and bool(mallopt(TRIM_THRESHOLD, never))
