"""Audits of a matrix, a file, stored features or an encoder; one a tap."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from torch import Tensor

from fullrank.agreement import check_same
from fullrank.coercion import load_yaml
from fullrank.collapse.audit import RowsInMemory
from fullrank.collapse.audit import audit as audit_rows
from fullrank.collapse.metrics.codes import CodeUsage
from fullrank.collapse.one_pass import RowSource
from fullrank.collapse.peers import Peers
from fullrank.collapse.taps import with_differing_tap
from fullrank.collapse.thresholds import Thresholds
from fullrank.collapse.verdict import judge
from fullrank.encoders.hooks import capacities, which_taps
from fullrank.encoders.libraries import refuse_unknown_name
from fullrank.encoders.opening import is_encoder
from fullrank.encoders.runs import begins_loaded, is_untrained, own_run
from fullrank.errors import DataError, UnknownNameError, UsageError, printable
from fullrank.features.embeddings import Rows
from fullrank.features.extraction import embed_images
from fullrank.features.keys import as_labels
from fullrank.features.labels import open_labels
from fullrank.features.shard_files import is_address, is_pattern
from fullrank.features.store import main_tap
from fullrank.features.subject import EncoderSubject, Kind, StoredSubject, kind_of, open_subject
from fullrank.images.fingerprints import digest
from fullrank.options import OnProgress, split_names
from fullrank.report.audit.of_run import verdict_of_run
from fullrank.report.audit.options import AuditOptions as AuditOptions  # offered here, too
from fullrank.report.audit.terminal import AuditView
from fullrank.untrusted.parsing import read_text
from fullrank.untrusted.paths import expand_user


def audit_subject(
    what: Any,
    options: AuditOptions,
    labels: Any = None,
    on_progress: OnProgress | None = None,
    peers: Peers | None = None,
) -> dict[str, AuditView]:
    """Audit whatever was named, at every tap that is wanted.

    Args:
        what: a matrix, a path, a folder that `fullrank embed` wrote, or the name of an encoder.
        options: how; UsageError where they do not fit what was named.
        labels: one a row, as an array; None takes those of `options.labels` or beside the rows, if any.
        on_progress: called as it goes on.
        peers: processes that share the rows of files, each of which calls this; None reads all.

    Example:
        >>> z = torch.randn(500, 8, generator=torch.Generator().manual_seed(0))
        >>> {tap: view.verdict.kind for tap, view in audit_subject(z, AuditOptions()).items()}
        {'embedding': 'healthy'}
    """
    kind = kind_of(what, options.data)
    _check(kind, what, options, labels)
    subject = open_subject(what, options, split_names(options.taps) or None, kind=kind, peers=peers)
    if isinstance(subject, EncoderSubject):
        return _audit_encoder(what, subject, options, on_progress)
    if isinstance(subject, StoredSubject):
        return _audit_stored(subject, options, on_progress)
    classes = subject.labels
    if options.labels:
        classes = open_labels(options.labels, subject.n, max_bytes=options.max_bytes)
        found = digest(np.asarray(classes, np.int64).tobytes())
        check_same({"labels": f"has labels of the digest {found}"}, peers or Peers(alone=True))
    elif labels is not None:
        classes = as_labels("labels", labels)
    tap = "codes" if options.codes else "embedding"
    return {tap: _audit(subject, tap, options, classes, subject.origin, subject.notes, on_progress)}


def refuse_against(against: str, options: AuditOptions) -> None:
    """Raise early where there is nothing of that name to hold an audit against."""
    if against in ("", "untrained"):
        return
    refuse_unknown_name(against)
    kind = kind_of(against, options.data)
    imageless = kind == "encoder" and not options.data and own_run(against) is None
    named = is_address(against) or is_pattern(against) or is_encoder(against)
    if imageless or not (named or expand_user(against).exists()):
        open_subject(against, options, kind=kind)  # which says what there is not


def audit_against(
    what: str, against: str, options: AuditOptions, tap: str, on_progress: OnProgress | None = None
) -> AuditView:
    """Audit `against`; `untrained` is `what` with random weights."""
    untrained = against == "untrained"
    options = replace(options, key="", labels="", untrained=untrained, taps="")
    if untrained or is_encoder(against):
        options = replace(options, taps="" if tap in ("embedding", "codes") else tap)
    else:
        options = replace(options, data="", limit=0)
    audits = audit_subject(what if untrained else against, options, None, on_progress)
    return audits[main_tap(audits)]


def _check(kind: Kind, what: Any, options: AuditOptions, labels: Any) -> None:
    labelled = labels is not None or options.labels
    if kind == "encoder":
        if options.key:
            raise UsageError(f"--key chooses an array in a file, and {what} is an encoder")
        if labelled:
            raise UsageError("the labels of an encoder's images come with --data; leave labels out")
    elif kind == "stored":
        if labelled or options.data or options.limit or options.key:
            raise UsageError(
                f"{what} holds features with their labels: leave --labels, --data, --limit and --key out"
            )
    else:
        named = str(what) if isinstance(what, str | Path) else f"a {type(what).__name__}"
        for option in ("data", "taps", "limit"):
            if getattr(options, option):
                raise UsageError(f"--{option} is for encoders, and {named} holds embeddings")
        if options.key and not isinstance(what, str | Path):
            raise UsageError(f"key chooses an array in a file, and what was given is {named}")
        if options.key and named.lower().endswith(".npy"):
            raise UsageError(f"{what} holds a single array: leave --key out")


def _audit_stored(
    subject: StoredSubject, options: AuditOptions, on_progress: OnProgress | None
) -> dict[str, AuditView]:
    wanted = {"train": "train", "held-out": "test"}.get(options.split, "")
    if subject.named and wanted not in ("", subject.named):
        raise UsageError(
            f"{subject.folder / subject.named} holds no {options.split} images: {subject.folder} does"
        )
    name, stored = subject.split(wanted)
    options = replace(options, untrained=options.untrained or stored.provenance.get("untrained") is True)
    classes = None if stored.labels is None else stored.labels.numpy()
    taps = split_names(options.taps)
    audits: dict[str, AuditView] = {}
    for tap in stored.rows if taps in ((), ("all",)) else taps:
        origin = f"{tap} of {stored.provenance['subject']}, {name} images, in {subject.folder}"
        rows = RowsInMemory(stored.rows[tap])
        names = stored.provenance.get("classes")
        audits[tap] = _audit(rows, tap, options, classes, origin, (), on_progress, class_names=names)
    return _with_differing_tap(audits)


def _with_differing_tap(audits: dict[str, AuditView]) -> dict[str, AuditView]:
    verdicts = with_differing_tap({tap: audit.verdict for tap, audit in audits.items()})
    return {tap: replace(audit, verdict=verdicts[tap]) for tap, audit in audits.items()}


class _Counted:
    def __init__(self, rows: RowSource, usage: CodeUsage) -> None:
        self.rows, self.usage, self.n, self.d = rows, usage, rows.n, rows.d
        self.part = getattr(rows, "part", None)

    def chunks(self, rows: int | None = None) -> Iterator[Tensor]:
        for chunk in self.rows.chunks(rows):
            self.usage.update(chunk)
            yield chunk


def _audit(
    rows: RowSource,
    tap: str,
    options: AuditOptions,
    classes: np.ndarray | None,
    origin: str,
    notes: Sequence[str],
    on_progress: OnProgress | None,
    narrowest: int | None = None,
    class_names: Sequence[str] | None = None,
    row_name: Callable[[int], str] | None = None,
) -> AuditView:
    notes = list(notes)
    usage = CodeUsage(rows.d) if options.codes else None
    if classes is not None and len(classes) == rows.n and (missing := int((classes == -1).sum())):
        notes.append(f"metrics of classes are left out: {missing:,} of {rows.n:,} rows have no label")
    usable = classes if classes is not None and not (np.asarray(classes) == -1).any() else None
    audit = audit_rows(
        rows if usage is None else _Counted(rows, usage),
        tap=tap,
        labels=usable,
        codes=options.codes,
        thresholds=options.threshold,
        metrics=split_names(options.metrics) or None,
        sample=options.sample,
        narrowest=narrowest,
        origin=origin,
        row_name=row_name or _place_in_files(rows),
        progress=None if on_progress is None else lambda seen: on_progress(f"reading {tap}", seen, rows.n),
    )
    if usage is not None and (part := getattr(rows, "part", None)):
        usage.all_reduce(part.peers)
    shown, names = _numbered(classes, class_names)
    if shown is not None:
        shown = shown[audit.places]
    audit = replace(audit, notes=(*audit.notes, *notes))
    if options.untrained and audit.panel is not None:
        audit = replace(audit, verdict=judge(audit.panel, (), options.threshold, trained=False))
    return AuditView.of(audit, shown, names, None if usage is None else usage.sums / usage.n)


def _numbered(
    classes: np.ndarray | None, names: Sequence[str] | None
) -> tuple[Tensor | None, tuple[str, ...]]:
    """Classes numbered from 0, -1 where there is none, and the name of each number."""
    if classes is None:
        return None, ()
    values, numbers = np.unique(np.asarray(classes), return_inverse=True)
    unknown = int(values[0] == -1)
    known = [
        names[v] if names is not None and 0 <= v < len(names) else f"class {v}" for v in values[unknown:]
    ]
    return torch.from_numpy(numbers - unknown), tuple(known)


def _place_in_files(rows: RowSource) -> Callable[[int], str] | None:
    """File and row of a row, where one reads rows of several files."""
    files = (rows.part or rows.table) if isinstance(rows, Rows) else None
    if files is None or not files.place_of(0)[0]:
        return None
    return lambda row: "row {1:,} of {0}".format(*files.place_of(row))


def _audit_encoder(
    what: str | Path, subject: EncoderSubject, options: AuditOptions, on_progress: OnProgress | None
) -> dict[str, AuditView]:
    model, limit = subject.encoder, options.limit
    as_begun, loaded = options.untrained, begins_loaded(what)
    options = replace(options, untrained=(as_begun and not loaded) or is_untrained(what))
    modules = which_taps(model, split_names(options.taps) or None)
    taps, possible = list(modules), capacities(model, modules)
    held_out = options.split == "held-out" or (subject.own and not options.split)
    source = subject.data.held_out if held_out else subject.data.train
    if limit and len(source) > limit:
        source = source.subset(np.arange(limit))
    notes = [*model.notes, *subject.data.notes]
    of_run = None if as_begun else verdict_of_run(what)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        files = {tap: stack.enter_context((folder / f"{k}.f32").open("wb")) for k, tap in enumerate(taps)}
        widths: dict[str, int] = {}
        labels: list[Tensor] = []
        images: list[Tensor] = []  # of the rows
        n = 0
        for batch in embed_images(model, source, taps):
            for tap, rows in batch.rows.items():
                widths[tap] = rows.shape[1]
                rows.contiguous().numpy().tofile(files[tap])
            if batch.labels is not None:
                labels.append(batch.labels)
            images.append(torch.as_tensor(batch.indices))
            n += len(batch.indices)
            if on_progress:
                on_progress("embedding images", n, len(source))
        if not n:
            raise DataError(f"{source.name} has no image that can be decoded")
        classes = torch.cat(labels).numpy() if labels else None
        if classes is not None and (classes == -1).all():
            classes = None
        state = "as loaded, " if as_begun and loaded else ""
        begun = "untrained " * options.untrained
        origin = f"{begun}{what} ({state}{model.name}) on {n:,} images of {source.name}"
        of_rows = torch.cat(images).tolist()

        def named(row: int) -> str:
            return printable(source.where(of_rows[row]))

        audits = {}
        for k, tap in enumerate(taps):
            files[tap].flush()
            mapped = np.memmap(folder / f"{k}.f32", np.float32, "c", shape=(n, widths[tap]))
            matrix = RowsInMemory(torch.from_numpy(mapped))
            audits[tap] = _audit(
                *(matrix, tap, options, classes, origin, notes, on_progress, possible.get(tap)),
                class_names=source.classes,
                row_name=named,
            )
        found = _with_differing_tap(audits)
        return {tap: replace(view, of_run=of_run) for tap, view in found.items()}


def read_thresholds(file: Path) -> Thresholds:
    """Read thresholds; what the file does not name keeps its default."""
    if not file.is_file():
        raise UsageError(f"there is no file of thresholds {file}")
    try:
        entries = load_yaml(read_text(file)) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"{file} is no YAML or JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, dict):
        raise UsageError(f"{file} must hold names and numbers, as in decay: 2.5")
    known = {name: type(value) for name, value in vars(Thresholds()).items()}
    values: dict[str, Any] = {}
    for name, value in entries.items():
        key = str(name).replace("-", "_")
        if key not in known:
            raise UnknownNameError(f"threshold in {file}", str(name), known)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (known[key] is int and not float(value).is_integer())
        ):
            raise UsageError(f"{file}: {name} takes a {'whole ' * (known[key] is int)}number, not {value!r}")
        values[key] = known[key](value)
    return Thresholds(**values)
