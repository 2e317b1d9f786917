"""Evaluation of held-out images, in eval mode, un-augmented."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse import CollapseMonitor, Report, Thresholds
from fullrank.collapse.monitor import CODES
from fullrank.images.loader import evaluation_batches
from fullrank.images.sources import Source
from fullrank.networks.processes import gather_uneven_rows
from fullrank.probes import knn_leave_one_out, knn_predict
from fullrank.training.config import TrainConfig
from fullrank.training.online_probe import OnlineProbe
from fullrank.training.setup import Setup, generator_of
from fullrank.training.sharding import gathered

PAIRED_IMAGES = 256  # held-out images whose two views give the alignment
SURE_IMAGES = 200  # held-out images from which a label-free score tells epochs apart
CHUNK = 256
CHUNK_SIDE = 96  # pixels of images up to which a chunk is evaluated at once

Rows: TypeAlias = tuple[list[Tensor], list[Tensor]]
"""Backbone features and indices of images, chunk by chunk."""

Taps: TypeAlias = dict[str, Tensor]
Pairs: TypeAlias = dict[str, tuple[Tensor, Tensor]]


class HeldOutEvaluator:
    """Evaluator of held-out images: layer outputs (taps), k-NN and online probe."""

    def __init__(self, s: Setup, monitor: CollapseMonitor) -> None:
        self.s, self.monitor = s, monitor
        rng = np.random.default_rng(s.config.seed)
        self.held_out = sample_of(s.data.held_out, s.config.watch_images, rng)
        self.bank: Source | None = None
        labelled = s.data.train.labelled
        if s.config.knn_every and len(labelled) and len(self.held_out.labelled):
            train = s.data.train if len(labelled) == len(s.data.train) else s.data.train.subset(labelled)
            self.bank = sample_of(train, s.config.knn_bank, rng)
        self._seen: Rows | None = None  # of the held-out images
        self._bank_size = 0  # rows of the last k-NN's, of all processes
        self.notes: list[str] = []  # one line each, for the reader of the run
        if self.bank is None and s.config.knn_every:
            self.notes.append(f"no k-NN: {_why_no_labels(len(labelled), len(self.held_out))}")
        if len(self.held_out) < (least := Thresholds().fewest_rows):
            self.notes.append(
                f"{len(self.held_out)} images are watched, and a verdict needs {least}: it stays not "
                "decidable; afterwards `fullrank audit RUN --data FOLDER` judges the encoder on all images"
            )
        if s.config.early_stop and len(self.held_out) < SURE_IMAGES:
            self.notes.append(
                f"--early-stop goes by views of {len(self.held_out)} held-out images, and is little sure "
                f"with fewer than {SURE_IMAGES}"
            )

    def panel(self, trained: bool) -> Report:
        """Every tap of the held-out images, and of two views of some of them, to a report."""
        with closing(self._embedded()) as chunks:  # an error in between leaves no mode behind
            return self._report(chunks, trained)

    def panel_later(self, trained: bool) -> Callable[[], Report]:
        """Embed now; the returned call works the report out, on the CPU."""
        with closing(self._embedded()) as found:
            chunks = [
                (
                    {tap: z.cpu() for tap, z in taps.items()},
                    {tap: (a.cpu(), b.cpu()) for tap, (a, b) in pairs.items()},
                )
                for taps, pairs in found
            ]
        return lambda: self._report(chunks, trained)

    def _embedded(self) -> Generator[tuple[Taps, Pairs]]:
        """Embed chunk by chunk; `accuracies` will want the features again."""
        seen: Rows = [], []
        with self._eval_mode():
            for indices, images in self._chunks(self.held_out):
                paired = indices < PAIRED_IMAGES
                pairs = self._paired(images[paired], indices[paired]) if paired.any() else {}
                taps = self._embed(self.s.views.clean(images))
                yield taps, pairs
                seen[0].append(taps["backbone"])
                seen[1].append(indices)
        self._seen = seen

    def _report(self, chunks: Iterable[tuple[Taps, Pairs]], trained: bool) -> Report:
        for taps, pairs in chunks:
            self.monitor.observe(taps, pairs)
        return self.monitor.close(trained)

    def _paired(self, images: Tensor, indices: Tensor) -> Pairs:
        """Two views of some images: always the same ones, whichever process makes them."""
        one, other = map(self._embed, self._two_views(images, indices, PAIRED_IMAGES, 2))
        return {tap: (one[tap], other[tap]) for tap in one}

    def _two_views(self, images: Tensor, indices: Tensor, of: int, key: int) -> list[Tensor]:
        """The first two views of images, drawn by their places among the first `of`."""
        views, generator = self.s.views, generator_of(self.s.config.seed, key)
        params = views.sample(of, images.shape[2], images.shape[3], generator).rows(indices)
        return views(images, params)[:2]

    def backbone_rows(self, draws: int = 2) -> tuple[Tensor, Tensor, Tensor]:
        """Backbone features of the held-out images, as they are and in pairs of views.

        The views are the same ones at every call.

        Returns:
            Rows [n, d] on the CPU, views [n, 2 draws, d], and which images they are of, int64 [n].
        """
        clean, seen, places = list[Tensor](), list[Tensor](), list[Tensor]()
        with self._eval_mode(), self.s.fabric.autocast():
            for indices, images in self._chunks(self.held_out):
                made = [self.s.views.clean(images)]
                for draw in range(draws):
                    made += self._two_views(images, indices, len(self.held_out), 3 + draw)
                rows = [self.s.method.backbone(self._laid_out(view)).float().cpu() for view in made]
                clean.append(rows[0])
                seen.append(torch.stack(rows[1:], 1))
                places.append(indices)
        return torch.cat(clean), torch.cat(seen), torch.cat(places)

    def accuracies(self, probe: OnlineProbe | None, knn: bool = True) -> dict[str, Any]:
        """Accuracy of `knn` and `probe` on held-out images; empty without labels.

        The features are those that the panel has just measured.
        """
        found: dict[str, Any] = {}
        if self._seen is None or not len(self.held_out.labelled):
            return found
        queries, labels = self._labelled_rows(self._seen, self.held_out)
        if knn and self.bank is not None:
            right = self.knn_right(self._seen)
            top1 = right.double().mean().item()
            k = min(self.s.config.knn_k, self._bank_size)
            found["knn"] = {"top1": top1, "k": k, "bank": self._bank_size, "queries": len(queries)}
        if probe is not None:
            found["probe"] = {**probe.accuracy(queries, labels), "queries": len(queries)}
        return found

    def knn_right(self, found: Rows) -> Tensor:
        """Which labelled held-out images k-NN names right, by their features.

        There must be a bank, which the network as it is now embeds.
        """
        queries, labels = self._labelled_rows(found, self.held_out)
        bank, bank_labels = self._bank_rows()
        return knn_predict(queries, bank, bank_labels, self.s.config.knn_k) == labels

    def knn_right_of_all(self, found: Rows) -> Tensor:
        """Which labelled images, those of the bank after held-out ones, others name right."""
        parts = self._labelled_rows(found, self.held_out), self._bank_rows()
        rows, labels = (torch.cat(part) for part in zip(*parts, strict=True))
        return knn_leave_one_out(rows, labels, self.s.config.knn_k) == labels

    def _bank_rows(self) -> tuple[Tensor, Tensor]:
        """Features and labels of the bank, which the network as it is now embeds."""
        assert self.bank is not None
        rows: Rows = [], []
        with self._eval_mode(), self.s.fabric.autocast():
            for indices, images in self._chunks(self.bank):
                rows[0].append(self.s.method.backbone(self.s.views.clean(images)).float())
                rows[1].append(indices)
        bank, labels = self._labelled_rows(rows, self.bank)
        self._bank_size = len(bank)
        return bank, labels

    def _labelled_rows(self, found: Rows, source: Source) -> tuple[Tensor, Tensor]:
        """Features and labels of the images that have one, from all processes."""
        none = torch.empty(0, self.s.backbone.feature_dim, device=self.s.fabric.device)
        rows, indices = torch.cat([none, *found[0]]), torch.cat([torch.empty(0, dtype=torch.long), *found[1]])
        assert source.labels is not None
        labels = torch.from_numpy(source.labels[indices.numpy()]).to(rows.device)
        return self._gather(rows[labels >= 0]), self._gather(labels[labels >= 0])

    def _gather(self, rows: Tensor) -> Tensor:
        if self.s.fabric.world_size == 1:
            return rows
        return gather_uneven_rows(rows)

    def _embed(self, images: Tensor) -> Taps:
        images = self._laid_out(images)
        with self.s.fabric.autocast():
            taps = {tap: z.float() for tap, z in self.s.method.embed(images).items()}
        if CODES in taps:
            taps[CODES] = taps[CODES] / self.s.method.code_temperature
        return taps

    def _laid_out(self, images: Tensor) -> Tensor:
        return images.contiguous(memory_format=torch.channels_last) if self.s.channels_last else images

    def _chunks(self, source: Source) -> Iterator[tuple[Tensor, Tensor]]:
        fabric, config = self.s.fabric, self.s.config
        size, place = None if source.in_memory else config.image_size, (fabric.global_rank, fabric.world_size)
        chunk = evaluation_chunk(config)
        for indices, images in evaluation_batches(source, chunk, size, *place, config.workers):
            yield indices, images.to(fabric.device)

    @contextmanager
    def _eval_mode(self) -> Iterator[None]:
        self.s.method.eval()
        compiled = self.s.config.compile != "none"
        # batches come in many shapes, and replays of a CUDA graph overwrite what is collected
        stance = torch.compiler.set_stance("force_eager") if compiled else nullcontext()
        try:
            with torch.no_grad(), stance, gathered(self.s.method):
                yield
        finally:
            self.s.method.train()


def _why_no_labels(labelled: int, held_out: int) -> str:
    """Why no image can be named by others.

    Example:
        >>> _why_no_labels(0, 99), _why_no_labels(13, 99)
        ('the images have no labels', '13 training images have a label, and none of the 99 held-out ones')
    """
    if not labelled:
        return "the images have no labels"
    has = "image has a label" if labelled == 1 else "images have a label"
    return f"{labelled} training {has}, and none of the {held_out} held-out ones"


def evaluation_chunk(config: TrainConfig) -> int:
    """Images that are evaluated at once: fewer large ones, but a batch.

    Example:
        >>> [evaluation_chunk(TrainConfig(image_size=size, batch_size=64)) for size in (32, 96, 224)]
        [256, 256, 64]
    """
    fewer = CHUNK * CHUNK_SIDE**2 // max(config.image_size, CHUNK_SIDE) ** 2
    return min(CHUNK, max(config.batch_size, fewer))


def sample_of(source: Source, most: int, rng: np.random.Generator | None = None) -> Source:
    """At most so many images, drawn at random; without `rng` always the same ones."""
    if len(source) <= most:
        return source
    rng = rng or np.random.default_rng(0)
    return source.subset(np.sort(rng.choice(len(source), most, replace=False)))
