"""The audit's page: complete in one file, and true to the numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fullrank
from fullrank.collapse.metrics import METRICS
from fullrank.errors import UnknownNameError, UsageError
from fullrank.features.store import LAYOUTS
from fullrank.features.writing import StoreWriter
from fullrank.images.opening import open_data
from fullrank.report.audit.page import as_object, write_audit
from fullrank.report.audit.subjects import AuditOptions, audit_subject
from fullrank.report.audit.terminal import AuditView
from fullrank.report.audit.view import Against
from report.test_page import figures, without_scripts

QUICK = ["level", "erank_centred", "rankme_unit", "two_nn"]


def cloud(n: int = 300, d: int = 24, seed: int = 0) -> torch.Tensor:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed))
    return z * torch.arange(1, d + 1) ** -0.5


def view(z: torch.Tensor | None = None, **more: Any) -> AuditView:
    made: AuditView = fullrank.audit(cloud() if z is None else z, metrics=QUICK, **more)
    return made


def page_of(out: Path, *views: AuditView, **more: Any) -> str:
    named = {f"tap{k}" if len(views) > 1 else v.tap: v for k, v in enumerate(views)}
    return write_audit(named, out, figures=False, **more).read_text()


def test_one_embedding(tmp_path: Path) -> None:
    found = view(labels=torch.arange(300) % 3)
    page = page_of(tmp_path, found, title="features")
    text = without_scripts(page)
    assert len(figures(page)) == 4
    assert "<h1>features</h1>" in text and "Healthy" in text and "Coloured by 3 classes" in text
    for name in QUICK:
        assert f">{name}<small>" in text
        assert METRICS[name].reference.split(",")[0] in text
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "audit.html"}
    assert json.loads((tmp_path / "audit.json").read_text())["verdict"] == "healthy"


def test_the_figures_of_an_earlier_audit_make_room(tmp_path: Path) -> None:
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "earlier.svg").write_text("<svg/>")
    (tmp_path / "figures" / "mine.txt").write_text("kept")
    write_audit({"embedding": view()}, tmp_path)
    left = {path.name for path in (tmp_path / "figures").iterdir()}
    assert "earlier.svg" not in left
    assert {"mine.txt"} < left


def test_nothing_is_fetched(tmp_path: Path) -> None:
    text = without_scripts(page_of(tmp_path, view()))
    assert "src=" not in text and "@import" not in text and "url(" not in text


def test_a_collapse_comes_with_its_mechanisms(tmp_path: Path) -> None:
    text = without_scripts(page_of(tmp_path, view(5 + 0.01 * cloud())))
    assert "Complete collapse" in text and "of 1, severe" in text and "arXiv 2011.10566" in text
    assert "what is left around it, which may be noise, and may look full" in text


@pytest.mark.parametrize("constant", [0.0, 3.0])
def test_rows_that_are_one_row(tmp_path: Path, constant: float) -> None:
    page = page_of(tmp_path, view(torch.full((64, 8), constant)))
    assert "Complete collapse" in page or "Not decidable" in page
    json.loads((tmp_path / "audit.json").read_text(), parse_constant=pytest.fail)


def test_one_row_and_one_dimension(tmp_path: Path) -> None:
    assert "Not decidable" in page_of(tmp_path / "row", view(cloud(1)))
    assert page_of(tmp_path / "column", view(cloud(d=1)))


def test_codes(tmp_path: Path) -> None:
    scores = 9 * torch.eye(16)[torch.arange(400) % 12]
    page = page_of(tmp_path, fullrank.audit(scores, codes=True))
    assert "Use of codes" in page and len(figures(page)) == 2
    use = figures(page)[1][0]["y"]
    assert use[0] == pytest.approx(1 / 12, rel=0.02)


def test_against_another(tmp_path: Path) -> None:
    other = Against("old", view(cloud(seed=1) @ torch.diag((torch.arange(24) < 2).float())))
    page = page_of(tmp_path, view(), against=other)
    assert "Against old" in page and "Metric by metric against old" in page
    assert as_object({"embedding": view()}, other)["against"]["name"] == "old"


def test_taps_are_chosen_by_buttons(tmp_path: Path) -> None:
    page = page_of(tmp_path, view(), view(cloud(d=12)))
    assert 'data-value="tap0"' in page and "over the depth" in page
    assert len(figures(page)) == 6 + 4


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        ([5, 7], ("class 5", "class 7")),
        ([-1, 3], ("class 3",)),
        (["cat", "dog"], ("class 0", "class 1")),  # whose names the labels of a file do not keep
    ],
)
def test_classes_are_called_what_their_labels_are(labels: list[Any], names: tuple[str, ...]) -> None:
    found = audit_subject(cloud(), AuditOptions(), labels=np.array(labels * 150))["embedding"]
    assert found.classes == names
    assert found.labels is not None
    assert len(set(found.labels.tolist()) - {-1}) == len(names)


def test_classes_of_images_have_their_names() -> None:
    with_names = AuditOptions(data="digits", limit=64, untrained=True, taps="features")
    (found,) = audit_subject("timm:test_resnet", with_names).values()
    assert set(found.classes) <= set(open_data("digits").train.classes or ())


def test_labels_are_those_of_the_sample() -> None:
    z = cloud(3000)
    labels = (z[:, 0] > 0).long()
    found = audit_subject(z, AuditOptions(metrics=("level",), sample=64), labels.numpy())["embedding"]
    assert found.labels is not None
    assert torch.equal(found.labels, (found.sample[:, 0] > 0).long())


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_stored_features_are_audited_tap_by_tap_with_their_labels(tmp_path: Path, layout: Any) -> None:
    taps = {"features": cloud(600), "target": cloud(600)[:, :1].repeat(1, 3)}
    for split in ("train", "test"):
        n = 600 if split == "train" else 300
        settings = {"subject": "noise", "taps": list(taps)}
        writer = StoreWriter(tmp_path / "F", split, settings, layout=layout, rank=0, world_size=1)
        rows = {tap: z[:n] for tap, z in taps.items()}
        writer.add(rows, torch.arange(n), torch.arange(n) % 3, n)
        writer.finish({"classes": ["a", "b", "c"]})
    options = AuditOptions(metrics=("level", "nc1_variability"))
    held_out = audit_subject(tmp_path / "F", options)
    assert {tap: (found.n, found.verdict.kind) for tap, found in held_out.items()} == {
        "features": (300, "healthy"),
        "target": (300, "dimensional"),
    }
    assert held_out["features"].metrics["nc1_variability"].value is not None
    (train,) = audit_subject(tmp_path / "F", replace(options, taps=("target",), split="train")).values()
    assert train.n == 600
    if LAYOUTS[layout].place(tmp_path / "F", "train").is_dir():
        assert audit_subject(tmp_path / "F/train", options)["features"].n == 600
        with pytest.raises(UsageError, match=r"train holds no held-out images"):
            audit_subject(tmp_path / "F/train", replace(options, split="held-out"))
    with pytest.raises(UsageError, match="holds features with their labels"):
        audit_subject(tmp_path / "F", options, np.zeros(300))
    with pytest.raises(UnknownNameError, match="unknown tap 'feature'"):
        audit_subject(tmp_path / "F", replace(options, taps=("feature",)))
