"""Memory that the machine has left for a run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch

NO_LIMIT = 2**60  # cgroups without a limit say a number near 2**63


class FreeMemory(NamedTuple):
    """Bytes that a run may still take, and what limits them."""

    bytes: int
    limit: str


def free_memory(device: torch.device, root: Path = Path("/")) -> FreeMemory:
    """Memory left on a GPU, or for this process on a CPU: the tightest limit of all.

    Args:
        device: what the run trains on.
        root: where `proc` and `sys` are mounted.

    Example:
        >>> free_memory(torch.device("cpu")).bytes > 0
        True
    """
    if device.type == "cuda":
        return FreeMemory(torch.cuda.mem_get_info(device)[0], "free on the GPU")
    found = [*_of_machine(root), *_of_cgroups(root), *_of_process(root)]
    return min(found, key=lambda free: free.bytes)


def _of_machine(root: Path) -> Iterator[FreeMemory]:
    available = _kilobytes(root / "proc/meminfo").get("MemAvailable")
    if available is None:  # no Linux: what others take is not known
        available = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * 3 // 4
    yield FreeMemory(available, "free on this machine")


def _of_cgroups(root: Path) -> Iterator[FreeMemory]:
    """Limits of containers and batch systems, from the own group upwards."""
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number != "0" and "memory" not in controllers.split(","):
            continue
        version_2 = number == "0"
        top = root / ("sys/fs/cgroup" if version_2 else "sys/fs/cgroup/memory")
        own = top / path.lstrip("/")
        for group in (own, *own.parents):
            if group != top and top not in group.parents:
                break
            yield from _of_group(group, version_2)


def _of_group(group: Path, version_2: bool) -> Iterator[FreeMemory]:
    names = ("memory.max", "memory.current") if version_2 else ("limit_in_bytes", "usage_in_bytes")
    prefix, cache = ("", "inactive_file") if version_2 else ("memory.", "total_inactive_file")
    limit, used = (_text(group / f"{prefix}{name}").strip() for name in names)
    if limit.isdigit() and used.isdigit() and int(limit) < NO_LIMIT:
        rows = (line.split() for line in _text(group / "memory.stat").splitlines())
        reclaimable = {name: int(value) for name, value in rows}.get(cache, 0)
        yield FreeMemory(max(int(limit) - int(used) + reclaimable, 0), "left in this container")


def _of_process(root: Path) -> Iterator[FreeMemory]:
    try:
        import resource
    except ImportError:  # Windows
        return
    status = _kilobytes(root / "proc/self/status")
    limits = (resource.RLIMIT_AS, "VmSize", "ulimit -v"), (resource.RLIMIT_DATA, "VmData", "ulimit -d")
    for which, used, name in limits:
        limit = resource.getrlimit(which)[0]
        if limit != resource.RLIM_INFINITY:
            yield FreeMemory(max(limit - status.get(used, 0), 0), f"left of `{name}`")


def _kilobytes(file: Path) -> dict[str, int]:
    """Rows as `MemAvailable: 12 kB`, in bytes."""
    rows = (line.split() for line in _text(file).splitlines() if line.endswith(" kB"))
    return {name.rstrip(":"): 1024 * int(value) for name, value, _ in rows}


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except OSError:
        return ""
