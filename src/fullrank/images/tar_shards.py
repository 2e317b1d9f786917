"""Tar shards as WebDataset has them: addresses, and images read from their middle."""

from __future__ import annotations

import os
import re
import threading
from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np

from fullrank.errors import DataError, UsageError, printable, require_packages
from fullrank.images.fingerprints import digest, file_digests
from fullrank.images.index_files import Index, index_notes
from fullrank.images.shard_labels import numbered_as
from fullrank.images.shard_names import expanded, in_folder, is_there, user_path
from fullrank.images.skipped import left_out
from fullrank.images.sources import Indices, LazySource
from fullrank.images.tar_index import MOST_NAMED, open_tar_index
from fullrank.untrusted.paths import require_real_folder

MOST_OPEN = 64  # shards that a process keeps open
HELD_OUT_NAMES = ("val", "valid", "validation", "test")
REMOTE = re.compile(r"(pipe:|[a-z0-9+.-]+://)", re.IGNORECASE)


class TarMembers:
    """Encoded images within tar shards, as items of a `LazySource`.

    Each is read by itself, from its offset: in any order, by any process, without the images before it.
    """

    window = 0  # any image can be read by itself

    def __init__(self, paths: list[Path], index: Index) -> None:
        self.paths, self.index = paths, index
        self.starts: Indices = index.arrays["starts"]
        self._shards, self._offsets, self._sizes = (
            index.arrays[name] for name in ("shards", "offsets", "sizes")
        )
        self._open: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Callable[..., TarMembers], tuple[list[Path], Index]]:
        """Pickle the names: another process opens the shards itself."""
        return TarMembers, (self.paths, self.index)

    def __del__(self) -> None:
        for descriptor in getattr(self, "_open", {}).values():
            os.close(descriptor)

    def __len__(self) -> int:
        return len(self._offsets)

    def __getitem__(self, i: int) -> bytes:
        """Read encoded image `i`."""
        size = int(self._sizes[i])
        with self._lock:  # no other thread may close the shard meanwhile
            content = os.pread(self._descriptor(int(self._shards[i])), size, int(self._offsets[i]))
        if len(content) < size:
            raise OSError("the shard has become shorter since its index was made")
        return content

    def fingerprint(self) -> dict[str, str]:
        """See `Fingerprinted`: by shard, where its images lie and how long they are."""
        places = [np.asarray(part, np.int64) for part in (self._offsets, self._sizes)]
        return file_digests(
            self.paths,
            (digest(*(part[a:b].tobytes() for part in places)) for a, b in pairwise(self.starts.tolist())),
        )

    def where(self, i: int) -> str:
        """Shard and member of image `i`, for messages."""
        shard, before = int(self._shards[i]), int(self._offsets[i]) - 512
        try:
            with self._lock:
                header = os.pread(self._descriptor(shard), 512, before)
        except OSError:
            header = b""
        name = header[:100].partition(b"\0")[0].decode("utf-8", "replace")
        return printable(f"{self.paths[shard]} {name or f'image {i}'}")

    def _descriptor(self, shard: int) -> int:
        found = self._open.get(shard)
        if found is None:
            while len(self._open) >= MOST_OPEN:
                os.close(self._open.popitem(last=False)[1])
            found = self._open[shard] = os.open(self.paths[shard], os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        self._open.move_to_end(shard)
        return found


def open_shards(address: str) -> tuple[str, LazySource, LazySource | None, list[str]]:
    """Open tar shards by what stands behind `shards:`.

    That is a pattern with braces (and `::` between several, as WebDataset writes them), with `*`, or a
    folder. In a folder, shards in or named after `train` are the training set, and the first of `val`,
    `valid`, `validation`, `test` is held out; else all shards are the training set.

    Returned are a name, the training images, the held-out ones or None, and notes.

    Raises:
        UsageError: an address that is no file of this machine, or webdataset is not installed.
        DataError: a shard is not there, or none holds an image.
    """
    require_packages("webdataset")
    if REMOTE.match(address) or "::pipe:" in address:
        raise UsageError(
            f"shards:{printable(address)} is no file of this machine, and images are read from the middle "
            f"of shards: mount or copy them, or take hub:NAME for a data set of the Hub"
        )
    folder, passed_over = user_path(address), list[str]()
    if "\0" in address:
        raise UsageError(f"shards:{printable(address)} has a NUL in it, which no name of a file has")
    if is_there(folder) and require_real_folder(folder).is_dir():
        found, passed_over = in_folder(folder)
        train, held = _split(folder, found)
        name = folder.resolve().name
    else:
        train, held = expanded(address), []
        name = train[0].resolve().parent.name
    source, notes = _opened(f"{name}/train", train, None)
    notes = [*passed_over, *notes]
    if not held:
        return name, source, None, notes
    held_source, more = _opened(f"{name}/held out", held, source.classes)
    return name, source, held_source, notes + [line for line in more if line not in notes]


def _split(folder: Path, found: list[Path]) -> tuple[list[Path], list[Path]]:
    """Shards to train on, and those that are held out."""
    by = {
        split: [path for path in found if path.parent != folder and path.parent.name == split]
        or [path for path in found if path.parent == folder and path.name.startswith(split)]
        for split in ("train", *HELD_OUT_NAMES)
    }
    train = by.pop("train")
    held = next((paths for paths in by.values() if paths), [])
    rest = [path for path in found if not any(path in paths for paths in by.values())]
    return train or rest or held, held if train or rest else []


def _opened(name: str, paths: list[Path], classes: list[str] | None) -> tuple[LazySource, list[str]]:
    index = open_tar_index(paths)
    items, facts = TarMembers(paths, index), index.facts
    skipped: dict[str, str] = dict(facts["faults"])
    if not len(items):
        why = "; ".join(left_out(skipped)) or "they are empty archives"
        where = f"{len(paths):,} shards, as {paths[0]}" if len(paths) > 1 else str(paths[0])
        raise DataError(f"no images in {where}: {why}")
    labels, own = index.arrays.get("labels"), facts["classes"]
    labels, own = numbered_as(classes, labels, own)
    source = LazySource(
        name=name,
        items=items,
        index=np.arange(len(items)),
        labels=labels,
        classes=own,
        skipped=skipped,
        streamed=True,
        lost=int(facts["lost"]),
    )
    labelled = "unlabelled" if labels is None else "labels from cls or json"
    shards = "1 tar shard" if len(paths) == 1 else f"{len(paths):,} tar shards"
    notes = [f"{len(items):,} images in {shards}, {labelled}", *left_out(skipped)]
    if facts["more"] > MOST_NAMED:
        notes.append(f"{facts['more']:,} further images of samples are left out in all")
    if facts["unusable"]:
        notes.append(
            f"{facts['unlabelled']:,} of {len(items):,} images have no usable label, as {facts['unusable']}"
        )
    return source, notes + index_notes(index, "every process indexes the shards")
