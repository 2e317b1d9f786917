"""What other packages announce is listed like the rest, and what is wrong with one costs it alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SOUND = (Path(__file__).parents[2] / "examples" / "third_party_method" / "fullrank_tico.py").read_text()
BROKEN = {
    "raises": ("raise RuntimeError('out of order')", "RuntimeError: out of order"),
    "package": ("import no_such_package", "No module named 'no_such_package'"),
    "lacks": ("class Method: year = 2020", "no subclass of Method"),
    "twice": (SOUND.replace('"tico"', '"swav"').replace("class TiCo", "class Method"), "registered twice"),
    "default": (
        SOUND.replace("class TiCo", "class Method").replace('"tico"', '"broken"').replace("20.0", '"much"'),
        "is wrong",
    ),
    "taps": (
        SOUND.replace("class TiCo", "class Method")
        .replace('"tico"', '"broken"')
        .replace("self.make_target(", "raise_error("),
        "NameError",
    ),
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


def test_a_method_of_another_package_has_the_row_that_the_docs_show(tmp_path: Path) -> None:
    _announce(tmp_path, "tico", "fullrank_tico", SOUND, "TiCo")
    done = _fullrank(tmp_path, "list", "methods", "--filter", "tico", "--json")
    (row,) = json.loads(done.stdout)
    assert row["paper"] == "arXiv 2206.10698" and row["taps"] == ["backbone", "projector", "target"]


def test_a_method_in_several_modules_is_listed_like_one_in_a_file(tmp_path: Path) -> None:
    _announce(
        tmp_path, "tico", "fullrank_tico", SOUND.replace("from torch import", "from base import"), "TiCo"
    )
    (tmp_path / "base.py").write_text("from torch import Tensor, nn\n")
    done = _fullrank(tmp_path, "list", "methods", "--filter", "tico", "--json")
    (row,) = json.loads(done.stdout)
    assert row["taps"] == ["backbone", "projector", "target"]


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_method_that_cannot_be_used_costs_its_own_row_alone(tmp_path: Path, case: str) -> None:
    text, wrong = BROKEN[case]
    _announce(tmp_path, "broken", "broken_method", text, "Method")
    done = _fullrank(tmp_path, "list", "methods", "--json")
    rows = {row["name"].split()[0]: row for row in json.loads(done.stdout)}
    assert wrong in rows["broken"]["problem"] and "problem" not in rows["swav"]
    table = _fullrank(tmp_path, "list", "methods").stdout
    assert wrong in table and "balanced" in table


def test_training_a_method_that_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    _announce(tmp_path, "broken", "broken_method", BROKEN["raises"][0], "Method")
    done = _fullrank(tmp_path, "train", "broken", "--data", "shapes")
    assert done.returncode == 2 and "RuntimeError: out of order" in done.stderr


@pytest.mark.parametrize("words", [("train",), ("--print-completion", "bash")])
def test_indexes_do_without_a_method_that_cannot_be_loaded(tmp_path: Path, words: tuple[str, ...]) -> None:
    _announce(tmp_path, "broken", "broken_method", BROKEN["raises"][0], "Method")
    done = _fullrank(tmp_path, *words)
    assert done.returncode == 0 and "swav" in done.stdout
