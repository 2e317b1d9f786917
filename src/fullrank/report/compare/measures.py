"""The same images through every encoder: an audit of their features, and k-NN."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.audit import audit
from fullrank.encoders.hooks import FEATURES
from fullrank.errors import UsageError
from fullrank.evaluation.classifier import labelled
from fullrank.features.extraction import embed_whole
from fullrank.figures.style import count
from fullrank.images.loader import evaluation_batches
from fullrank.images.opening import open_data
from fullrank.images.sources import Source
from fullrank.options import CompareOptions, OnProgress
from fullrank.probes import knn_predict
from fullrank.report.compare.subjects import Subject, TapSummary
from fullrank.training.held_out import sample_of

RAW_SIDE = 32  # pixels; larger images are shrunk for the raw-pixel baseline


@dataclass(frozen=True)
class Images:
    """The images that every encoder sees.

    Attributes:
        data: their data set.
        queries: held-out images, whose features are audited and whose labels are asked for.
        bank: labelled training images, the neighbours; None where there are no labels.
        k: neighbours that vote.
        raw: k-NN accuracy on their pixels; None without labels.
        raw_side: height and width that these were compared at, in pixels.
        seed: of the split, where the data set has none.
        notes: one line each: what was done to the data set.
    """

    data: str
    queries: Source
    bank: Source | None
    k: int = 20
    raw: float | None = None
    raw_side: int = RAW_SIDE
    seed: int = 0
    notes: tuple[str, ...] = ()

    @property
    def about(self) -> str:
        """Which images were measured, in a sentence."""
        text = f"{count(len(self.queries))} held-out images of {self.data} went through every encoder"
        if self.bank is None:
            return f"{text}; no k-NN: the images have no labels."
        half = 98 / len(self.queries) ** 0.5  # at an accuracy of a half, where it is widest
        return (
            f"{text}; k-NN asks {count(len(self.bank))} training images, k = {self.k}, votes weighted by "
            f"exp(cosine / 0.07); so many tell an accuracy to ± {half:.1f} points at most (95 %). "
            f"Raw pixels were compared at {self.raw_side} x {self.raw_side}."
        )

    def as_dict(self) -> dict[str, object]:
        """JSON-able: data, queries, bank, k, raw_pixels."""
        bank = None if self.bank is None else len(self.bank)
        return {
            "data": self.data,
            "queries": len(self.queries),
            "bank": bank,
            "k": self.k if bank else None,
            "raw_pixels": self.raw,
        }


def shared_data(subjects: Sequence[Subject]) -> dict[str, Any]:
    """The data set that all runs were trained on, as `choose_images` takes it.

    Limit, image size and seed are those that all runs have; empty without shared data.
    """
    configs = [subject.run.config for subject in subjects if subject.run]
    data = _one([config.get("data") for config in configs])
    if not isinstance(data, str):
        return {}
    size = _one([config.get("image_size") for config in configs]) if data == "shapes" else None  # drawn at it
    return {
        "data": data,
        "limit": _one([config.get("limit") for config in configs]) or None,
        "image_size": size or None,
        "seed": _one([config.get("seed") for config in configs]) or 0,
    }


def _one(values: Sequence[Any]) -> Any:
    return values[0] if values and all(value == values[0] for value in values) else None


def choose_images(
    data: str,
    options: CompareOptions | None = None,
    *,
    limit: int | None = None,
    image_size: int | None = None,
    seed: int = 0,
) -> Images:
    """Choose the images that every encoder sees: at random, the same on every call.

    Args:
        data: a name of `fullrank list data`, or a folder.
        options: how many, and whether to download; UsageError where a number is not positive.
        limit: of the training images, as a run has it.
        image_size: in pixels, where the data set is drawn at any; None is its own.
        seed: of the run whose held-out images are wanted, where the data set has no such split.

    Example:
        >>> images = choose_images("shapes", CompareOptions(bank=300, queries=100))
        >>> len(images.queries), len(images.bank), images.raw > 0.2
        (100, 300, True)
    """
    options = options or CompareOptions()
    for name in ("bank", "queries", "k"):
        if getattr(options, name) < 1:
            raise UsageError(f"--{name} must be at least 1, not {getattr(options, name)}")
    opened = open_data(data, image_size=image_size, limit=limit, download=options.download, seed=seed)
    asked, among = labelled(opened.held_out), labelled(opened.train)
    notes = tuple(opened.notes)
    if asked is None or among is None:
        return Images(data, sample_of(opened.held_out, options.queries), None, seed=seed, notes=notes)
    chosen, asked, k = sample_of(among, options.bank), sample_of(asked, options.queries), options.k
    own = chosen.image_size
    side = min(*own, RAW_SIDE) if own else RAW_SIDE
    raw = _share_right(_pixels(asked, side), _pixels(chosen, side), k)
    return Images(data, asked, chosen, min(k, len(chosen)), raw, side, seed, notes)


def measure(subject: Subject, images: Images, on_progress: OnProgress | None = None) -> Subject:
    """Audit a subject's features and, where there are labels, measure its k-NN.

    A subject without an encoder is returned as it is. Raises DataError where no image can be decoded.
    """
    if subject.model is None:
        return subject

    def embedded(source: Source, task: str) -> tuple[Tensor, Tensor | None]:
        assert subject.model is not None
        return embed_whole(subject.model, source, on_progress=on_progress, task=f"{subject.short}: {task}")

    rows, labels = embedded(images.queries, "features")
    audited = audit(rows, tap=FEATURES, metrics=("level",))
    knn = None
    if images.bank is not None and labels is not None:
        bank, classes = embedded(images.bank, "k-NN bank")
        assert classes is not None
        knn = _share_right((rows, labels), (bank, classes), images.k)
    return subject.measured(TapSummary.of_audit(audited, f"held-out {images.data}"), {"knn_same": knn})


def _pixels(source: Source, side: int) -> tuple[Tensor, Tensor]:
    assert source.labels is not None
    parts = list(evaluation_batches(source, 1024, side))
    places = torch.cat([indices for indices, _ in parts])
    rows = torch.cat([images.flatten(1).float().cpu() for _, images in parts])
    return rows, torch.from_numpy(source.labels)[places]


def _share_right(asked: tuple[Tensor, Tensor], bank: tuple[Tensor, Tensor], k: int) -> float:
    return float((knn_predict(asked[0], *bank, k) == asked[1]).double().mean())
