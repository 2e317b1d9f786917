"""From whatever was named to its audits: a file, a matrix, or an encoder and images, one audit per tap."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.audit import SAMPLE, RowsInMemory, RowSource
from fullrank.collapse.audit import audit as audit_rows
from fullrank.collapse.catalogue import CATALOGUE
from fullrank.collapse.thresholds import Thresholds
from fullrank.collapse.usage import CodeUsage
from fullrank.collapse.verdict import judge
from fullrank.errors import DataError, UsageError
from fullrank.report.audit.terminal import AuditView

__all__ = ["AuditOptions", "OnProgress", "audit_subject", "main_tap"]

OnProgress = Callable[[str, int, int], None]
"""Told what is being done, how far it is, and how far it goes (0: not known)."""


@dataclass(frozen=True)
class AuditOptions:
    """How an audit is wanted.

    Attributes:
        key: the array in a file that holds several.
        data: images for an encoder.
        taps: where to look into an encoder; None is its features, `all` every layer.
        codes: whether rows are scores over codes.
        thresholds: what the verdict depends on.
        metrics: names of the catalogue.
        sample: rows that are compared with each other.
        limit: images, at most.
        split: "train" or "held-out" images; None is held-out ones of a run's own data and of stored
            features, else train.
        untrained: the encoder of a name with random weights.
        image_size: side in pixels that an encoder is fed with; None is its own.
        download: fetch weights or data that are not there.
    """

    key: str | None = None
    data: str | None = None
    taps: tuple[str, ...] | None = None
    codes: bool = False
    thresholds: Thresholds | None = None
    metrics: tuple[str, ...] | None = None
    sample: int = SAMPLE
    limit: int | None = None
    split: str | None = None
    untrained: bool = False
    image_size: int | None = None
    download: bool = False

    def __post_init__(self) -> None:
        if self.sample < 1:
            raise UsageError(f"a sample of {self.sample} rows is none; the default is {SAMPLE}")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"a limit of {self.limit} images leaves none")
        if self.split not in (None, "train", "held-out"):
            raise UsageError(f"the split is train or held-out, not {self.split}")
        for name in self.metrics or ():
            _ = CATALOGUE[name]


def main_tap(audits: dict[str, AuditView]) -> str:
    """The tap that a verdict is about where there are several: the features, else the deepest."""
    return "features" if "features" in audits else list(audits)[-1]


def audit_subject(
    what: Any,
    wishes: AuditOptions,
    labels: Any = None,
    progress: OnProgress | None = None,
) -> dict[str, AuditView]:
    """Audits what was named, at every tap that is wanted.

    Args:
        what: a matrix, a path, a folder that `fullrank embed` wrote, or the name of an encoder.
        wishes: how.
        labels: one a row, as an array or a file; None takes those beside the rows, if any.
        progress: told how far it is.

    Returns:
        Audits by tap, in the order of depth.

    Raises:
        UsageError: it cannot be audited as wished, in one line.

    Example:
        >>> z = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> {tap: view.verdict.kind for tap, view in audit_subject(z, AuditOptions()).items()}
        {'embedding': 'healthy'}
    """
    if isinstance(what, str | Path) and _is_encoder(what, wishes):
        if wishes.key:
            raise UsageError(f"--key chooses an array in a file, and {what} is an encoder")
        if labels is not None:
            raise UsageError("the labels of an encoder's images come with --data; leave labels out")
        return _audit_encoder(what, wishes, progress)
    if isinstance(what, str | Path) and (place := _stored_at(Path(what).expanduser())) is not None:
        return _audit_stored(*place, wishes, labels, progress)
    for option, value in (("--data", wishes.data), ("--taps", wishes.taps), ("--limit", wishes.limit)):
        if value:
            raise UsageError(f"{option} is for encoders, and {_named(what)} holds embeddings")
    if wishes.key and isinstance(what, str | Path) and str(what).lower().endswith(".npy"):
        raise UsageError(f"{what} holds a single array: leave --key out")
    from fullrank.features.embeddings import open_embeddings
    from fullrank.features.labels import open_labels

    rows = open_embeddings(what, wishes.key)
    notes = list(rows.notes)
    classes = rows.labels
    if isinstance(labels, str | Path):
        classes = open_labels(labels, rows.n)
    elif labels is not None:
        classes = np.asarray(labels)
    tap = "codes" if wishes.codes else "embedding"
    return {tap: _audit(rows, tap, wishes, classes, rows.origin, notes, progress)}


def _stored_at(path: Path) -> tuple[Path, str | None] | None:
    """A folder that `fullrank embed` wrote, and which split of it is meant where the path says so."""
    from fullrank.features.store import SPLITS, is_stored

    if is_stored(path):
        return path, None
    inside = path.is_dir() and path.name in SPLITS and is_stored(path.parent)
    return (path.parent, path.name) if inside else None


def _audit_stored(
    folder: Path, split: str | None, wishes: AuditOptions, labels: Any, progress: OnProgress | None
) -> dict[str, AuditView]:
    from fullrank.features.store import open_stored

    if labels is not None or wishes.data or wishes.limit or wishes.key:
        raise UsageError(
            f"{folder} holds features with their labels: leave --labels, --data, --limit and --key out"
        )
    found = open_stored(folder)
    asked = {"train": "train", "held-out": "test"}.get(wishes.split or "", split)
    if split not in (None, asked):
        raise UsageError(f"{folder / split} holds no {wishes.split} images: {folder} does")
    if asked is not None and asked not in found:
        raise UsageError(f"{folder} holds the split {' and '.join(found)} only, not {asked}")
    name = asked or list(found)[-1]  # held-out images where there are some
    stored = found[name]
    classes = None if stored.labels is None else stored.labels.numpy()
    audits: dict[str, AuditView] = {}
    for tap in stored.rows if wishes.taps in (None, ("all",)) else wishes.taps or ():
        origin = f"{tap} of {stored.provenance['subject']}, {name} images, in {folder}"
        audits[tap] = _audit(RowsInMemory(stored.rows[tap]), tap, wishes, classes, origin, (), progress)
    return audits


def _named(what: Any) -> str:
    return str(what) if isinstance(what, str | Path) else f"a {type(what).__name__}"


def _is_encoder(what: str | Path, wishes: AuditOptions) -> bool:
    from fullrank.encoders.opening import is_encoder

    # with images to feed it, what is not there was meant as a name
    return is_encoder(what) or bool(wishes.data and not Path(what).expanduser().exists())


class _Watched:
    """Rows that pass by a counter of codes on their way."""

    def __init__(self, rows: RowSource, usage: CodeUsage) -> None:
        self.rows, self.usage, self.n, self.d = rows, usage, rows.n, rows.d

    def chunks(self, rows: int | None = None) -> Iterator[Tensor]:
        for chunk in self.rows.chunks(rows):
            self.usage.update(chunk)
            yield chunk


def _audit(
    rows: RowSource,
    tap: str,
    wishes: AuditOptions,
    classes: np.ndarray | None,
    origin: str,
    notes: Sequence[str],
    progress: OnProgress | None,
) -> AuditView:
    notes = list(notes)
    usage = CodeUsage(rows.d) if wishes.codes else None
    if classes is not None and len(classes) == rows.n and (missing := int((classes == -1).sum())):
        notes.append(f"metrics of classes are left out: {missing:,} of {rows.n:,} rows have no label")
    usable = classes if classes is not None and not (np.asarray(classes) == -1).any() else None
    found = audit_rows(
        rows if usage is None else _Watched(rows, usage),
        tap=tap,
        labels=usable,
        codes=wishes.codes,
        thresholds=wishes.thresholds,
        metrics=wishes.metrics,
        sample=wishes.sample,
        origin=origin,
        progress=None if progress is None else lambda seen: progress(f"reading {tap}", seen, rows.n),
    )
    shown = None
    if classes is not None:
        numbered = np.unique(np.asarray(classes), return_inverse=True)[1] if usable is not None else classes
        shown = torch.as_tensor(np.asarray(numbered))[found.places]
    changes: dict[str, Any] = {"notes": (*found.notes, *notes)}
    if wishes.untrained and found.panel is not None:
        changes["verdict"] = judge(found.panel, (), wishes.thresholds, trained=False)
    use = None if usage is None else usage.sums / usage.n
    return AuditView.of(replace(found, **changes), shown, use)


def _audit_encoder(
    what: str | Path, wishes: AuditOptions, progress: OnProgress | None
) -> dict[str, AuditView]:
    from fullrank.encoders.hooks import which_taps
    from fullrank.encoders.runs import open_with_taps, own_data, own_run
    from fullrank.features.extraction import embed_images
    from fullrank.images.opening import open_data

    limit, run = wishes.limit, own_run(what)
    if run is None and not wishes.data:
        raise UsageError(
            "an encoder needs images: add --data with a folder, or a name of `fullrank list data`"
        )
    if wishes.untrained and Path(what).expanduser().exists():
        raise UsageError(f"untrained is for encoders by name; {what} brings its weights along")
    options = {"pretrained": not wishes.untrained, "image_size": wishes.image_size}
    model = open_with_taps(what, wishes.taps, download=wishes.download, **options)
    taps = list(which_taps(model, wishes.taps))
    own = run is not None and not wishes.data
    if run is not None and own:
        images = own_data(run.config(), limit or 0, wishes.download)
    else:
        images = open_data(str(wishes.data), limit=limit, download=wishes.download)
    held_out = wishes.split == "held-out" or (own and wishes.split is None)
    source = images.held_out if held_out else images.train
    if limit is not None and len(source) > limit:
        source = source.subset(np.arange(limit))
    notes = [*model.notes, *images.notes]
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = {tap: stack.enter_context((folder / f"{k}.f32").open("wb")) for k, tap in enumerate(taps)}
        widths: dict[str, int] = {}
        labels: list[Tensor] = []
        n = 0
        for batch in embed_images(model, source, taps):
            for tap, rows in batch.rows.items():
                widths[tap] = rows.shape[1]
                rows.contiguous().numpy().tofile(files[tap])
            if batch.labels is not None:
                labels.append(batch.labels)
            n += len(batch.indices)
            if progress:
                progress("embedding images", n, len(source))
        if not n:
            raise DataError(f"{source.name} has no image that can be decoded")
        classes = torch.cat(labels).numpy() if labels else None
        if classes is not None and (classes == -1).all():
            classes = None
        origin = f"{'untrained ' * wishes.untrained}{what} ({model.name}) on {n:,} images of {source.name}"
        found = {}
        for k, tap in enumerate(taps):
            files[tap].flush()
            mapped = np.memmap(folder / f"{k}.f32", np.float32, "c", shape=(n, widths[tap]))
            matrix = RowsInMemory(torch.from_numpy(mapped))
            found[tap] = _audit(matrix, tap, wishes, classes, origin, notes, progress)
        return found
