"""A folder with a `lab.py` is all that a new lab takes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fullrank

LAB = '''
"""A lab that was dropped into a folder."""

from fullrank.labs._common.findings import Chapter, Findings
from fullrank.labs._common.lab import LABS, Job, Lab


def doubled(seed):
    return {"value": 2.0 * seed}


@LABS.register("dropped")
class Dropped(Lab):
    """Twice the seed."""

    title, paper, says = "Is twice more?", "Nobody (2025)", "It is."
    presets = {"laptop": {}, "paper": {}}

    def jobs(self, preset, part, seed):
        yield Job("twice", seed, measure=doubled, arguments={"seed": seed})

    def analyse(self, results, preset):
        return Findings([Chapter("All", [results.dots("Values", "", "value", "value")])], [], "Seen.")
'''


@pytest.mark.slow
def test_a_folder_that_is_dropped_in_is_listed_run_and_met_by_the_contract_tests(tmp_path: Path) -> None:
    source = tmp_path / "src" / "fullrank"
    shutil.copytree(Path(fullrank.__file__).parent, source, ignore=shutil.ignore_patterns("__pycache__"))
    (source / "labs" / "dropped").mkdir()
    (source / "labs" / "dropped" / "__init__.py").touch()
    (source / "labs" / "dropped" / "lab.py").write_text(LAB)

    def call(*command: str) -> str:
        environment = {**os.environ, "PYTHONPATH": str(source.parent), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            [sys.executable, *command], capture_output=True, text=True, env=environment, cwd=tmp_path
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    listed = {row["name"]: row for row in json.loads(call("-m", "fullrank", "list", "labs", "--json"))}
    assert listed["dropped"]["title"] == "Is twice more?"
    ran = call("-m", "fullrank", "lab", "dropped", "--no-figures", "--jobs", "1", "--json")
    assert json.loads(ran)["seen"] == "Seen."
    root = str(Path(__file__).parents[2])
    options = ["-q", "-p", "no:cacheprovider", "--rootdir", root, "-c", f"{root}/pyproject.toml"]
    contract = f"{root}/tests/labs/test_lab.py"
    met = call("-m", "pytest", *options, contract, "-k", "can_be_planned and dropped")
    assert "1 passed" in met
