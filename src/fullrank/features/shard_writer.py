"""Writing features: each process appends its part, the last one joins them.

    F/.train.partial/part-0-of-2/    one file of raw numbers a column, and progress.json

What progress.json promises lies on the disk; what was appended after it is cut off when the same command goes
on. So a process may be killed at any byte, and no process ever waits for another.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import DataError, UsageError
from fullrank.features.store import (
    INDICES,
    LABELS,
    LAYOUTS,
    MANIFEST,
    SPLITS,
    Column,
    partial_folder,
    read_manifest,
)

RECORD_SECONDS = 1.0  # between two records of the progress: each waits for the disk


class StoreWriter:
    """Append rows of one split to a folder; a killed process can go on.

    Args:
        settings: whatever decides the rows, as JSON has it. Part of the provenance.
        layout: of the finished file.
        rank, world_size: of the processes that each write a contiguous part.

    Attributes:
        finished: whether the whole split is there already, so that nothing is to be done.
        images: how many of this process's images are done.

    Raises:
        UsageError: the folder holds something else, features of other settings, or a part that another
            process is writing.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        settings: Mapping[str, Any],
        *,
        layout: str = "safetensors",
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if split not in SPLITS:
            raise UsageError(f"a split is train or test, not {split}")
        self.folder, self.split, self.settings = folder, split, dict(settings)
        self.layout, self.rank, self.world_size = LAYOUTS[layout], rank, world_size
        _claim(folder, {"layout": layout, **self.settings})
        self.place = self.layout.place(folder, split)
        self.partial = partial_folder(folder, split)
        self.finished, self.images, self.rows = self.place.exists(), 0, 0
        self.kinds: dict[str, tuple[str, int]] = {}  # dtype and width of each column
        self.files: dict[str, IO[bytes]] = {}
        if self.finished:
            return
        self.own = self.partial / f"part-{rank}-of-{world_size}"
        self.own.mkdir(parents=True, exist_ok=True)
        for part in self.partial.glob("part-*"):
            if not part.name.endswith(f"-of-{world_size}"):
                count = part.name.rpartition("-")[2]
                raise UsageError(
                    f"{folder} was begun by {count} processes: go on with as many, or take another --out"
                )
        self.lock = _locked(self.own / "lock", f"{folder}: another process is writing {split}")
        # back to what the last record promises
        if record := _record_of(self.own):
            self.rows, self.images = record["rows"], record["images"]
            self.kinds = {name: (kind, width) for name, (kind, width) in record["columns"].items()}
        for name, column in self._columns([self.own]).items():
            self.files[name] = column.files[0].open("rb+")
            self.files[name].truncate(self.rows * column.row_bytes)
            self.files[name].seek(0, os.SEEK_END)
        self.recorded = time.monotonic()

    def _columns(self, shards: list[Path]) -> dict[str, Column]:
        return {
            name: Column([part / f"{k}.raw" for part in shards], np.dtype(kind), width)
            for k, (name, (kind, width)) in enumerate(self.kinds.items())
        }

    def add(self, rows: Mapping[str, Tensor], indices: Tensor, labels: Tensor | None, images: int) -> None:
        """Append rows.

        Args:
            rows: by tap, [b, d].
            indices: int [b], which images they are of.
            labels: int [b], -1 where an image has none, or None; always or never.
            images: how many of this process's images are done with these.
        """
        columns = {INDICES: indices.long()} | ({} if labels is None else {LABELS: labels.long()})
        columns |= {tap: z.float() for tap, z in rows.items()}
        if not self.files:
            if clash := {INDICES, LABELS} & set(rows):
                raise UsageError(f"a tap cannot be called {clash.pop()} in a file of features")
            self.kinds = {
                name: ("<i8" if z.dtype == torch.int64 else "<f4", z.shape[1] if z.ndim == 2 else 0)
                for name, z in columns.items()
            }
            for name, column in self._columns([self.own]).items():
                self.files[name] = column.files[0].open("wb")
        for name, file in self.files.items():
            file.write(columns[name].detach().cpu().contiguous().numpy().data)
        self.rows, self.images = self.rows + len(indices), images
        if time.monotonic() - self.recorded >= RECORD_SECONDS:
            self._record(done=False)

    def _record(self, done: bool) -> None:
        for file in self.files.values():
            file.flush()
            os.fsync(file.fileno())
        record = {"rows": self.rows, "images": self.images, "columns": self.kinds, "done": done}
        _replace(self.own / "progress.json", json.dumps(record))
        self.recorded = time.monotonic()

    def finish(self, provenance: Mapping[str, Any]) -> Path | None:
        """End this process's part; whoever ends last joins all parts to the finished file.

        Returns that file, or None where other processes are still at work. Raises DataError where no process
        has a row. `provenance` is written beside the settings.
        """
        if self.finished:
            return self.place
        self._record(done=True)
        for file in self.files.values():
            file.close()
        with self.lock, _locked(self.folder / f".{self.split}.lock"):
            if self.place.exists():  # another process was as quick
                return self.place
            shards = [self.partial / f"part-{rank}-of-{self.world_size}" for rank in range(self.world_size)]
            records = [_record_of(part) for part in shards]
            if not all(record.get("done") for record in records):
                return None
            filled = [part for part, record in zip(shards, records, strict=True) if record["rows"]]
            if not filled:
                raise DataError(f"no image of {self.split} can be decoded: there are no features to write")
            self.kinds = _record_of(filled[0])["columns"]
            joined = self.partial / f"joined{self.layout.suffix}"
            if joined.is_dir():  # of a process that was killed while it joined
                shutil.rmtree(joined)
            whole = {**self.settings, "split": self.split, **provenance}
            self.layout.write(joined, self._columns(filled), whole)
            for part in joined.iterdir() if joined.is_dir() else [joined]:
                with part.open("rb") as written:
                    os.fsync(written.fileno())
            joined.replace(self.place)
            shutil.rmtree(self.partial, ignore_errors=True)
            return self.place


def _claim(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make the folder of these settings; raises where it is of others."""
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: features go into a folder")
    known = read_manifest(folder)
    manifest = json.loads(json.dumps(manifest))
    if known is not None and known != manifest:
        other = next(key for key in {**known, **manifest} if known.get(key) != manifest.get(key))
        raise UsageError(
            f"{folder} holds the features of another command ({other} {_short(known.get(other))}, not "
            f"{_short(manifest.get(other))}): take another --out"
        )
    if known is None:
        if folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir()):
            raise UsageError(f"{folder} exists already and holds other files: take another --out")
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / MANIFEST, json.dumps(manifest, indent=2))


def _short(value: Any) -> str:
    return str(value) if not isinstance(value, list) else ",".join(map(str, value))


def _record_of(part: Path) -> dict[str, Any]:
    record: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        record = json.loads((part / "progress.json").read_text())
    return record


def _replace(path: Path, text: str) -> None:
    """Replace a file at once; each process has its own draft."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _locked(path: Path, busy: str = "") -> IO[bytes]:
    """A file locked until it is closed; waits where no refusal is given."""
    file = path.open("wb")
    with suppress(ImportError):  # not on Windows, where nobody guards against two at once
        import fcntl

        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except OSError as error:
            file.close()
            raise UsageError(busy) from error
    return file
