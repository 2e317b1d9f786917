"""Features with labels, of training and of test images, wherever they are from: a run, a model, files."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder
from fullrank.encoders.hooks import FEATURES
from fullrank.encoders.opening import is_encoder
from fullrank.encoders.runs import open_with_taps, own_data, own_run
from fullrank.errors import UsageError
from fullrank.features.embeddings import open_embeddings
from fullrank.features.extraction import embed_images
from fullrank.features.labels import open_labels
from fullrank.features.store import Stored, is_stored, open_stored
from fullrank.images.opening import open_data
from fullrank.images.sources import Data, Source

__all__ = ["Features", "Labelled", "Subject", "open_encoder_and_data", "open_features"]

HELD_OUT = 0.2  # of one file without a test file
LEGACY_BATCH = 64  # images at once in CPLearn's evaluations, whose BatchNorms take their statistics from them

OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Subject:
    """What is to be evaluated, and on what.

    Attributes:
        what: a folder of `fullrank embed`, a file of embeddings, a run, or an encoder by name or checkpoint.
        data: images for an encoder; empty: a run's own.
        tap: where to look into an encoder, or which of the stored taps; empty: its features.
        key: the array in a file that holds several.
        labels: file with the labels of a file of embeddings.
        test: file of test embeddings; empty: a fifth of the rows is held out.
        test_labels: file with their labels.
        limit: training images, at most (a fixed random choice), and as many test images; 0: all.
        image_size: side in pixels that an encoder is fed with; 0: its own.
        batch_size: images at once.
        legacy_batchnorm: BatchNorms with the statistics of each batch of 64, as in CPLearn's evaluations.
        download: fetch weights or data that are not there.
        untrained: an encoder of that name with random weights.
        seed: of the rows held out.
    """

    what: str
    data: str = ""
    tap: str = ""
    key: str = ""
    labels: str = ""
    test: str = ""
    test_labels: str = ""
    limit: int = 0
    image_size: int = 0
    batch_size: int = 256
    legacy_batchnorm: bool = False
    download: bool = False
    untrained: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit < 0 or self.image_size < 0 or self.batch_size < 1:
            raise UsageError("limit and image size are 0 or more, the batch size at least 1")


@dataclass(frozen=True)
class Labelled:
    """Rows and their labels.

    Attributes:
        rows: float32 [n, d].
        labels: int64 [n], -1 where a row has none.
    """

    rows: Tensor
    labels: Tensor

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self.rows)


@dataclass(frozen=True)
class Features:
    """What the probes work with.

    Attributes:
        name: of what was evaluated.
        tap: where the rows were taken.
        data: where the images or rows are from.
        train: to fit on.
        test: to measure on.
        classes: names, or None.
        notes: one line each: what was assumed.
    """

    name: str
    tap: str
    data: str
    train: Labelled
    test: Labelled
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


def open_features(subject: Subject, progress: OnProgress | None = None) -> Features:
    """Opens or computes the features of a subject.

    Raises:
        UsageError: it has no labels, or cannot be taken as wished.
        DataError: not there, or damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder) / "z.npz"
        ...     np.savez(file, features=np.random.randn(50, 4), labels=np.arange(50) % 5)
        ...     found = open_features(Subject(str(file)))
        >>> len(found.train), len(found.test), found.train.rows.shape[1]
        (40, 10, 4)
    """
    path = Path(subject.what).expanduser()
    if is_stored(path):
        found = _from_store(path, subject)
    elif is_encoder(subject.what) or (subject.data and not path.exists()):
        found = _from_encoder(subject, progress)
    else:
        found = _from_files(subject)
    for part in (found.train, found.test):
        if not bool((part.labels >= 0).any()):
            raise UsageError(_unlabelled(subject))
    return found


def _unlabelled(subject: Subject) -> str:
    if subject.data or is_encoder(subject.what):
        return (
            f"the images of {subject.data or subject.what} have no labels, which this evaluation needs: take "
            f"labelled ones with --data, or `fullrank audit`, which needs none"
        )
    return (
        f"{subject.what} comes without labels, which this evaluation needs: add them with --labels FILE, or "
        f"take `fullrank audit`, which needs none"
    )


def _from_store(folder: Path, subject: Subject) -> Features:
    if subject.data or subject.labels or subject.test:
        raise UsageError(
            f"{folder} brings its images, labels and test rows along: leave --data, --labels, --test out"
        )
    stored = open_stored(folder)
    if set(stored) != {"train", "test"}:
        raise UsageError(
            f"{folder} holds the split {' '.join(stored)} only, and train and test are needed: "
            f"`fullrank embed ... --split train,test`"
        )
    train, test = stored["train"], stored["test"]
    tap = subject.tap or (FEATURES if FEATURES in train.rows else next(iter(train.rows)))
    about = train.provenance
    classes = about.get("classes")
    return Features(
        str(about.get("subject", folder.name)),
        tap,
        str(about.get("data", folder)),
        _stored_rows(train, tap, subject),
        _stored_rows(test, tap, subject),
        tuple(classes) if classes else None,
        (f"train rows are of {about['views']} augmented views",) if int(about.get("views") or 0) > 1 else (),
    )


def _stored_rows(stored: Stored, tap: str, subject: Subject) -> Labelled:
    if stored.labels is None:
        raise UsageError(_unlabelled(subject))
    return _limited(Labelled(stored.rows[tap].float(), stored.labels.long()), subject.limit)


def _from_files(subject: Subject) -> Features:
    train, notes = _file_rows(subject, subject.what, subject.labels)
    if subject.test:
        test, more = _file_rows(subject, subject.test, subject.test_labels)
        if train.rows.shape[1] != test.rows.shape[1]:
            raise UsageError(
                f"{subject.what} has {train.rows.shape[1]} dimensions and {subject.test} has "
                f"{test.rows.shape[1]}: they must be of one encoder"
            )
        if subject.labels and not str(subject.labels).endswith((".npy", ".npz", ".pt", ".safetensors")):
            more = (*more, "names of classes are numbered in sorted order in each file")
    else:
        order = torch.from_numpy(np.random.default_rng(subject.seed).permutation(len(train)))
        cut = max(1, round(HELD_OUT * len(train)))
        test = Labelled(train.rows[order[:cut]], train.labels[order[:cut]])
        train = Labelled(train.rows[order[cut:]], train.labels[order[cut:]])
        more = (f"no --test: {len(test):,} random rows are held out",)
    train, test = _limited(train, subject.limit), _limited(test, subject.limit)
    return Features(Path(subject.what).name, "embedding", subject.what, train, test, notes=(*notes, *more))


def _file_rows(subject: Subject, file: str, labels: str) -> tuple[Labelled, tuple[str, ...]]:
    rows = open_embeddings(file, subject.key or subject.tap or None)
    found = open_labels(labels, rows.n) if labels else rows.labels
    if found is None:
        raise UsageError(
            f"{file} comes without labels, which this evaluation needs: add them with "
            f"--{'test-labels' if file == subject.test else 'labels'} FILE"
        )
    matrix = torch.cat([chunk.float() for chunk in rows.chunks()])
    return Labelled(matrix, torch.as_tensor(np.asarray(found)).long()), tuple(rows.notes)


def _from_encoder(subject: Subject, progress: OnProgress | None) -> Features:
    model, data = open_encoder_and_data(subject)
    tap = subject.tap or FEATURES
    for source in (data.train, data.held_out):
        if source.labels is None or not bool((source.labels >= 0).any()):
            raise UsageError(_unlabelled(subject))
    train = _embedded(model, data.train, tap, subject, progress)
    test = _embedded(model, data.held_out, tap, subject, progress)
    classes = tuple(data.train.classes) if data.train.classes else None
    return Features(str(subject.what), tap, data.name, train, test, classes, (*model.notes, *data.notes))


def open_encoder_and_data(subject: Subject) -> tuple[Encoder, Data]:
    """The encoder of a subject, and its images, as many as are wanted.

    Raises:
        UsageError: the subject is no encoder, or images are missing.
    """
    if not is_encoder(subject.what) and not subject.data:
        raise UsageError(
            f"{subject.what} is no encoder: a run, a checkpoint or a model's name is needed here"
        )
    wanted = [subject.tap] if subject.tap else None
    model = open_with_taps(
        subject.what,
        wanted,
        image_size=subject.image_size or None,
        download=subject.download,
        pretrained=not subject.untrained,
    )
    if subject.data:
        return model, open_data(subject.data, limit=subject.limit or None, download=subject.download)
    run = own_run(subject.what)
    if run is None:
        raise UsageError(
            "an encoder needs images: add --data with a folder, or a name of `fullrank list data`"
        )
    config = run.config()
    return model, own_data(replace(config, limit=subject.limit or config.limit), subject.download)


def _embedded(
    model: Encoder, source: Source, tap: str, subject: Subject, progress: OnProgress | None
) -> Labelled:
    assert source.labels is not None
    rows, labels, done = [], [], 0
    batch = LEGACY_BATCH if subject.legacy_batchnorm else subject.batch_size
    with _batch_statistics(model.network if subject.legacy_batchnorm else nn.Identity()):
        for part in embed_images(model, source, [tap], batch):
            assert part.labels is not None
            rows.append(part.rows[tap])
            labels.append(part.labels)
            done += len(part.indices)
            if progress:
                progress(f"embedding {source.name}", done, len(source))
    return Labelled(torch.cat(rows), torch.cat(labels))


@contextmanager
def _batch_statistics(network: nn.Module) -> Iterator[None]:
    """BatchNorms use the statistics of each batch although in eval mode, and forget them."""
    norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(m.running_mean, m.running_var) for m in norms]
    for m in norms:
        m.running_mean = m.running_var = None
    try:
        yield
    finally:
        for m, (mean, var) in zip(norms, kept, strict=True):
            m.running_mean, m.running_var = mean, var


def _limited(part: Labelled, limit: int) -> Labelled:
    if not limit or len(part) <= limit:
        return part
    chosen = torch.from_numpy(np.sort(np.random.default_rng(0).permutation(len(part))[:limit]))
    return replace(part, rows=part.rows[chosen], labels=part.labels[chosen])
