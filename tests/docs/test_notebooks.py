"""The notebooks in `examples/notebooks`: how they are kept, and that they run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))
SHORT = "monitor_in_other_loops"  # the proof of `make test` that notebooks run
SECONDS = 900  # for a notebook of two minutes on a core that others use, too

# a figure is shown only where every part of it says what it is
NAMED_AXES = """
import matplotlib.pyplot as plt

def _shown(*args, show=plt.show, **options):
    for ax in (ax for number in plt.get_fignums() for ax in plt.figure(number).axes):
        assert ax.get_title() and ax.get_xlabel() and ax.get_ylabel(), "a figure without title or axis names"
    show(*args, **options)

plt.show = _shown
"""


def cells_of(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return found


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def notebook(request: pytest.FixtureRequest) -> Path:
    path: Path = request.param
    return path


def test_a_notebook_is_of_format_4_and_every_cell_has_an_id_of_its_own(notebook: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    read = nbformat.read(notebook, as_version=nbformat.NO_CONVERT)
    nbformat.validate(read)
    assert (read.nbformat, read.nbformat_minor) == (4, 5)
    assert len({cell["id"] for cell in read.cells}) == len(read.cells)


def test_a_notebook_is_kept_without_outputs(notebook: Path) -> None:
    code = [cell for cell in cells_of(notebook) if cell["cell_type"] == "code"]
    assert code and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in code)


def test_links_of_a_notebook_to_the_docs_lead_somewhere(notebook: Path) -> None:
    texts = ["".join(cell["source"]) for cell in cells_of(notebook) if cell["cell_type"] == "markdown"]
    links = re.findall(r"\]\((\.\.[^)#]*)", "\n".join(texts)) + re.findall(
        r"`(\w+\.ipynb)`", "\n".join(texts)
    )
    assert [link for link in links if not (notebook.parent / link).exists()] == []


def test_every_notebook_has_a_line_in_the_docs() -> None:
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    named = re.findall(r"\]\(\.\./(examples/[\w/]+\.ipynb)\)", page)
    kept = [*(ROOT / "examples").glob("*.ipynb"), *NOTEBOOKS]
    assert sorted(named) == sorted(str(path.relative_to(ROOT)) for path in kept)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(
            path, id=path.stem, marks=[pytest.mark.slow] + [pytest.mark.acceptance] * (path.stem == SHORT)
        )
        for path in NOTEBOOKS
    ],
)
def test_a_notebook_runs_from_its_first_cell_to_its_last(path: Path, tmp_path: Path) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    ran = nbformat.read(path, as_version=4)
    ran.cells.insert(0, nbformat.v4.new_code_cell(NAMED_AXES))
    where = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(ran, timeout=SECONDS, kernel_name="python3", resources=where).execute()
    outputs = [output for cell in ran.cells for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output.output_type == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})], "it draws nothing"
