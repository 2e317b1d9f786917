"""Writing the features of a data set into a folder, split by split.

Each process appends its part, the last one joins them.

    F/.train.partial/part-0-of-2/    one file of raw numbers a column, and progress.json

What progress.json promises lies on the disk; what was appended after it is cut off when the same command goes
on. So a process may be killed at any byte. Who is done waits for the others' parts, and says which does not
come.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor, nn

import fullrank
from fullrank.atomic import write_atomically
from fullrank.encoders.encoder import Encoder
from fullrank.encoders.hooks import which_taps
from fullrank.encoders.runs import begins_loaded, encoder_header, is_untrained, own_run
from fullrank.errors import DataError, UsageError
from fullrank.features.claims import claim
from fullrank.features.extraction import Augmentation, embed_images, part_of
from fullrank.features.parts import Parts, leave_word, locked, part_name, record_of, this_peer
from fullrank.features.store import (
    INDICES,
    LABELS,
    LAYOUTS,
    SPLITS,
    Column,
    partial_folder,
)
from fullrank.features.subject import open_encoder_subject
from fullrank.images.fingerprints import digest, fingerprint_of_choice
from fullrank.images.skipped import LIST, add_skipped
from fullrank.images.sources import Source
from fullrank.launchers import launched_processes
from fullrank.options import EmbedOptions, OnProgress, split_names
from fullrank.terminal import say
from fullrank.views import VIEWS

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
        claim(folder, {"layout": layout, **self.settings})
        self.place = self.layout.place(folder, split)
        self.partial = partial_folder(folder, split)
        self.finished, self.images, self.rows = self.place.exists(), 0, 0
        self.joined = False  # whether this process has joined the parts
        self.kinds: dict[str, tuple[str, int]] = {}  # dtype and width of each column
        self.files: dict[str, IO[bytes]] = {}
        if self.finished:  # whoever finished it may have been killed before it cleared up
            shutil.rmtree(self.partial, ignore_errors=True)
            return
        self.own = self.partial / part_name(rank, world_size)
        self.own.mkdir(parents=True, exist_ok=True)
        for part in self.partial.glob("part-*"):
            if not part.name.endswith(f"-of-{world_size}"):
                count = part.name.rpartition("-")[2]
                raise UsageError(
                    f"{folder} was begun by {count} processes: go on with as many, or take another --out"
                )
        self.lock = locked(self.own / "lock", f"{folder}: another process is writing {split}")
        os.utime(self.own / "lock")
        since = (self.own / "lock").stat().st_mtime
        self.parts = Parts(self.place, self.partial, rank, world_size, since)
        # back to what the last record promises
        if record := record_of(self.own):
            self.rows, self.images = record.get("rows", 0), record.get("images", 0)
            self.kinds = {name: (kind, width) for name, (kind, width) in record.get("columns", {}).items()}
        for name, column in self._columns([self.own]).items():
            self.files[name] = column.files[0].open("rb+")
            self.files[name].truncate(self.rows * column.row_bytes)
            self.files[name].seek(0, os.SEEK_END)
        self._record(done=bool(record.get("done")))

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
        record["process"] = asdict(this_peer(self.rank))
        write_atomically(self.own / "progress.json", json.dumps(record).encode())
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
        self.lock.close()
        return self.join(provenance)

    def join(self, provenance: Mapping[str, Any]) -> Path | None:
        """Join the parts of all processes where they are there, and return the file."""
        with locked(self.folder / f".{self.split}.lock"):
            if self.place.exists():  # another process was as quick
                return self.place
            shards = [self.partial / part_name(rank, self.world_size) for rank in range(self.world_size)]
            records = [record_of(part) for part in shards]
            if not all(record.get("done") for record in records):
                return None
            filled = [part for part, record in zip(shards, records, strict=True) if record["rows"]]
            if not filled:
                raise DataError(f"no image of {self.split} can be decoded: there are no features to write")
            self.kinds = record_of(filled[0])["columns"]
            joined = self.partial / f"joined{self.layout.suffix}"
            if joined.is_dir():  # of a process that was killed while it joined
                shutil.rmtree(joined)
            whole = {**self.settings, "split": self.split, **provenance}
            self.layout.write(joined, self._columns(filled), whole)
            for part in joined.iterdir() if joined.is_dir() else [joined]:
                with part.open("rb") as written:
                    os.fsync(written.fileno())
            joined.replace(self.place)
            self.joined = True
            shutil.rmtree(self.partial, ignore_errors=True)
            return self.place


@dataclass(frozen=True)
class Written:
    """The features that lie in a folder.

    Attributes:
        files: by split; without those that other processes are still at work on.
        rows: by split, how many there are.
        widths: of the rows, by tap.
        notes: one line each, on the images and the network.
    """

    files: dict[str, Path]
    rows: dict[str, int]
    widths: dict[str, int]
    notes: tuple[str, ...]

    def add(self, split: str, file: Path, layout: str, taps: Sequence[str]) -> None:
        """Take in the finished file of a split."""
        _, _, column = LAYOUTS[layout].open(file)
        self.files[split], self.rows[split] = file, len(column(INDICES))
        self.widths.update({tap: column(tap).shape[1] for tap in taps})


def processes() -> tuple[int, int, int]:
    """Rank, processes and rank on this machine of a launcher; (0, 1, 0) without."""
    found = launched_processes()
    return (found.rank, found.world, found.local_rank) if found else (0, 1, 0)


def write_features(
    what: str | Path, folder: Path, options: EmbedOptions, on_progress: OnProgress | None = None
) -> Written:
    """Write features of images into a folder; see `fullrank.embed`.

    Under torchrun each process writes its contiguous part, and the last one joins them; the others wait until
    it has.

    Raises:
        UsageError: the folder holds something else, or an option makes no sense here.
        FullrankError: the part of another process does not come.
        DataError: no such images, or none of them can be decoded.
    """
    with _telling_others(folder, options):
        return _write(what, folder, options, on_progress)


@contextmanager
def _telling_others(folder: Path, options: EmbedOptions) -> Iterator[None]:
    """Leave word for other processes where this one fails; say which of them has."""
    rank, world, _ = processes()
    since = time.time() - 0.1  # times of files are of a coarser clock
    places = {split: LAYOUTS[options.format].place(folder, split) for split in split_names(options.split)}
    try:
        yield
    except Exception as error:
        for split in places if world > 1 else ():
            leave_word(partial_folder(folder, split), rank, world, error)
        raise
    except BaseException:  # a launcher ends this process, perhaps as another one has died
        for split, place in places.items() if world > 1 else ():
            if lost := Parts(place, partial_folder(folder, split), rank, world, since).lost():
                say(f"fullrank: {lost}", sys.stderr)
        raise


def _write(what: str | Path, folder: Path, options: EmbedOptions, on_progress: OnProgress | None) -> Written:
    rank, world_size, local = processes()
    gpus = torch.cuda.device_count()
    device = options.device or (f"cuda:{local % gpus}" if gpus else "cpu")
    named = split_names(options.taps)
    subject = open_encoder_subject(what, options, named, options.data, options.limit, options.max_pixels)
    model, data = subject.encoder, subject.data
    taps = list(which_taps(model, split_names(options.taps)))
    run = own_run(what)
    own = run.config().views if run is not None else options.data
    preset = options.view_preset or (own if own in VIEWS else "simsiam")
    augmentation = Augmentation(options.views, preset, options.seed) if options.views else None
    settings = {
        "subject": str(what),
        "data": options.data or data.name,
        "limit": options.limit,
        "taps": taps,
        "tokens": options.tokens,
        "views": options.views,
        "view_preset": preset if options.views else "",
        "seed": options.seed if options.views else 0,
        "image_size": model.image_size,
        "fingerprint": digest(repr(sorted(fingerprint_of_choice(data).items())).encode()),
        "weights": digest_of_weights(
            model.network
        ),  # last: a folder is refused for what the user said, if for that
    }
    written = Written({}, {}, {}, (*model.notes, *data.notes))
    unfinished = []
    for split in split_names(options.split):
        source = data.train if split == "train" else data.held_out
        writer = StoreWriter(folder, split, settings, layout=options.format, rank=rank, world_size=world_size)
        provenance = {
            "classes": source.classes,
            "mean": list(model.mean or source.mean),
            "std": list(model.std or source.std),
            "crop_ratio": model.crop_ratio,
            "images": len(source),
            "model": model.name,
            "origin": model.origin,
            "untrained": (options.untrained and not begins_loaded(what)) or is_untrained(what),
            "run": encoder_header(run) if run is not None else None,
            "fullrank": fullrank.__version__,
        }
        if not writer.finished:
            _stream(model, source, writer, options, augmentation, device, on_progress)
        file = writer.finish(provenance)
        if file is None:
            unfinished.append((writer, provenance))
        else:
            written.add(split, file, options.format, taps)
    for writer, provenance in unfinished:  # after all that there is to do here
        writer.parts.wait()
        file = writer.join(provenance)  # where who was to join them has ended
        if file is not None and writer.joined:
            written.add(writer.split, file, options.format, taps)
    if data.skipped:
        add_skipped(folder, data.skipped)
        written = replace(written, notes=(*written.notes, f"all that is left out, and why: {folder / LIST}"))
    return written


def _stream(
    model: Encoder,
    source: Source,
    writer: StoreWriter,
    options: EmbedOptions,
    augmentation: Augmentation | None,
    device: str,
    on_progress: OnProgress | None,
) -> None:
    part = part_of(len(source), writer.rank, writer.world_size)
    labelled = source.labels is not None and bool((source.labels >= 0).any())
    for batch in embed_images(
        model,
        source,
        split_names(options.taps),
        options.batch_size,
        device,
        tokens=options.tokens,
        workers=options.workers,
        rank=writer.rank,
        world_size=writer.world_size,
        skip=writer.images,
        augmentation=augmentation,
    ):
        done = int(batch.indices[-1]) - int(part[0]) + 1
        writer.add(batch.rows, batch.indices, batch.labels if labelled else None, done)
        if on_progress:
            on_progress(f"embedding {writer.split}", done, len(part))


def digest_of_weights(network: nn.Module) -> str:
    """Digest of all that a network has learned, and of its buffers."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
