"""A cluster that is made of three scripts: sbatch, squeue and scancel."""

from __future__ import annotations

from pathlib import Path

import pytest

SBATCH = """#!/bin/sh
if [ -e {state}/refusal ]; then cat {state}/refusal >&2; exit 1; fi
cp "$1" {state}/script.sh
echo "Submitted batch job 7"
"""
SQUEUE = """#!/bin/sh
cat {state}/queue 2>/dev/null || true
"""
SCANCEL = """#!/bin/sh
echo "$@" > {state}/cancelled
"""


class FakeCluster:
    """What the scripts answer, and what they were asked.

    Attributes:
        state: the folder with the files `queue` (lines of squeue) and `refusal`.
    """

    def __init__(self, state: Path) -> None:
        self.state = state

    @property
    def script(self) -> str:
        """What sbatch was given."""
        return (self.state / "script.sh").read_text()

    def queue(self, *lines: str) -> None:
        """Have squeue answer."""
        (self.state / "queue").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty working directory of the test, with a home of its own."""
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return place


@pytest.fixture
def cluster(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeCluster:
    pytest.importorskip("submitit")
    programs, state = tmp_path / "bin", tmp_path / "state"
    state.mkdir()
    programs.mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE), ("scancel", SCANCEL)):
        (programs / name).write_text(text.format(state=state))
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    return FakeCluster(state)
