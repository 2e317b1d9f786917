"""Candidates: checkpoints of a run, runs of a sweep, or encoders by name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from fullrank.encoders.libraries import refuse_unknown_name
from fullrank.encoders.opening import is_encoder, open_encoder
from fullrank.encoders.runs import is_untrained, own_run
from fullrank.errors import DataError, UsageError
from fullrank.evaluation.table import encoder_files, epoch_of
from fullrank.training.checkpoint import TrainState
from fullrank.training.record_files import read_records
from fullrank.training.records import EpochRecord
from fullrank.training.run_dir import RunDir
from fullrank.untrusted.paths import expand_user


@dataclass(frozen=True)
class Candidate:
    """An encoder that may be picked.

    Attributes:
        name: for people, unique among the candidates.
        spec: what `open_encoder` takes.
        run: that it is of; None for other encoders.
        epoch: after which it was kept.
        loss: mean training loss of that epoch.
        seconds: of training until then.
        why: it cannot be used, where that is known.
    """

    name: str
    spec: str
    run: RunDir | None = None
    epoch: int | None = None
    loss: float | None = None
    seconds: float | None = None
    why: str = ""


def find_candidates(
    subjects: Sequence[str], every_checkpoint: bool = False, untrained: bool = False
) -> list[Candidate]:
    """Find what is to be chosen from.

    Args:
        subjects: a run, for the encoders that it kept (`--keep-every`) and its checkpoints; a folder of
            runs, as a sweep is, for the encoder that each left; an encoder by name or checkpoint.
        every_checkpoint: of several runs all the encoders that they kept.
        untrained: encoders by name have random weights.

    Raises:
        UsageError: fewer than two candidates; the remedy is in the message.
        DataError: a run without an encoder, or nothing of that name.
    """
    whole = len(subjects) == 1 and own_run(subjects[0]) is not None and Path(subjects[0]).is_dir()
    found = []
    for subject in subjects:
        for name, run in _runs(subject):
            try:
                found += _of_run("" if whole else name, run, every_checkpoint or whole)
            except DataError as error:  # one without an encoder spoils no sweep
                if own_run(subject) is not None:
                    raise
                found.append(Candidate(name, str(run.path), run, why=str(error)))
        if own_run(subject) is None and not runs_below(subject):
            if not is_encoder(subject):
                if expand_user(subject).exists():
                    raise UsageError(f"{subject} is neither a run, a folder of runs nor an encoder")
                open_encoder(subject)  # which says that there is none, and the nearest name
            refuse_unknown_name(subject)
            found.append(Candidate(f"{subject} (untrained)" if untrained else subject, subject))
    found = list({candidate.spec: candidate for candidate in found}.values())
    if len(found) < 2:
        kept = "train with --keep-every 1 to keep one after each epoch" if whole else "name several"
        there = "is one encoder" if found else "is no encoder"
        raise UsageError(f"there {there} to pick from, and two are needed: {kept}")
    return _with_names_that_differ(found)


def _runs(subject: str) -> Iterator[tuple[str, RunDir]]:
    """The run that was named, or the runs of a folder."""
    run = own_run(subject)
    if run is not None:
        yield run.path.name, run
        return
    for folder in runs_below(subject):
        yield folder.relative_to(expand_user(subject)).as_posix(), RunDir.open(folder)


def runs_below(subject: str) -> list[Path]:
    """Directories of runs in a folder, or in its folders; perhaps none."""
    path = expand_user(subject)
    if not path.is_dir():
        return []
    found = [file.parent for file in sorted(path.glob("*/config.yaml"))]
    return found or [file.parent for file in sorted(path.glob("*/*/config.yaml"))]


def _of_run(name: str, run: RunDir, every: bool) -> list[Candidate]:
    files, damaged = _readable(encoder_files(run))
    if every:
        files = dict(sorted({**_checkpoints(run), **files}.items()))
    if not files:
        raise DataError(damaged[0].why)
    logged = {
        record.epoch: record
        for record in read_records(run.metrics_path).records
        if isinstance(record, EpochRecord)
    }
    left = run.path / "encoder.safetensors"
    own = {epoch: file for epoch, file in files.items() if file == left}  # which may not be the last one
    chosen = files if every else own or {max(files): files[max(files)]}
    found = [replace(each, name=f"{name}/{each.name}".removeprefix("/"), run=run) for each in damaged]
    for epoch, file in chosen.items():
        record = logged.get(epoch)
        seconds = (record.time or {}).get("elapsed") if record else None
        found.append(
            Candidate(
                f"{name}, epoch {epoch}{' (untrained)' * is_untrained(file)}".removeprefix(", "),
                str(file),
                run,
                epoch,
                record.loss if record else None,
                seconds,
            )
        )
    return found


def _readable(files: Sequence[Path]) -> tuple[dict[int, Path], list[Candidate]]:
    """Files by the epoch in their header, and candidates for those that are damaged."""
    found, damaged = {}, []
    for file in files:
        try:
            found[epoch_of(file)] = file
        except DataError as error:
            damaged.append(Candidate(file.name, str(file), why=str(error)))
    return found, damaged


def _checkpoints(run: RunDir) -> dict[int, Path]:
    """Checkpoints of a run by epoch: those that were taken at the end of one."""
    found = {}
    for checkpoint in run.checkpoints.every():
        with suppress(LookupError, TypeError, ValueError, AttributeError):  # damaged: the others will do
            state = TrainState.from_dict(checkpoint.state["progress"])
            if state.verdict:
                found[state.epoch] = checkpoint.path
    return found


def _with_names_that_differ(found: list[Candidate]) -> list[Candidate]:
    """The same, where two share a name called by their paths."""
    names = [candidate.name for candidate in found]
    return [
        replace(candidate, name=candidate.spec) if names.count(candidate.name) > 1 else candidate
        for candidate in found
    ]
