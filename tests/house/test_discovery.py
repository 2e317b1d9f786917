"""A method, metric or lab that is dropped in is listed, documented and tested with no other line changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "third_party_method" / "fullrank_tico.py"


def _example(page: str) -> str:
    """The file that a page of the docs shows."""
    return (ROOT / "docs" / page).read_text().split("```python\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with a method, a metric and a lab more."""
    copy = tmp_path_factory.mktemp("grown")
    shutil.copytree(
        ROOT / "src" / "fullrank", copy / "fullrank", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(EXAMPLE, copy / "fullrank" / "methods" / "tico.py")
    (copy / "fullrank" / "collapse" / "metrics" / "signs.py").write_text(_example("add_a_metric.md"))
    lab = copy / "fullrank" / "labs" / "bias"
    lab.mkdir()
    (lab / "lab.py").write_text(_example("add_a_lab.md"))
    return copy


def _run(grown: Path, *words: str) -> str:
    env = os.environ | {"PYTHONPATH": str(grown), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _page(grown: Path, script: str, page: str) -> str:
    return _run(grown, "-c", f"import sys; sys.path.insert(0, 'docs'); import {script} as s; print({page})")


def test_a_method_is_listed_and_in_the_table_of_the_docs(grown: Path) -> None:
    page = _page(grown, "make_methods_table", "s.page(s.listed(), {})")  # from `fullrank list methods --json`
    assert "| `tico` | [2206.10698](https://arxiv.org/abs/2206.10698) |" in page


def test_a_metric_is_in_the_table_of_the_docs(grown: Path) -> None:
    assert "| `positive_share`<br>`PositiveShare` | points | 0 … 1 |" in _page(
        grown, "make_metrics_table", "s.page()"
    )


@pytest.mark.parametrize(("what", "name"), [("metrics", "positive_share"), ("labs", "bias")])
def test_it_is_listed(grown: Path, what: str, name: str) -> None:
    assert name in {row["name"] for row in json.loads(_run(grown, "-m", "fullrank", "list", what, "--json"))}


@pytest.mark.slow
def test_a_lab_is_run(grown: Path, tmp_path: Path) -> None:
    words = ("--out", str(tmp_path / "out"), "--seeds", "0,1", "--jobs", "1", "--no-figures", "--json")
    ran = json.loads(_run(grown, "-m", "fullrank", "lab", "bias", *words))
    assert [claim["verdict"] for claim in ran["claims"]] == ["confirmed"]
    assert ran["seeds"] == [0, 1] and not ran["missing"] and (tmp_path / "out" / "report.html").is_file()


def test_all_are_held_to_what_their_kind_promises(grown: Path) -> None:
    files = [f"tests/{kind}.py" for kind in ("methods/test_every_method", "collapse/test_definitions")]
    files += ["tests/collapse/test_streaming.py", "tests/labs/test_lab.py"]
    collected = _run(grown, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files)
    for file, name in zip(files, ("tico", "positive_share", "positive_share", "bias"), strict=True):
        assert [line for line in collected.splitlines() if line.startswith(file) and f"[{name}" in line]


BROKEN = {
    "syntax": ("def f(:", "SyntaxError: "),
    "package": ("\nimport no_such_package", "No module named 'no_such_package' (line 2)"),
    "nothing": ("x = 1", "registers no method: put @register"),
    "twice": (
        EXAMPLE.read_text().replace('"tico"', '"swav"'),
        "by fullrank.methods.swav and by fullrank.methods.z",
    ),
}


@pytest.mark.parametrize("case", list(BROKEN))
def test_a_file_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, case: str) -> None:
    text, line = BROKEN[case]
    (folder := tmp_path / "fullrank").mkdir()
    for path in (ROOT / "src" / "fullrank").iterdir():  # links, but for the folder that gets a file more
        if path.name != "methods":
            (folder / path.name).symlink_to(path)
    shutil.copytree(ROOT / "src" / "fullrank" / "methods", folder / "methods")
    (folder / "methods" / "z.py").write_text(text)
    env = os.environ | {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-m", "fullrank", "list", "methods"]
    done = subprocess.run(words, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    (printed,) = done.stderr.splitlines()
    assert printed.startswith("fullrank: methods/z.py ") and line in printed
