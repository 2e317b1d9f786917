"""A command that is killed anywhere and called again ends as if it had not been.

The short form kills at a few of the operations that change names or files. With FULLRANK_KILLS=N set, N kills
are spread over the cases, some of them at random times, before and after the import of torch.
"""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest

from faults.cases import CASES
from faults.harness import (
    Case,
    assert_same_end,
    count_operations,
    finish,
    kill_after,
    kill_before,
    random_points,
    strays,
)

KILLS = int(os.environ.get("FULLRANK_KILLS", "0"))
SHORT = 2  # kills of a case
SECONDS = 12.0  # the latest random kill of a fresh interpreter, whose imports take seconds


@pytest.fixture(
    scope="module",
    params=[pytest.param(case, id=case.name, marks=[pytest.mark.slow] * case.is_long) for case in CASES],
)
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path, int]:
    """A case, the end of its command where nothing happens, and how many operations that takes."""
    case: Case = request.param
    folder = tmp_path_factory.mktemp("whole")
    if case.before:
        finish(case.command("before", folder / "out"), folder / "run")
    return case, folder / "out", count_operations(case.command("words", folder / "out"), folder / "out")


def test_a_command_that_is_killed_at_an_operation_and_called_again_ends_the_same(
    whole: tuple[Case, Path, int], tmp_path: Path
) -> None:
    case, end, operations = whole
    points = random_points(operations, KILLS // len(CASES) if KILLS else SHORT, seed=len(case.name))
    for operation in points:
        out = _fresh(case, end, tmp_path / str(operation))
        kill_before(case.command("words", out), out, operation)
        assert_ends_the_same(case, out, end, f"killed before {operation} of {operations}")


@pytest.mark.slow
def test_a_command_that_is_killed_at_any_time_and_called_again_ends_the_same(
    whole: tuple[Case, Path, int], tmp_path: Path
) -> None:
    case, end, _ = whole
    rng = random.Random(case.name)
    for number in range(max(2, KILLS // len(CASES) // 4)):
        out = _fresh(case, end, tmp_path / str(number))
        seconds = rng.uniform(0.05, SECONDS)
        kill_after(case.command("words", out), seconds)  # or it had ended, which is to be called again, too
        assert_ends_the_same(case, out, end, f"killed after {seconds:.2f} s")


@pytest.mark.slow
def test_a_command_that_is_killed_again_and_again_ends_the_same(
    whole: tuple[Case, Path, int], tmp_path: Path
) -> None:
    case, end, operations = whole
    rng = random.Random(case.name)
    out = _fresh(case, end, tmp_path / "many")
    kill_before(case.command("words", out), out, rng.randint(1, operations))
    for _ in range(4):
        left = count_left(case, out)
        if left:
            kill_before(_after(case, out), out, rng.randint(1, left))
    assert_ends_the_same(case, out, end, "killed again and again")


def assert_ends_the_same(case: Case, out: Path, end: Path, killed: str) -> None:
    """Finish a killed command and compare; what it wrote is removed."""
    if not (case.once and out.exists()):  # killed after its last rename
        finish(_after(case, out), out)
    assert_same_end(out, end)
    assert strays(out.parent) == strays(end.parent), killed
    shutil.rmtree(out.parent)


def count_left(case: Case, out: Path) -> int:
    """Operations that are left, counted where the command is at home, and then undone."""
    copy = out.parent.with_name(out.parent.name + "-copy")
    shutil.copytree(out.parent, copy)
    try:
        return count_operations(_after(case, out), out)
    finally:
        shutil.rmtree(out.parent)
        copy.rename(out.parent)


def _fresh(case: Case, end: Path, folder: Path) -> Path:
    folder.mkdir()
    if case.before:
        shutil.copytree(end.parent / "run", folder / "run")
    return folder / "out"


def _after(case: Case, out: Path) -> list[str]:
    """What finishes a killed command: it itself where there is nothing to resume yet."""
    return case.command("again" if case.again and (out / "config.yaml").exists() else "words", out)
