"""Baselines: computed, they are what simulated isotropic rows read, and every surface prints the same."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from expect import known
from fullrank.cli import main
from fullrank.collapse import Moments, Panel
from fullrank.collapse.baselines import baseline
from fullrank.collapse.metrics import METRICS


@pytest.mark.parametrize(
    ("n", "erank", "ratio", "auc"),
    [
        (256, 236, 170, 0.807),
        (512, 411, 255, 0.681),
        (1024, 474, 341, 0.612),
        (5120, 505, 465, 0.547),
        (25600, 511, 502, 0.521),
    ],
)
def test_the_table_of_the_literature(n: int, erank: float, ratio: float, auc: float) -> None:
    assert baseline("erank_centred", n, 512) == pytest.approx(erank, rel=0.01)
    assert baseline("participation_ratio", n, 512) == pytest.approx(ratio, rel=0.01)
    assert baseline("auc", n, 512) == pytest.approx(auc, rel=0.01)


@pytest.mark.parametrize(("n", "d"), [(64, 200), (100, 100), (101, 100), (500, 64), (3000, 16), (2000, 2)])
def test_simulated_rows_read_their_null(gaussian: Callable[..., torch.Tensor], n: int, d: int) -> None:
    z = gaussian(n, d)
    panel = Panel.from_moments("z", Moments.of(z), points=z, pairs=(z, gaussian(n, d, seed=1)))
    of_clusters = ("linked_share", "tight_clusters")  # whose null is measured beside them
    judged = [measure for measure in panel.measures.values() if measure.name not in of_clusters]
    assert len(judged) == 13
    for measure in judged:
        tolerance = 0.06 if measure.name in ("alignment", "view_share") else 0.02
        near = 0.05 if measure.name in ("view_retrieval", "neighbour_coherence") else 1e-12
        assert measure.value == pytest.approx(measure.null, rel=tolerance, abs=near), measure.name


@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 5), (2, 1), (2, 5), (3, 2)])
def test_the_smallest_sizes_have_baselines(n: int, d: int) -> None:
    # One centred row has no directions; otherwise a rank is between one and what n and d allow.
    erank = baseline("erank_centred", n, d)
    assert erank is None if n == 1 else 1 <= known(erank) <= min(n - 1, d) + 1e-9
    assert 1 <= known(baseline("rankme_unit", n, d)) <= min(n, d) + 1e-9
    assert known(baseline("uniformity", n, d)) < 0


def test_uniformity_on_the_line_and_the_circle() -> None:
    # d = 1: distances 0 and 2, half each. d = 2: exp(-4) I0(4).
    assert baseline("uniformity", 9, 1) == pytest.approx(torch.tensor((1 + 2.718281828**-8) / 2).log().item())
    assert baseline("uniformity", 9, 2) == pytest.approx(torch.special.i0e(torch.tensor(4.0)).log().item())


def rounded(shown: str) -> object:
    """The number that a table shows, to half a unit of its last digit; None for a dash."""
    text = re.sub(r"<[^>]*>", "", shown).replace("\N{MINUS SIGN}", "-").replace(",", "").strip()
    if text in ("", "\N{EN DASH}"):
        return None
    digits = len(text.partition(".")[2])
    return pytest.approx(float(text), abs=0.501 * 10**-digits)


def test_every_surface_prints_one_baseline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    n, d = 600, 48
    rows = np.random.default_rng(0).standard_normal((n, d)) / np.sqrt(np.arange(1, d + 1))
    np.save("z.npy", rows.astype(np.float32))
    assert main(["audit", "z.npy", "--json", "--no-page"]) == 0
    found = json.loads(capsys.readouterr().out)
    z = torch.from_numpy(rows.astype(np.float32))
    panel = Panel.from_moments("z", Moments.of(z), points=z).as_dict()["measures"]  # as metrics.jsonl has it
    once = {name: baseline(name, n, d) for name in METRICS}
    measured = {name for name, metric in METRICS.items() if metric.baseline == "measured"}

    of_audit = {name: metric["null"] for name, metric in found["metrics"].items()}
    assert len(of_audit) > 40
    assert of_audit == {name: once[name] for name in of_audit}
    evidence = {item["metric"]: item["null"] for item in found["evidence"]}
    assert evidence == {name: measure["null"] for name, measure in panel.items()}
    judged = {name: null for name, null in evidence.items() if name not in measured}
    assert judged == {name: once[name] for name in judged}

    assert main(["audit", "z.npy", "--out", "page"]) == 0
    printed = capsys.readouterr().out
    for name, null in evidence.items():
        (line,) = re.findall(rf"^{re.escape(METRICS[name].label)}  +(.*)$", printed, re.MULTILINE)
        value, _interval, isotropic = re.split(r"  +", line)[:3]
        assert null == rounded(isotropic), (name, value)
    (page,) = Path("page").rglob("*.html")
    shown: dict[str, str] = {}
    for row in re.findall(r"<tr.*?</tr>", page.read_text(), re.DOTALL):
        head = re.search(r'<th scope="row">([^<]*)', row)
        cell = re.search(r'data-label="Isotropic"[^>]*>(.*?)</td>', row, re.DOTALL)
        if head and cell:
            shown[head[1].strip()] = cell[1]
    for name, null in of_audit.items():
        assert null == rounded(shown[name]), name
    for name, null in evidence.items():
        assert null == rounded(shown[METRICS[name].label]), name
