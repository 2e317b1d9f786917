"""Labelled features of training and test images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fullrank.agreement import check_same
from fullrank.collapse.peers import Peers
from fullrank.encoders.hooks import FEATURES
from fullrank.encoders.runs import encoder_step
from fullrank.errors import UsageError
from fullrank.features.budget import memory_budget, require_memory
from fullrank.features.embeddings import Rows, open_embeddings
from fullrank.features.extraction import embed_whole, part_of
from fullrank.features.keys import as_labels
from fullrank.features.labels import open_labels
from fullrank.features.process_group import shared_peers
from fullrank.features.store import Stored
from fullrank.features.subject import EncoderSubject, StoredSubject, kind_of, open_subject
from fullrank.features.tables import Indices
from fullrank.features.writing import digest_of_weights
from fullrank.images.fingerprints import digest, fingerprint_of_choice
from fullrank.images.sources import Source
from fullrank.options import EvaluateOptions, OnProgress

ROWS_COMPARED = 256  # evenly spaced, of features that several processes read
HELD_OUT = 0.2  # of one file without a test file
LEGACY_BATCH = 64  # images at once in CPLearn's evaluations, whose BatchNorms take their statistics from them


@dataclass(frozen=True)
class Labelled:
    """Rows float32 [n, d] and their labels int64 [n], -1 where a row has none."""

    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows)


@dataclass(frozen=True)
class Features:
    """Labelled features for a probe, with the names of encoder or file, tap and data.

    `untrained` are those of a network before its first step; `encoder` has epoch and step of a run's.
    Processes that share a command (`peers`) hold a part of the rows each.
    """

    name: str
    tap: str
    data: str
    train: Labelled
    test: Labelled
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()
    untrained: bool = False
    peers: Peers = field(default_factory=lambda: Peers(alone=True))
    encoder: Mapping[str, int] = field(default_factory=dict)

    def counts(self) -> tuple[int, int, int]:
        """Training and test rows, and classes of training rows, of all processes."""
        train, test = map(int, self.peers.sums(len(self.train), len(self.test)))
        labels = torch.unique(self.peers.gather_rows(torch.unique(self.train.labels)))
        return train, test, int((labels >= 0).sum())


def open_features(
    what: str | Path | Features, options: EvaluateOptions, on_progress: OnProgress | None = None
) -> Features:
    """Open or compute labelled features; open ones are returned as they are.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "z.npz"
        ...     np.savez(file, features=np.random.randn(50, 4), labels=np.arange(50) % 5)
        ...     features = open_features(file, EvaluateOptions())
        >>> len(features.train), len(features.test), features.train.rows.shape[1]
        (40, 10, 4)
    """
    if isinstance(what, Features):
        return what
    taps = [options.tap] if options.tap else None
    named = options.changed(key=options.key or options.tap)  # of a file, the tap is the array
    subject = open_subject(what, named, taps, more_images=True)
    if isinstance(subject, EncoderSubject):
        features = _of_encoder(what, subject, options, on_progress)
    elif isinstance(subject, StoredSubject):
        features = _of_store(what, subject, options)
    else:
        features = _of_files(what, subject, options)
    for part in (features.train, features.test):
        if not features.peers.sums(int((part.labels >= 0).sum()))[0]:
            raise _unlabelled(what, images=isinstance(subject, EncoderSubject), data=options.data)
    return features


def require_whole(features: Features, what: str) -> None:
    """Raise UsageError where `what` wants features of which processes have parts."""
    if features.peers.size > 1:
        raise UsageError(f"{what} works in one process: start it without torchrun")


def with_labels(what: Any, options: EvaluateOptions, labels: Any) -> Rows:
    """Open embeddings with a class per row that is given in Python."""
    if kind_of(what, options.data) != "embeddings":
        raise UsageError(f"{what} brings labels of its own: leave labels out")
    rows = open_embeddings(what, options.key or options.tap or None, options.max_bytes)
    if labels is not None:
        rows.labels = as_labels("labels", labels)
        if len(rows.labels) != rows.n:
            raise UsageError(
                f"there are {len(rows.labels):,} labels for {rows.n:,} rows: one for each is needed"
            )
    return rows


def _unlabelled(what: str | Path, images: bool, data: str = "", option: str = "labels") -> UsageError:
    if images:
        return UsageError(
            f"the images of {data or what} have no labels, which this evaluation needs: take labelled ones "
            f"with --data, or `fullrank audit`, which needs none"
        )
    return UsageError(
        f"{what} comes without labels, which this evaluation needs: add them with --{option} FILE, or take "
        f"`fullrank audit`, which needs none"
    )


def _of_store(what: str | Path, subject: StoredSubject, options: EvaluateOptions) -> Features:
    folder, splits = subject.folder, subject.splits
    if options.data or options.labels or options.test:
        raise UsageError(
            f"{folder} brings its images, labels and test rows along: leave --data, --labels, --test out"
        )
    if set(splits) != {"train", "test"}:
        raise UsageError(
            f"{folder} holds the split {' '.join(splits)} only, and train and test are needed: "
            f"`fullrank embed ... --split train,test`"
        )
    train, about = splits["train"], splits["train"].provenance
    tap = options.tap or (FEATURES if FEATURES in train.rows else next(iter(train.rows)))

    peers = shared_peers()
    if peers.size > 1:
        check_same(_outline("train", train, tap) | _outline("test", splits["test"], tap), peers)

    def labelled(stored: Stored) -> Labelled:
        if stored.labels is None:
            raise _unlabelled(what, images=False)
        own = torch.from_numpy(_own(_chosen(len(stored.labels), options.limit), peers))
        whole = len(own) == len(stored.labels)
        rows = stored.rows[tap] if whole else stored.rows[tap][own]
        return Labelled(rows.float(), stored.labels.long() if whole else stored.labels[own].long())

    classes = about.get("classes")
    return Features(
        str(about.get("subject", folder.name)),
        tap,
        str(about.get("data", folder)),
        labelled(train),
        labelled(splits["test"]),
        tuple(classes) if classes else None,
        (f"train rows are of {about['views']} augmented views",) if int(about.get("views") or 0) > 1 else (),
        peers=peers,
    )


def _outline(split: str, stored: Stored, tap: str) -> dict[str, str]:
    """Say what a split holds, with a digest of its labels and some of its rows."""
    rows = stored.rows[tap]
    some = rows[torch.linspace(0, len(rows) - 1, min(len(rows), ROWS_COMPARED)).long()].float()
    labels = b"" if stored.labels is None else stored.labels.numpy().tobytes()
    return {
        f"{split} rows": f"reads {len(rows):,} {split} rows of {rows.shape[1]}",
        split: f"reads {split} features of the digest {digest(some.numpy().tobytes(), labels)}",
    }


def _of_files(what: str | Path, rows: Rows, options: EvaluateOptions) -> Features:
    name = rows.origin if isinstance(what, Rows) else str(what)
    if shared_peers().size > 1:
        raise UsageError(
            f"{name} is for one process: many share encoders, and features that `fullrank embed` wrote"
        )
    train = _labelled_rows(name, rows, options.labels, "labels", options.max_bytes)
    more: tuple[str, ...] = ()
    if options.test:
        other = open_embeddings(options.test, options.key or options.tap or None, options.max_bytes)
        test = _labelled_rows(options.test, other, options.test_labels, "test-labels", options.max_bytes)
        more = tuple(other.notes)
        if rows.d != other.d:
            raise UsageError(
                f"{name} has {rows.d} dimensions and {options.test} has {other.d}: "
                f"they must be of one encoder"
            )
        if options.labels and not options.labels.endswith((".npy", ".npz", ".pt", ".safetensors")):
            more = (*more, "names of classes are numbered in sorted order in each file")
    else:
        order = torch.from_numpy(np.random.default_rng(options.seed).permutation(len(train)))
        cut = max(1, round(HELD_OUT * len(train)))
        test = Labelled(train.rows[order[:cut]], train.labels[order[:cut]])
        train = Labelled(train.rows[order[cut:]], train.labels[order[cut:]])
        more = (f"no --test: {len(test):,} random rows are held out",)
    train, test = _limited(train, options.limit), _limited(test, options.limit)
    return Features(Path(name).name, "embedding", name, train, test, notes=(*rows.notes, *more))


def _labelled_rows(what: str | Path, rows: Rows, file: str, option: str, max_bytes: int) -> Labelled:
    with memory_budget(max_bytes):
        require_memory(rows.origin, 4 * rows.n * rows.d)
        labels = open_labels(file, rows.n) if file else rows.labels
    if labels is None:
        raise _unlabelled(what, images=False, option=option)
    return Labelled(torch.cat([chunk.float() for chunk in rows.chunks()]), torch.from_numpy(labels).long())


def _of_encoder(
    what: str | Path, subject: EncoderSubject, options: EvaluateOptions, on_progress: OnProgress | None
) -> Features:
    model, data = subject.encoder, subject.data
    tap = options.tap or FEATURES
    for source in (data.train, data.held_out):
        if source.labels is None or not bool((source.labels >= 0).any()):
            raise _unlabelled(what, images=True, data=options.data)
    batch, peers = LEGACY_BATCH if options.legacy_batchnorm else options.batch_size, shared_peers()
    if peers.size > 1:
        images = fingerprint_of_choice(data)
        facts = {
            "train": f"has {len(data.train):,} training images",
            "held out": f"has {len(data.held_out):,} held-out images",
            "images": f"has images of the fingerprint {digest(repr(sorted(images.items())).encode())}",
            "weights": f"has weights of the digest {digest_of_weights(model.network)}",
        }
        check_same(facts, peers)
    if peers.size > min(len(data.train), len(data.held_out)):
        raise UsageError(f"{peers.size} processes are more than there are images: start fewer")

    def embedded(source: Source) -> Labelled:
        task = f"embedding {source.name}"
        if peers.size > 1:
            source = source.subset(part_of(len(source), peers.rank, peers.size))
        with _batch_statistics(model.network if options.legacy_batchnorm else nn.Identity()):
            rows, labels = embed_whole(model, source, tap, batch, on_progress, task)
        assert labels is not None
        return Labelled(rows, labels)

    classes = tuple(data.train.classes) if data.train.classes else None
    notes = (*model.notes, *data.notes)
    encoder = {} if options.untrained else encoder_step(what)
    train, test = embedded(data.train), embedded(data.held_out)
    of = classes, notes, options.untrained, peers, encoder
    return Features(str(what), tap, data.name, train, test, *of)


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """Use the statistics of each batch in BatchNorms, although in eval mode."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m.running_mean, m.running_var) for m in norms]
    for m in norms:
        m.running_mean = m.running_var = None
    try:
        yield
    finally:
        for m, (mean, var) in zip(norms, kept, strict=True):
            m.running_mean, m.running_var = mean, var


def _chosen(n: int, limit: int) -> Indices:
    """At most so many of n places, sorted."""
    if not limit or n <= limit:
        return np.arange(n)
    return np.sort(np.random.default_rng(0).permutation(n)[:limit])


def _own(places: Indices, peers: Peers) -> Indices:
    """This process's run of places."""
    return places[part_of(len(places), peers.rank, peers.size)]


def _limited(part: Labelled, limit: int) -> Labelled:
    if not limit or len(part) <= limit:
        return part
    chosen = torch.from_numpy(_chosen(len(part), limit))
    return replace(part, rows=part.rows[chosen], labels=part.labels[chosen])
