"""Runs that were never trained, in the very format that the training loop writes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from fullrank.training.records import RunRecord, parse_record

TAPS = {"backbone": 256, "projector": 128}
N = 1000


def erank(values: np.ndarray) -> float:
    share = values[values > 0] / values.sum()
    return float(np.exp(-(share * np.log(share)).sum()))


@cache
def null_of(d: int) -> dict[str, float]:
    """What isotropic noise gives, by the eigenvalues that Marchenko and Pastur predict, drawn once."""
    rows = np.random.default_rng(0).standard_normal((N, d))
    sigma = np.linalg.svd(rows - rows.mean(0), compute_uv=False) / np.sqrt(N)
    return {
        "level": 1.0,
        "centred_share": 1 - 1 / N,
        "erank_centred": erank(sigma**2),
        "rankme_uncentred": erank(sigma),
        "rankme_unit": erank(sigma),
        "participation_ratio": float((sigma**2).sum() ** 2 / (sigma**4).sum()),
        "auc": float((np.cumsum(sigma) / sigma.sum()).mean()),
        "uniformity": -3.94,
        "alignment": 2.0,
    }


def spectrum(kind: str, d: int, t: float, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Centred singular values and the level, at time t in [0, 1]."""
    index = np.arange(1, d + 1)
    start, level = index**-0.9, 0.35
    if kind == "healthy":
        goal, level = index**-0.25, 0.35 + 0.55 * (1 - np.exp(-5 * t))
    elif kind == "dimensional":
        goal = np.where(index <= 7, 1.0, 10.0 ** (-3 * (1 - np.exp(-8 * t))))
        level = 0.35 + 0.5 * (1 - np.exp(-5 * t))
    else:
        goal, level = index**-0.4, 0.35 * np.exp(-9 * t) + 2e-4
    weight = 1 - np.exp(-6 * t)
    sigma = start ** (1 - weight) * goal**weight * np.exp(0.03 * rng.standard_normal(d))
    sigma = np.sort(sigma)[::-1]
    return sigma / np.linalg.norm(sigma) * level, float(level)


def panel(
    kind: str, tap: str, t: float, rng: np.random.Generator
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    d = TAPS[tap]
    sigma, level = spectrum("healthy" if kind == "dimensional" and tap == "backbone" else kind, d, t, rng)
    mean = np.sqrt(max(0.0, 1 - level**2))
    unit = np.sort(np.append(sigma[:-1], mean))[::-1]
    values = {
        "level": level,
        "centred_share": level**2,
        "erank_centred": erank(sigma**2),
        "rankme_uncentred": erank(unit),
        "rankme_unit": erank(unit) * 0.97,
        "participation_ratio": float((sigma**2).sum() ** 2 / (sigma**4).sum()),
        "auc": float((np.cumsum(sigma) / sigma.sum()).mean()),
        "uniformity": -3.9 * level,
        "alignment": 2 * level * (0.45 - 0.3 * t),
    }
    null = null_of(d)
    measures = {key: {"value": value, "null": null[key]} for key, value in values.items()}
    return {"n": N, "d": d, "measures": measures}, {f"{tap}.centred": sigma, f"{tap}.unit": unit}


def verdict(kind: str, tap: str, measures: dict[str, Any], epoch: int) -> dict[str, Any]:
    level, rank = measures["level"], measures["erank_centred"]
    why = {
        "healthy": "The level holds and the centred rank is close to that of isotropic noise of this size.",
        "complete": f"Embeddings are all but constant: the level is {level['value']:.4f} of 1.",
        "dimensional": f"The level holds, but only {rank['value']:.1f} of {TAPS[tap]} directions are in use.",
    }
    ready = epoch >= 2
    moved = {"healthy": 0.12, "complete": -0.93, "dimensional": -0.71}[kind] if ready else None
    thresholds = {"level": 0.15, "centred_share": 0.01, "erank_centred": 0.1 * TAPS[tap]}
    evidence = []
    for metric, found in measures.items():
        threshold = thresholds.get(metric)
        trend = moved if metric in ("level", "erank_centred", "rankme_unit") else None
        says = "shown, not judged" if threshold is None else "at or above its threshold"
        if threshold is not None and found["value"] < threshold:
            says = "below its threshold"
        if trend is not None:
            says += f"; {abs(trend):.0%} {'below' if trend < 0 else 'above'} its best before"
        evidence.append({"metric": metric, **found, "threshold": threshold, "trend": trend, "says": says})
    return {
        "kind": kind if ready else "not decidable",
        "tap": tap,
        "why": why[kind] if ready else "Fewer than two epochs were trained: there is no trend to judge by.",
        "evidence": evidence,
    }


def records(
    kind: str, epochs: int, per_epoch: int, labels: bool
) -> Iterator[tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """The records of a run, each with the spectra that go beside it (for epochs)."""
    rng, clock = np.random.default_rng(7), 0.0
    floor, speed, goal = {
        "healthy": (-0.91, 4, 0.78), "complete": (-0.9997, 14, 0.11), "dimensional": (-0.955, 6, 0.52)
    }[kind]  # fmt: skip
    for epoch in range(epochs + 1):
        t = epoch / max(1, epochs)
        panels, verdicts = {}, {}
        spectra: dict[str, np.ndarray] = {}
        loss = None
        for inner in range(1, per_epoch + 1) if epoch else []:
            step, now = (epoch - 1) * per_epoch + inner, ((epoch - 1) + inner / per_epoch) / epochs
            clock += 0.09
            swing = 0.012 * (np.exp(-3 * now) if kind == "complete" else 1)
            loss = floor * (1 - np.exp(-speed * now)) + rng.normal() * swing
            if step % 5 == 0:
                levels = {
                    tap: spectrum(kind, d, now, rng)[1] * rng.uniform(0.96, 1.04)
                    for tap, d in {**TAPS, "predictor": 128}.items()
                }
                levels["predictor"] *= 0.85
                row = {"event": "step", "epoch": epoch - 1, "step": step, "loss": loss, "lr": 0.03}
                time = {"elapsed": clock, "images_per_second": 812 + 30 * rng.normal()}
                terms = {"p1z2": loss * 1.01, "p2z1": loss * 0.99}
                yield row | {"terms": terms, "level": levels, "time": time}, {}
        for tap in TAPS:
            panels[tap], found = panel(kind, tap, t, rng)
            spectra |= found
            here = "healthy" if kind == "dimensional" and tap == "backbone" else kind
            verdicts[tap] = verdict(here, tap, panels[tap]["measures"], epoch)
        top1 = 0.46 + (goal - 0.46) * (1 - np.exp(-4 * t)) + rng.normal() * 0.005
        yield (
            {
                "event": "epoch",
                "epoch": epoch,
                "step": epoch * per_epoch,
                "loss": loss,
                "panels": panels,
                "knn": {"top1": top1, "k": 20, "bank": 4000} if labels else None,
                "verdict": verdicts["projector"],
                "verdicts": verdicts,
                "time": {"elapsed": clock, "images_per_second": 812.0},
            },
            spectra,
        )
    time = {"total": clock + 1.1, "watching": 0.9, "share_watching": 0.0098}
    end = {"event": "end", "reason": "finished", "step": epochs * per_epoch, "epoch": epochs, "time": time}
    yield end, {}


def config(kind: str, epochs: int) -> dict[str, Any]:
    options = {"stop_gradient": kind != "complete", "predictor": kind != "dimensional", "width": 128}
    names = {"method": "simsiam", "options": options, "data": "shapes", "backbone": "resnet18"}
    numbers = {"epochs": epochs, "batch_size": 128, "lr": 0.03, "seed": 0}
    return {**names, **numbers, "views": {"crop": [0.3, 1.0], "flip": True}, "notes": None}


def make_run(
    path: Path,
    kind: str = "healthy",
    *,
    epochs: int = 20,
    per_epoch: int = 31,
    labels: bool = True,
    ended: bool = True,
    spectra: bool = True,
    picture: bool = True,
) -> Path:
    """Writes a whole run directory; `kind` is healthy, complete or dimensional."""
    (path / "spectra").mkdir(parents=True)
    lines = []
    for row, arrays in records(kind, epochs, per_epoch, labels):
        if row["event"] != "end" or ended:
            lines.append(json.dumps(row))
        if arrays and spectra:
            np.savez(path / "spectra" / f"epoch_{row['epoch']:04d}.npz", **arrays)  # type: ignore[arg-type]
    if not spectra:
        (path / "spectra").rmdir()
    (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    pairs = config(kind, epochs)
    (path / "config.yaml").write_text("".join(f"{key}: {json.dumps(pairs[key])}\n" for key in pairs))
    (path / "environment.json").write_text('{"versions": {"torch": "2.6.0"}, "device": "cpu"}')
    if picture:
        (path / "figures").mkdir()
        noise(1).resize((768, 192)).save(path / "figures" / "views.png")
    return path


def noise(seed: int) -> Image.Image:
    """A small photo of nothing."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (16, 16, 3), dtype=np.uint8))


@pytest.fixture
def fake_run(tmp_path: Path) -> Callable[..., Path]:
    """Writes a run of the asked-for kind under tmp_path and returns its directory."""

    def make(kind: str = "healthy", name: str | None = None, **settings: Any) -> Path:
        return make_run(tmp_path / (name or kind), kind, **settings)

    return make


@pytest.fixture
def fake_records() -> Callable[..., list[RunRecord]]:
    """The records of a run, without a directory."""

    def make(
        kind: str = "healthy", epochs: int = 20, per_epoch: int = 31, labels: bool = True
    ) -> list[RunRecord]:
        lines = [json.dumps(row).encode() for row, _ in records(kind, epochs, per_epoch, labels)]
        return [record for line in lines if (record := parse_record(line))]

    return make


@pytest.fixture
def fake_config() -> dict[str, Any]:
    return config("healthy", 20)
