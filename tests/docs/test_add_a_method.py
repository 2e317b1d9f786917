"""The page "Add a method", followed literally in a fresh copy of the repository."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "add_a_method.md").read_text()
EXAMPLE = ROOT / "examples" / "third_party_method"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


def test_the_page_shows_the_example_as_it_is() -> None:
    assert blocks("python") == [(EXAMPLE / "fullrank_tico.py").read_text()]
    assert blocks("toml") == [(EXAMPLE / "pyproject.toml").read_text()]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh copy of the repository with the page's file where the page says."""
    clone = tmp_path_factory.mktemp("clone")
    for folder in ("src", "tests"):
        shutil.copytree(ROOT / folder, clone / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / file, clone / file)
    (place,) = re.findall(r"Save this as `(\S+)`", PAGE)
    (clone / place).write_text(blocks("python")[0])
    return clone


def run(command: str, cwd: Path) -> str:
    """What a line of the page prints, with the package of that folder."""
    program, *words = command.split()
    done = subprocess.run(
        [sys.executable, "-m", program, *words],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(cwd / "src"), "OMP_NUM_THREADS": "1", "COLUMNS": "120"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.acceptance
def test_what_the_page_says_happens(clone: Path) -> None:
    listing, training, checking = (
        line.removeprefix("$ ") for block in blocks("console") for line in block.splitlines()
    )
    (row,) = blocks("text")
    assert row.strip() in run(listing, clone)
    assert "verdict" in run(training, clone)
    (report,) = re.findall(r"the second writes `(\S+)`", PAGE)
    assert (clone / report).is_file()
    assert re.search(r"\d+ passed", run(checking, clone))


def test_all_that_the_page_names_is_importable_from_methods() -> None:
    import fullrank.methods

    named = [
        "OneBranchMethod",
        "TwoBranchMethod",
        "MomentumMethod",
        "MomentumConfig",
        "Method",
        "MethodConfig",
    ]
    named += ["ParamGroup", "Step", "StepInfo", "register", "negative_cosine", "regression_loss", "mlp"]
    assert [name for name in named if not hasattr(fullrank.methods, name)] == []
    assert "_base" not in blocks("python")[0] and "methods._" not in blocks("python")[0]
