"""A process of several that has failed ends with its code, whatever threads of the group do meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FAILING = """
import atexit, os, sys
import torch.distributed as dist
from fullrank import cli
from fullrank.__main__ import main

class Aborts:
    def __del__(self):  # where the interpreter takes apart what is left, as gloo does
        os.abort()

if {group}:
    dist.init_process_group("gloo", init_method="file://{file}", rank=0, world_size=1)
    dist.kept = Aborts()
cli.main = lambda: {code}
atexit.register(print, "said at the end")
print("said before")
sys.exit(main())
"""


@pytest.mark.parametrize(("group", "code"), [(True, 2), (True, 1), (False, 2), (False, 0)])
def test_a_process_of_several_ends_with_its_code(group: bool, code: int, tmp_path: Path) -> None:
    script = FAILING.format(group=group, file=tmp_path / "store", code=code)
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.returncode == code
    assert found.stdout.splitlines() == ["said before", "said at the end"]
