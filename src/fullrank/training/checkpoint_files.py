"""Checkpoint files: written beside the last one, read back, kept with a past."""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor

from fullrank.atomic import replacing, write_atomically
from fullrank.errors import FullrankError, NotFiniteError
from fullrank.networks.finite import first_not_finite
from fullrank.training.checkpoint_shards import remove_unused, with_shards
from fullrank.untrusted.paths import is_regular

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

DIGESTS = "digests.json"
_SHA256 = re.compile("[0-9a-f]{64}")
MOST_DIGESTS = 256  # of files that were written last: far more than are kept
LARGEST_LIST = 1 << 20  # bytes of `digests.json`
FICLONE = 0x40049409  # ioctl of Linux: a copy that shares blocks until one of the two is written to
WEIGHTS = ("method", "optimizer", "probe")


class DamagedCheckpointError(FullrankError):
    """No checkpoint of a run can be read; each is named, with what is wrong with it."""


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A sound checkpoint.

    Attributes:
        state: what was written.
        path: its file.
        passed_over: newer files that are damaged, a line each.
    """

    state: dict[str, Any]
    path: Path
    passed_over: Sequence[str] = ()


class CheckpointFiles:
    """Checkpoint files of a run: `last.pt`, those before it, and `healthy.pt`.

    `last-1.pt` is the one before `last.pt`, `last-2.pt` the one before that. `healthy.pt` is a copy of the
    last one that was judged healthy. `digests.json` has the SHA-256 of all that were written whole.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     files = CheckpointFiles(Path(folder))
        ...     files.write({"step": 1})
        ...     files.write({"step": 2})
        ...     _ = files.path("last").write_bytes(b"damaged")
        ...     found = files.newest()
        ...     found.state, found.path.name, len(found.passed_over)
        ({'step': 1}, 'last-1.pt', 1)
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Path of the checkpoint `last`, `last-1`, ... or `healthy`."""
        return self.folder / f"{name}.pt"

    def write(self, state: Mapping[str, Any], keep: int = 3) -> None:
        """Make `state` the last checkpoint, of which `keep` are kept.

        The one before stays until the new one has been read back.

        Raises:
            NotFiniteError: weights, or the optimiser's numbers, are not finite.
            OSError: the disk is full, or does not give back what was written.
        """
        if where := first_not_finite(dict(_tensors({key: state[key] for key in WEIGHTS if key in state}))):
            raise NotFiniteError(f"{where} is not finite: no checkpoint of it is written")
        path = self.path("last")
        try:
            with replacing(path) as file:
                hashing = _Hashing(file)
                torch.save(dict(state), cast(BinaryIO, hashing))
                file.flush()
                os.fsync(file.fileno())
                _read_back(Path(file.name), hashing.digest.hexdigest())
                self._remember(hashing.digest.hexdigest())
                self._rotate(keep)
            remove_unused(self.folder, self._newest_first())
        except RuntimeError as error:  # what PyTorch's zip writer makes of a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error

    def keep_healthy(self) -> None:
        """Make `healthy.pt` a copy of `last.pt`, which damage to that one does not reach."""
        self.keep("healthy")

    def keep(self, name: str) -> None:
        """Make a checkpoint of that name a copy of `last.pt`."""
        with replacing(self.path(name)) as file:
            _copy(self.path("last"), file)
            file.flush()
            known = self._digests() or [_sha256(self.path("last"))]
            if _sha256(Path(file.name)) not in known:
                raise OSError(errno.EIO, "it changed since it was written", str(self.path("last")))

    def newest(self) -> LoadedCheckpoint | None:
        """The newest sound checkpoint; None where there is no file at all.

        Raises:
            DamagedCheckpointError: there are files, and none of them is sound.
        """
        passed_over = list[str]()
        for path in self._newest_first():
            try:
                return LoadedCheckpoint(self._load(path), path, passed_over)
            except DamagedCheckpointError as error:
                passed_over.append(str(error))
        if passed_over:
            raise DamagedCheckpointError(
                f"no checkpoint can be read: {'; '.join(passed_over)}; put back a copy of one, or train into "
                "another --out"
            )
        return None

    def load(self, name: str) -> LoadedCheckpoint:
        """Load the checkpoint of a name that was kept.

        Raises:
            DamagedCheckpointError: it is not what was written.
        """
        return LoadedCheckpoint(self._load(self.path(name)), self.path(name))

    def every(self, first: str = "last") -> Iterator[LoadedCheckpoint]:
        """All sound checkpoints, the one named `first` first, then the newest."""
        for path in sorted(self._newest_first(), key=lambda path: path.stem != first):
            with suppress(DamagedCheckpointError):
                yield LoadedCheckpoint(self._load(path), path)

    def promote(self, path: Path) -> None:
        """Make a sound file `last.pt` again, and set those aside that it stands in for.

        Damaged files become `damaged-NAME`, with a number from the second on, for who wants to look at them.
        """
        for newer in [each for each in self._newest_first() if each.name != "healthy.pt"]:
            if newer == path:
                break
            newer.replace(_free(newer.with_name(f"damaged-{newer.stem}")))
        with replacing(self.path("last")) as file:
            _copy(path, file)

    def _newest_first(self) -> Iterator[Path]:
        """`last.pt`, `last-1.pt`, ..., then `healthy.pt`, which may be the oldest."""
        numbers = {_number(path): path for path in self.folder.glob("last*.pt")}
        yield from (path for number, path in sorted(numbers.items()) if number >= 0)
        if self.path("healthy").exists():
            yield self.path("healthy")

    def _load(self, path: Path) -> dict[str, Any]:
        """Read a file to the CPU, without unpickling code.

        Raises:
            DamagedCheckpointError: it is not what was written.
        """
        digests = self._digests()
        if not path.is_file():
            raise DamagedCheckpointError(f"{path} is no file")
        if not path.stat().st_size:
            raise DamagedCheckpointError(f"{path} is empty")
        try:
            if digests and _sha256(path) not in digests:
                raise DamagedCheckpointError(
                    f"{path} is damaged: its SHA-256 is not that of what was written"
                )
            state = torch.load(path, map_location="cpu", weights_only=True)
        except DamagedCheckpointError:
            raise
        except Exception as error:  # other bytes raise a dozen types, struct.error among them
            raise DamagedCheckpointError(f"{path} is damaged, and no checkpoint") from error
        if not isinstance(state, dict):
            raise DamagedCheckpointError(f"{path} is damaged: it holds no mapping")
        try:
            return with_shards(state, self.folder)
        except Exception as error:  # of readers that were given other bytes, likewise
            raise DamagedCheckpointError(f"{path} is damaged in what it names: {error}") from error

    def _rotate(self, keep: int) -> None:
        """Move the kept files one place back; `last.pt` stays until it is replaced.

        One that was killed on its way is finished: files move up to the first place that is free.
        """
        for path in self.folder.glob("last-*.pt"):
            if _number(path) >= keep:
                path.unlink()
        last, previous = self.path("last"), self.path("last-1")
        if keep == 1 or not last.exists() or (previous.exists() and previous.samefile(last)):
            return
        free = next((n for n in range(1, keep - 1) if not self.path(f"last-{n}").exists()), keep - 1)
        for number in range(free, 1, -1):
            self.path(f"last-{number - 1}").replace(self.path(f"last-{number}"))
        try:
            previous.unlink(missing_ok=True)
            previous.hardlink_to(last)  # until `last.pt` is replaced, in a moment
        except OSError:  # a file system without hard links
            with replacing(previous) as file:
                _copy(last, file)

    def _digests(self) -> list[str]:
        """SHA-256 of what was written; empty in old runs, or if the list is damaged."""
        path = self.folder / DIGESTS
        if not is_regular(path) or path.stat().st_size > LARGEST_LIST:
            return []
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError, RecursionError):
            return []
        known = found if isinstance(found, list) else []
        return [
            each for each in known if isinstance(each, str) and len(each) == 2 * hashlib.sha256().digest_size
        ]

    def _remember(self, digest: str) -> None:
        """Add a digest, before its file is in place: no file is ever there without."""
        known = [each for each in self._digests() if each != digest][-MOST_DIGESTS:]
        write_atomically(self.folder / DIGESTS, json.dumps([*known, digest]).encode())


class _Hashing:
    """A file that is hashed as it is written."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.digest = file, hashlib.sha256()

    def write(self, content: bytes) -> int:
        self.digest.update(content)
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()


def _tensors(values: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Tensors in nested mappings and sequences, each with its path as its name."""
    if isinstance(values, Tensor):
        yield name, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _tensors(value, f"{name}.{key}" if name else str(key))
    elif isinstance(values, list | tuple):
        for index, value in enumerate(values):
            yield from _tensors(value, f"{name}.{index}" if name else str(index))


def _free(path: Path) -> Path:
    """A name with `.pt` that is not taken."""
    names = (path.with_name(f"{path.name}{f'-{n}' if n else ''}.pt") for n in itertools.count())
    return next(name for name in names if not os.path.lexists(name))


def _number(path: Path) -> int:
    """0 of `last.pt`, n of `last-n.pt`, -1 of another file."""
    found = re.fullmatch(r"last(?:-([1-9]\d*))?\.pt", path.name)
    return int(found[1] or 0) if found else -1


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_back(path: Path, digest: str) -> None:
    """Raise OSError where a file is not what was written into it; see that it opens."""
    if _sha256(path) != digest:
        raise OSError(errno.EIO, "the disk does not give back what was written", str(path))
    torch.load(path, map_location="cpu", weights_only=True, mmap=True)


def _copy(source: Path, target: BinaryIO) -> None:
    """Copy a file, sharing its blocks where the file system can, and never its place."""
    with source.open("rb") as file:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.ioctl(target.fileno(), FICLONE, file.fileno())
                return
        shutil.copyfileobj(file, target, 1 << 20)
