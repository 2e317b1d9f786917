"""What other packages announce is listed like the rest, and what is wrong with one costs it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SOUND = (Path(__file__).parents[2] / "examples" / "third_party_method" / "fullrank_tico.py").read_text()
BROKEN = {
    "raises": ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
    "package": ("import no_such_package", "No module named 'no_such_package'"),
    "lacks": ("class TiCo: year = 2020", "no subclass of Method"),
    "twice": (SOUND.replace('"tico"', '"swav"'), "registered twice"),
    "default": (SOUND.replace('"tico"', '"default"').replace("20.0", '"much"'), "is wrong"),
    "taps": (SOUND.replace('"tico"', '"taps"').replace("self.make_target(", "raise_error("), "NameError"),
}


def _announce(site: Path, name: str, module: str, text: str, cls: str) -> None:
    """Lay a package into a folder as pip does: the module, and what it announces."""
    info = site / f"{module}-1.dist-info"
    info.mkdir(parents=True)
    (site / f"{module}.py").write_text(text)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[fullrank.methods]\n{name} = {module}:{cls}\n")


def _fullrank(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH", "")]))
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "fullrank", *words]
    return subprocess.run(command, cwd=site, env=env, capture_output=True, text=True)


@dataclass(frozen=True)
class Listed:
    """What `fullrank list methods` shows where sound and broken packages lie beside each other."""

    rows: dict[str, dict[str, Any]]
    table: str


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory) -> Listed:
    """All in one place: each listing takes a process that builds every method."""
    site = tmp_path_factory.mktemp("site")
    _announce(site, "tico", "fullrank_tico", SOUND, "TiCo")
    parts = SOUND.replace('"tico"', '"parts"').replace("from torch import", "from base import")
    _announce(site, "parts", "fullrank_parts", parts, "TiCo")
    (site / "base.py").write_text("from torch import Tensor, nn\n")
    for case, (text, _) in BROKEN.items():
        _announce(site, case, f"{case}_method", text, "TiCo")
    rows = json.loads(_fullrank(site, "list", "methods", "--json").stdout)
    table = _fullrank(site, "list", "methods").stdout
    return Listed({row["name"].split()[0]: row for row in rows}, table)


def test_a_method_of_another_package_has_the_row_that_the_docs_show(listed: Listed) -> None:
    row = listed.rows["tico"]
    assert row["paper"] == "arXiv 2206.10698" and row["taps"] == ["backbone", "projector", "target"]


def test_a_method_in_several_modules_is_listed_like_one_in_a_file(listed: Listed) -> None:
    assert listed.rows["parts"]["taps"] == ["backbone", "projector", "target"]


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_method_that_cannot_be_used_costs_its_own_row_alone(listed: Listed, case: str) -> None:
    wrong = BROKEN[case][1]
    assert wrong in listed.rows[case]["problem"] and wrong in listed.table
    assert {name for name, row in listed.rows.items() if "problem" in row} == BROKEN.keys()


def test_the_table_has_the_sound_methods_beside_broken_ones(listed: Listed) -> None:
    assert "balanced" in listed.table and "tico" in listed.table


def test_training_a_method_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    _announce(tmp_path, "broken", "broken_method", BROKEN["raises"][0], "TiCo")
    done = _fullrank(tmp_path, "train", "broken", "--data", "shapes")
    assert done.returncode == 2 and "RuntimeError: out of order" in done.stderr


@pytest.mark.parametrize("words", [("train",), ("--print-completion", "bash")])
def test_indexes_do_without_a_method_that_cannot_be_loaded(tmp_path: Path, words: tuple[str, ...]) -> None:
    _announce(tmp_path, "broken", "broken_method", BROKEN["raises"][0], "TiCo")
    done = _fullrank(tmp_path, *words)
    assert done.returncode == 0 and "swav" in done.stdout
