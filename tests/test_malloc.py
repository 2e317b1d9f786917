"""Memory that a step frees is there for the next one."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from fullrank.malloc import keep_freed_memory
{first}
def step():
    torch.ones(1 << 24), torch.ones(1 << 24)
for _ in range(8):
    step()  # until the heap has a place for everything
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(first: str, env: dict[str, str] | None = None) -> int:
    """Pages that five further steps have the kernel hand out."""
    code = FAULTS.format(first=first)
    return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_later_steps_find_the_pages_of_earlier_ones() -> None:
    assert faults("assert keep_freed_memory()") < 0.1 * faults("")


LEFT = """
import torch
from pathlib import Path
from fullrank.malloc import keep_freed_memory, return_freed_memory
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) // 256  # MB
torch.ones(1 << 22)
keep_freed_memory()
{then}
kept, before = [], resident()
for _ in range(40):
    batch = torch.ones(1 << 22)  # 16 MB
    kept.append(torch.ones(1 << 10))  # a small block behind it
    del batch
print(resident() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_a_worker_gives_back_what_its_parent_would_have_kept() -> None:
    def left(then: str) -> int:
        code = LEFT.format(then=then)
        return int(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)

    assert left("return_freed_memory()") < 8
    assert left("") >= 16


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_settings_of_the_users_own_stand() -> None:
    code = "from fullrank.malloc import keep_freed_memory; print(keep_freed_memory())"
    env = {"MALLOC_ARENA_MAX": "1", "PATH": ""}
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, env=env, text=True)
    assert said.stdout.strip() == "False"
