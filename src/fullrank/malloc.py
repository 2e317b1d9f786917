"""Memory that the C library keeps for later, or gives back to the system."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Mapping

TRIM_THRESHOLD, MMAP_THRESHOLD, MMAP_MAX = -1, -3, -4  # parameters of `mallopt`, from malloc.h
KEEP = {MMAP_MAX: 0, TRIM_THRESHOLD: 2**31 - 1}  # the largest number of bytes that it takes
RETURN = {MMAP_MAX: 65_536, MMAP_THRESHOLD: 1 << 20, TRIM_THRESHOLD: 1 << 20}


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory for the next step; False with another C library.

    A step frees and takes gigabytes of activations, and every page that was given back is cleared by the
    kernel before it can be written again: a seventh of the step of a ResNet-18 on two cores. The process then
    stays as large as its largest step. Settings of the user's own (`MALLOC_...`, `GLIBC_TUNABLES`) stand.

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    return _set(KEEP)


def return_freed_memory() -> bool:
    """Let glibc give freed blocks of a megabyte or more back at once; False elsewhere.

    For the workers of a loader: a batch that is freed among small blocks leaves a gap in the heap, which grew
    by hundreds of megabytes within sixty batches.

    Example:
        >>> return_freed_memory() in (True, False)
        True
    """
    return _set(RETURN)


def _set(values: Mapping[int, int]) -> bool:
    own = any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ)
    if own or platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    done = [bool(mallopt(parameter, value)) for parameter, value in values.items()]
    return all(done)
