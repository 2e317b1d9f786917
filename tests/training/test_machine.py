"""The memory that is left is the tightest of all limits."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest
import torch

from fullrank.training.machine import FreeMemory, free_memory

CPU = torch.device("cpu")


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MACHINE = {"proc/meminfo": "MemTotal: 9000000 kB\nMemAvailable: 8000000 kB\n"}
VERSION_2 = {
    "proc/self/cgroup": "0::/box\n",
    "sys/fs/cgroup/box/memory.max": "3000000000\n",
    "sys/fs/cgroup/box/memory.current": "1500000000\n",
    "sys/fs/cgroup/box/memory.stat": "anon 7\ninactive_file 500000000\n",
}
VERSION_1 = {
    "proc/self/cgroup": "9:name=systemd:/\n4:memory:/box/inner\n0::/\n",
    "sys/fs/cgroup/memory/box/inner/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/box/inner/memory.usage_in_bytes": "5\n",
    "sys/fs/cgroup/memory/box/memory.limit_in_bytes": "2000000000\n",
    "sys/fs/cgroup/memory/box/memory.usage_in_bytes": "500000000\n",
    "sys/fs/cgroup/memory/box/memory.stat": "total_inactive_file 0\n",
}
UNLIMITED = {"proc/self/cgroup": "0::/box\n", "sys/fs/cgroup/box/memory.max": "max\n"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (MACHINE, FreeMemory(8_192_000_000, "free on this machine")),
        (MACHINE | VERSION_2, FreeMemory(2_000_000_000, "left in this container")),
        (MACHINE | VERSION_1, FreeMemory(1_500_000_000, "left in this container")),
        (MACHINE | UNLIMITED, FreeMemory(8_192_000_000, "free on this machine")),
    ],
)
def test_of_machine_and_container_the_tighter_counts(
    tmp_path: Path, files: dict[str, str], expected: FreeMemory
) -> None:
    assert free_memory(CPU, write(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("limit", "used", "name"), [("RLIMIT_AS", "VmSize", "-v"), ("RLIMIT_DATA", "VmData", "-d")]
)
def test_a_limit_of_the_shell_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str, name: str
) -> None:
    set_to = {getattr(resource, limit): 4 * 10**9}
    monkeypatch.setattr(resource, "getrlimit", lambda which: (set_to.get(which, resource.RLIM_INFINITY),) * 2)
    files = MACHINE | {"proc/self/status": f"{used}:\t 1000000 kB\n"}
    found = free_memory(CPU, write(tmp_path, files))
    assert found == FreeMemory(4 * 10**9 - 1_024_000_000, f"left of `ulimit {name}`")


def test_a_system_that_says_nothing_has_most_of_its_memory(tmp_path: Path) -> None:
    assert free_memory(CPU, tmp_path).bytes > 1e8


def test_of_a_gpu_its_own_memory_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 9))
    assert free_memory(torch.device("cuda", 0)) == FreeMemory(7, "free on the GPU")
