"""What is measured at the end of an epoch: held-out images in eval mode, un-augmented."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse import CollapseMonitor, Report
from fullrank.collapse.monitor import CODES
from fullrank.data.loader import evaluation_batches
from fullrank.data.sources import Source
from fullrank.probes import knn_predict
from fullrank.training.setup import Setup, generator_of

__all__ = ["Evaluation"]

PAIRED_IMAGES = 256  # held-out images whose two views give the alignment
CHUNK = 256


class Evaluation:
    """Measures the method's taps on held-out images, and k-NN where there are labels.

    Args:
        s: the run.
        monitor: what the taps are shown to.
    """

    def __init__(self, s: Setup, monitor: CollapseMonitor) -> None:
        self.s, self.monitor = s, monitor
        rng = np.random.default_rng(s.config.seed)
        self.held_out = _some(s.data.held_out, s.config.watch_images, rng)
        self.bank = self.queries = None
        if s.config.knn_every and _labelled(s.data.train) and _labelled(s.data.held_out):
            self.bank = _some(_with_labels(s.data.train), s.config.knn_bank, rng)
            self.queries = _with_labels(self.held_out)
            if len(self.queries) == 0:
                self.bank = None
        self.notes: list[str] = []  # one line each, for the reader of the run
        if self.bank is None and s.config.knn_every:
            self.notes.append("no k-NN: the images have no labels")

    def panel(self, trained: bool) -> Report:
        """Every tap of the held-out images, and of two views of some of them, to a report."""
        with self._eval_mode():
            for indices, images in self._chunks(self.held_out):
                paired = indices < PAIRED_IMAGES
                pairs = self._paired(images[paired], indices[paired]) if paired.any() else None
                self.monitor.observe(self._embed(self.s.views.clean(images)), pairs)
        return self.monitor.close(trained)

    def _paired(self, images: Tensor, indices: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Two views of some images: always the same ones, whichever process makes them."""
        views, generator = self.s.views, generator_of(self.s.config.seed, 2)
        params = views.sample(PAIRED_IMAGES, images.shape[2], images.shape[3], generator).rows(indices)
        first_view, second_view, *_ = views(images, params)
        one, other = self._embed(first_view), self._embed(second_view)
        return {tap: (one[tap], other[tap]) for tap in one}

    def knn(self) -> dict[str, Any] | None:
        """Share of held-out images that the k nearest training images name right; None without labels."""
        if self.bank is None or self.queries is None:
            return None
        with self._eval_mode():
            bank, bank_labels = self._features(self.bank)
            queries, labels = self._features(self.queries)
        k = min(self.s.config.knn_k, len(bank))
        right = knn_predict(queries, bank, bank_labels, k) == labels
        return {"top1": right.double().mean().item(), "k": k, "bank": len(bank), "queries": len(queries)}

    def _features(self, source: Source) -> tuple[Tensor, Tensor]:
        """Backbone features and labels of all of `source`, from all processes, in one order."""
        assert source.labels is not None
        features, indices = [], []
        for index, images in self._chunks(source):
            features.append(self._backbone(self.s.views.clean(images)))
            indices.append(index)
        device = self.s.fabric.device
        found = torch.cat(indices) if indices else torch.empty(0, dtype=torch.long)
        rows = torch.cat(features) if features else torch.empty(0, self.s.backbone.feature_dim, device=device)
        labels = torch.from_numpy(source.labels[found.numpy()]).to(device)
        return self._gather(rows), self._gather(labels)

    def _gather(self, rows: Tensor) -> Tensor:
        if self.s.fabric.world_size == 1:
            return rows
        parts: list[Any] = [None] * self.s.fabric.world_size
        torch.distributed.all_gather_object(parts, rows.cpu())
        return torch.cat(parts).to(rows.device)

    def _backbone(self, images: Tensor) -> Tensor:
        with self.s.fabric.autocast():
            features: Tensor = self.s.method.backbone(images)
        return features.float()

    def _embed(self, images: Tensor) -> dict[str, Tensor]:
        if self.s.config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        with self.s.fabric.autocast():
            taps = {tap: z.float() for tap, z in self.s.method.embed(images).items()}
        if CODES in taps:
            taps[CODES] = taps[CODES] / self.s.method.code_temperature
        return taps

    def _chunks(self, source: Source) -> Iterator[tuple[Tensor, Tensor]]:
        fabric, config = self.s.fabric, self.s.config
        size = None if source.image_size and _in_memory(source) else config.image_size
        batches = evaluation_batches(
            source, CHUNK, size, fabric.global_rank, fabric.world_size, config.workers
        )
        for indices, images in batches:
            yield indices, images.to(fabric.device)

    @contextmanager
    def _eval_mode(self) -> Iterator[None]:
        self.s.method.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.s.method.train()


def _in_memory(source: Source) -> bool:
    return hasattr(source, "images")


def _labelled(source: Source) -> bool:
    return source.labels is not None and bool((source.labels >= 0).any())


def _with_labels(source: Source) -> Source:
    assert source.labels is not None
    if (source.labels >= 0).all():
        return source
    return source.subset(np.flatnonzero(source.labels >= 0))


def _some(source: Source, most: int, rng: np.random.Generator) -> Source:
    if len(source) <= most:
        return source
    return source.subset(np.sort(rng.choice(len(source), most, replace=False)))
