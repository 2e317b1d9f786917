"""Every lab on its smallest preset: all parts, from jobs to the page; and the notebooks in `examples/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from cli.helpers import call
from fullrank.labs import LABS
from fullrank.labs._common.results import Result, Results, finished
from fullrank.labs._common.run import make_plan, run_lab
from fullrank.labs.eigenmodes.deep import rate_spread

FIGURES = {
    "asymmetry": {"loss-2x2", "k-nn-of-each-design"},
    "capacity": {"forecast-of-runs-left-out"},
    "codes": {"covariance-10-codes", "adjacency-256-codes", "mixture-entropy-corrected"},
    "contrastive-toys": {"when-the-rank-starts-dropping", "spectra-from-uniform-starts"},
    "data-order": {"auc", "linear-accuracy", "auc-hybrid-against-multi-epoch"},
    "eigenmodes": {
        "directpred-cosine-deep", "byol-linear-predictor-cosine", "two-neurons-euclidean",
        "what-the-moving-average-is-worth",
    },
    "failures": {"simsiam", "nothing-holds-it", "dino", "no-centring"},
    "rank-difference": {
        "rank-difference-along-training-methods", "rank-difference-along-training-filters",
    },
}  # fmt: skip
ROWS = {
    "contrastive-toys": ("implicit-regularisation", ["1 layer, decaying start", "2 layers, decaying start"]),
    "eigenmodes": (
        "with-and-without-a-moving-average",
        ["BYOL", "DirectPred", "DirectCopy", "IsoLoss"],
    ),
    "rank-difference": ("branches-methods", ["SimSiam", "BYOL", "DINO", "SwAV"]),
}
TOYS = ["augmentation", "layers", "subvector"]


QUICK = ("contrastive-toys", "failures")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in LABS]
)
def test_the_smallest_preset_of_a_lab_comes_to_a_page_with_every_part(name: str, tmp_path: Path) -> None:
    parts = TOYS if name == "contrastive-toys" else list(LABS[name].parts)
    seeds = [0, 1] if name in ("capacity", "contrastive-toys", "rank-difference") else [0]
    plan = make_plan(name, tmp_path, "tiny", parts, seeds)
    _, failed = run_lab(plan, tmp_path, at_once=1, figures=False)
    assert failed == {}
    found = json.loads((tmp_path / "lab.json").read_text())
    assert found["missing"] == {} and found["seen"] and (tmp_path / "report.html").is_file()
    assert FIGURES[name] <= found["figures"].keys()
    if name in ROWS:
        table, arms = ROWS[name]
        assert [row[0] for row in found["tables"][table]["rows"]][: len(arms)] == arms
    results = [result for job in plan.jobs if (result := finished(job, tmp_path))]
    assert len(results) == len(plan.jobs) == len(found["cells"])
    findings = plan.lab.analyse(Results(results), plan.values["settings"])
    titles = [item.title for chapter in findings.chapters for item in chapter.items]
    assert len(titles) == len(set(titles))
    MORE.get(name, lambda *_: None)(found, results)


def more_of_asymmetry(found: dict[str, Any], results: list[Result]) -> None:
    assert len(found["figures"]) > 20 and all(part in found["seen"] for part in LABS["asymmetry"].parts)
    assert {claim["verdict"] for claim in found["claims"]} == {"not decidable"}  # of one seed


def more_of_capacity(found: dict[str, Any], results: list[Result]) -> None:
    runs = [str(result.folder / "run") for result in results if result.arm.startswith("4 channels")]
    printed = call("lab", "forecast", *runs, "--json")
    assert len(results) == 8 and printed.code == 0 and json.loads(printed.out)["labelled"] == 4


def more_of_eigenmodes(found: dict[str, Any], results: list[Result]) -> None:
    assert rate_spread(Results(results).of("deep")[0]) is not None


def more_of_failures(found: dict[str, Any], results: list[Result]) -> None:
    assert [row[0] for row in found["tables"]["who-saw-what-and-when"]["rows"]] == found["settings"]["arms"]
    shown = {series["name"] for series in found["figures"]["dino"]["series"]}
    assert shown == {"k-NN top-1", "level", "effective rank / d", "codes in use / K"}


MORE: Any = {
    "asymmetry": more_of_asymmetry,
    "capacity": more_of_capacity,
    "eigenmodes": more_of_eigenmodes,
    "failures": more_of_failures,
}


NOTEBOOKS = sorted((Path(__file__).parents[2] / "examples").glob("*.ipynb"))


def code_of(path: Path) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]


def parameters_of(cell: dict[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", [])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_has_at_most_one_cell_of_parameters(path: Path) -> None:
    cells = code_of(path)
    assert cells and all(cell["outputs"] == [] and cell["execution_count"] is None for cell in cells)
    assert sum(map(parameters_of, cells)) == (path.stem != "eigenmodes")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_the_smallest_preset(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mpl.use("Agg")
    scope: dict[str, Any] = {"__name__": "__main__"}
    for cell in code_of(path):
        exec(compile("".join(cell["source"]), f"{path.name}, {cell['id']}", "exec"), scope)
        if parameters_of(cell):
            scope |= {"preset": "tiny", "seeds": "0"}
    assert scope["lab"]["claims"] and scope["lab"]["cells"] and not scope["lab"]["missing"]
    assert plt.get_fignums() or path.stem == "eigenmodes", "it draws nothing"
    plt.close("all")
