"""A method or a lab that is dropped in is listed, documented and tested with no other line changed."""

from __future__ import annotations

import doctest
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fullrank.labs

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "third_party_method" / "fullrank_tico.py"


def _lab_of_the_docs() -> str:
    """The whole lab that `fullrank.labs` shows, registered as it says."""
    examples = doctest.DocTestParser().get_examples(fullrank.labs.__doc__ or "")
    definitions = [e.source for e in examples if e.source.startswith(("from", "class", "def"))]
    return "\n".join(definitions) + 'LABS.register("bias")(Bias)\n'


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with a file of a method and a folder of a lab more."""
    copy = tmp_path_factory.mktemp("grown")
    shutil.copytree(
        ROOT / "src" / "fullrank", copy / "fullrank", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(EXAMPLE, copy / "fullrank" / "methods" / "tico.py")
    lab = copy / "fullrank" / "labs" / "bias"
    lab.mkdir()
    (lab / "__init__.py").touch()
    (lab / "lab.py").write_text(_lab_of_the_docs())
    return copy


def _run(grown: Path, *words: str) -> str:
    env = os.environ | {"PYTHONPATH": str(grown), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, *words], cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_method_is_listed_and_in_the_table_of_the_docs(grown: Path) -> None:
    code = "import make_methods_table as script; print(script.page(script.listed(), {}))"
    page = _run(grown, "-c", f"import sys; sys.path.insert(0, 'docs'); {code}")
    assert "| `tico` | [2206.10698](https://arxiv.org/abs/2206.10698) |" in page


def test_a_lab_is_listed(grown: Path) -> None:
    listed = json.loads(_run(grown, "-m", "fullrank", "list", "labs", "--json"))
    assert "bias" in {row["name"] for row in listed}


def test_both_are_held_to_what_all_promise(grown: Path) -> None:
    files = ("tests/methods/test_every_method.py", "tests/labs/test_lab.py")
    collected = _run(grown, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *files)
    assert "test_every_method.py::test_gradient_reaches_every_parameter_of_the_backbone[tico]" in collected
    assert "[bias]" in collected
