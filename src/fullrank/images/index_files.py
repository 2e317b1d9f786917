"""Index files of large data, built once and mapped by all processes."""

from __future__ import annotations

import hashlib
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.atomic import replacing
from fullrank.errors import DataError, first_line
from fullrank.untrusted.parsing import parse_json, refusing
from fullrank.untrusted.paths import require_regular

try:
    import fcntl
except ImportError:  # not on Windows, where processes that start together each build it
    fcntl = None  # type: ignore[assignment]

FORMAT = "fullrank-index-2"
_DTYPES = {"U8": np.uint8, "I32": np.int32, "U32": np.uint32, "I64": np.int64}


def index_root() -> Path:
    """Folder of index files: `$FULLRANK_INDEX`, else `fullrank/indexes` of the caches.

    Example:
        >>> index_root().name in ("indexes", Path(os.environ.get("FULLRANK_INDEX") or "indexes").name)
        True
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "fullrank" / "indexes"
    return Path(os.environ.get("FULLRANK_INDEX") or cache).expanduser()


@dataclass(frozen=True, eq=False)
class Index:
    """Arrays and facts of an index.

    Attributes:
        arrays: one-dimensional, mapped from `path` where there is one.
        facts: what is small: names, counts, reasons.
        path: the file; None where the arrays are in memory. With it, pickles hold its name alone.
        digest: of what the file held when it was written; empty without one.
    """

    arrays: Mapping[str, np.ndarray]
    facts: Mapping[str, Any]
    path: Path | None = None
    digest: str = ""

    def __reduce__(self) -> tuple[Callable[..., Index], tuple[Any, ...]]:
        """Pickle the path only: a worker process maps the file itself."""
        if self.path is None:
            return Index, (dict(self.arrays), dict(self.facts))
        return read_index, (self.path,)


Build = Callable[[], tuple[Mapping[str, np.ndarray], Mapping[str, Any]]]


def open_index(
    kind: str, place: str, is_current: Callable[[Index], bool], build: Build, least: int = 0
) -> Index:
    """Map the index of a place, built first where there is none that is current.

    Of several processes one builds it, and the others wait for its file.

    Args:
        kind: of index, as "tar"; part of the file's name.
        place: what is indexed; likewise.
        is_current: whether an index is of the data as it lies there now.
        build: makes the arrays and the facts.
        least: values of the longest array from which it is written to a file.

    Returns:
        The index, in memory where it is short, or where the folder of index files cannot be written: then
        `facts` has the reason under "unwritten". Where a damaged one was built anew they have a line under
        "damaged_index".

    Example:
        >>> build = lambda: ({"sizes": np.arange(3)}, {"names": "abc"})
        >>> index = open_index("example", "here", lambda index: True, build, least=10)
        >>> index.arrays["sizes"].tolist(), index.facts, index.path
        ([0, 1, 2], {'names': 'abc'}, None)
    """
    digest = hashlib.sha256(os.fsencode(f"{FORMAT}\0{kind}\0{place}")).hexdigest()[:24]
    path = index_root() / f"{kind}-{digest}.safetensors"
    known, _ = _current(path, is_current)
    if known is not None:
        return known
    with _building(path):
        known, damage = _current(path, is_current)
        if known is not None:  # which another process built meanwhile
            return known
        arrays, facts = build()
        damaged = {"damaged_index": damage} if damage else {}
        if max(map(len, arrays.values()), default=0) < least or facts.get("unsettled"):
            return Index(arrays, {**facts, **damaged})
        try:
            _write(path, arrays, facts)
            written = read_index(path)
            return replace(written, facts={**written.facts, **damaged})
        except OSError as error:
            why = f"{path.parent} cannot be written ({error.strerror or first_line(error)})"
            return Index(arrays, {**facts, "unwritten": why})


def read_index(path: Path) -> Index:
    """Map an index file.

    Raises:
        DataError: no such file, of another format, or damaged.
    """
    size = require_regular(path).stat().st_size
    with refusing(f"{path} is no index, or damaged"):
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 0 < length <= size - 8:
                raise ValueError("its header is longer than the file")
            header = parse_json(file.read(length).decode("utf-8"), str(path))
        said = header.pop("__metadata__")
        if said["format"] != FORMAT:
            raise ValueError(f"its format is {said['format']}")
        raw = np.asarray(np.memmap(path, np.uint8, "r"))
        arrays = {name: _array(raw, 8 + length, entry) for name, entry in header.items()}
        return Index(arrays, json.loads(said["facts"]), path, said["digest"])


def _array(raw: np.ndarray, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= len(raw) - start:
        raise ValueError("an array reaches beyond the file")
    found = raw[start + first : start + last].view(_DTYPES[entry["dtype"]])
    if [len(found)] != entry["shape"]:
        raise ValueError("an array is shorter than its header says")
    return found


def index_notes(index: Index, each: str) -> list[str]:
    """Notes on an index that was damaged or is not written; `each` does the work."""
    damage, unwritten = index.facts.get("damaged_index"), index.facts.get("unwritten")
    return ([str(damage)] if damage else []) + ([f"{each} for itself: {unwritten}"] if unwritten else [])


def _current(path: Path, is_current: Callable[[Index], bool]) -> tuple[Index | None, str]:
    """The index of a file, if sound and current; and a line if it is damaged."""
    if not path.exists():
        return None, ""
    try:
        index = read_index(path)
        with refusing(f"{path} is damaged"):
            if index.digest != _digest(index.arrays, json.dumps(index.facts)):
                raise ValueError("its bytes are not those that were written")
    except DataError:  # cut by a disk that was full, or altered since
        return None, f"the index {path} was damaged, and is built anew"
    return (index if is_current(index) else None), ""


def _digest(arrays: Mapping[str, np.ndarray], facts: str) -> str:
    """Checksum of an index, quick enough to read whenever data is opened."""
    found = zlib.crc32(facts.encode())
    for name in sorted(arrays):
        content = np.ascontiguousarray(arrays[name])
        found = zlib.crc32(f"{name} {content.dtype} {len(content)}".encode(), found)
        found = zlib.crc32(content.view(np.uint8).data, found)
    return f"{found:08x}"


def _write(path: Path, arrays: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
    from safetensors.numpy import save

    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as file:
        said = json.dumps(facts)
        file.write(save(whole, {"format": FORMAT, "facts": said, "digest": _digest(whole, said)}))


@contextmanager
def _building(path: Path) -> Iterator[None]:
    """Wait until no other process builds the same index; a dead one's lock is free."""
    descriptor = None
    with suppress(OSError):  # a folder that cannot be written, a file system without locks
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
