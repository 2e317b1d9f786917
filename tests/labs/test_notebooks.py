"""The notebooks in `examples/` run from top to bottom on the smallest preset, and have no outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = [
    EXAMPLES / f"{name}.ipynb" for name in ("asymmetry", "data_order")
]  # test_eigenmodes has its own


def code_of(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def parameters_of(cell: dict[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_has_one_cell_of_parameters(path: Path) -> None:
    cells = code_of(path)
    assert all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert sum(map(parameters_of, cells)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_the_smallest_preset(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    torch.set_num_threads(1)
    scope: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_of(path):
        exec(compile("".join(cell["source"]), f"{path.name}, {cell['id']}", "exec"), scope)
        if parameters_of(cell):
            scope |= {"preset": "tiny", "seeds": "0"}
    assert scope["lab"]["cells"] and not scope["lab"]["missing"]
    assert plt.get_fignums(), "it draws nothing"
    plt.close("all")
