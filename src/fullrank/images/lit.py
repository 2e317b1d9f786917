"""Folders that litdata has optimised: images read from the middle of its chunks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fullrank.errors import DataError, UsageError, printable, require_packages
from fullrank.images.decoding import Encoded, why_not_decoded
from fullrank.images.fingerprints import digest
from fullrank.images.index_files import Index, index_notes, open_index
from fullrank.images.shard_labels import Label, numbered, numbered_as
from fullrank.images.skipped import left_out
from fullrank.images.sources import Indices, LazySource
from fullrank.progress import report_progress
from fullrank.untrusted.parsing import read_json, refusing
from fullrank.untrusted.paths import expand_user, require_real_folder, require_regular

HELD_OUT_NAMES = ("val", "valid", "validation", "test")
IMAGE_KEYS = ("image", "img", "jpg", "jpeg", "png", "images")
LABEL_KEYS = ("label", "cls", "class", "target", "fine_label", "labels")
READ = frozenset(
    {
        *("str", "text", "bool", "int", "float", "pil", "jpeg", "bytes", "numpy", "no_header_numpy"),
        *("tensor", "no_header_tensor", "json"),
    }
)
"""Formats of litdata that are read; others may run code, as `pickle`, or hold no images."""


class Chunks:
    """Items of a folder of litdata's chunks, as items of a `LazySource`."""

    window = 0  # any item can be read by itself

    def __init__(self, folder: Path, index: Index) -> None:
        self.folder, self.index = folder, index
        self.starts: Indices = index.arrays["starts"]
        self._kept = index.arrays["kept"]
        self._lock = threading.Lock()
        self._owner, self._dataset = 0, None

    def __reduce__(self) -> tuple[Callable[..., Chunks], tuple[Path, Index]]:
        """Pickle the names: another process opens the chunks itself."""
        return Chunks, (self.folder, self.index)

    def __len__(self) -> int:
        return len(self._kept)

    def __getitem__(self, i: int) -> Encoded:
        """Encoded image of item `i`, or its pixels where the chunks hold these."""
        with self._lock:
            if self._owner != os.getpid():  # what was opened before a fork is not shared
                self._owner, self._dataset = os.getpid(), _dataset(self.folder)
            item = self._dataset[int(self._kept[i])]  # type: ignore[index]
        return image_of(item)

    def fingerprint(self) -> dict[str, str]:
        """See `Fingerprinted`: what litdata lists of its chunks."""
        return {"index.json": digest((self.folder / "index.json").read_bytes())}

    def where(self, i: int) -> str:
        """Folder and item of image `i`, for messages."""
        return printable(f"{self.folder} item {int(self._kept[i])}")


def open_litdata(address: str) -> tuple[str, LazySource, LazySource | None, list[str]]:
    """Open a folder of `litdata.optimize` by what stands behind `litdata:`.

    With `train/` inside, that is the training set, and the first of `val/`, `valid/`, `validation/`, `test/`
    is held out.

    Raises:
        UsageError: litdata is not installed.
        DataError: no such folder, or one that is compressed, encrypted, pickled or without images.
    """
    require_packages("litdata")
    folder = require_real_folder(expand_user(address))
    if not folder.is_dir():
        raise DataError(f"litdata:{address} is no folder of this machine; copy or mount it")
    train = folder / "train" if (folder / "train" / "index.json").is_file() else folder
    beside = [folder / name for name in HELD_OUT_NAMES] if train != folder else []
    held = next((path for path in beside if (path / "index.json").is_file()), None)
    source, notes = _opened(f"{folder.name}/train", train, None)
    if held is None:
        return folder.resolve().name, source, None, notes
    held_source, more = _opened(f"{folder.name}/{held.name}", held, source.classes)
    return folder.resolve().name, source, held_source, notes + more


def image_of(item: Any) -> Encoded:
    """The image in an item: of a mapping by its name, else the first that can be one.

    Example:
        >>> image_of({"label": 3, "image": b"..."}), image_of((np.zeros((4, 5, 3), np.uint8), 1)).shape
        (b'...', (3, 4, 5))

    Raises:
        OSError: there is none.
    """
    if isinstance(item, Mapping):
        values = [item[key] for key in IMAGE_KEYS if key in item] or list(item.values())
    else:
        values = list(item) if isinstance(item, list | tuple) else [item]
    for value in values:
        if isinstance(value, bytes | bytearray | memoryview):
            return bytes(value)
        pixels = np.asarray(value.convert("RGB") if hasattr(value, "convert") else value)
        if pixels.dtype == np.uint8 and pixels.ndim == 3 and 3 in (pixels.shape[0], pixels.shape[2]):
            return pixels if pixels.shape[0] == 3 else pixels.transpose(2, 0, 1)
    raise OSError("the item holds no image")


def _label_of(item: Any) -> Label:
    if isinstance(item, Mapping):
        value: Any = next((item[key] for key in LABEL_KEYS if key in item), None)
    else:
        value = item[1] if isinstance(item, list | tuple) and len(item) > 1 else None
    if isinstance(value, str):
        return printable(value)[:200]
    if isinstance(value, bool) or not hasattr(value, "__int__") or np.ndim(value):
        return None
    number = int(value)
    return number if 0 <= number < 1 << 31 else None


def _opened(name: str, folder: Path, classes: list[str] | None) -> tuple[LazySource, list[str]]:
    index = _open_chunk_index(folder)
    items, facts = Chunks(folder, index), index.facts
    if not len(items):
        raise DataError(f"{folder} holds no image that can be read: {'; '.join(left_out(facts['faults']))}")
    labels, own = index.arrays.get("labels"), facts["classes"]
    labels, own = numbered_as(classes, labels, own)
    source = LazySource(
        name=name,
        items=items,
        index=np.arange(len(items)),
        labels=labels,
        classes=own,
        skipped=dict(facts["faults"]),
        streamed=True,
        lost=int(facts["lost"]),
    )
    labelled = "unlabelled" if labels is None else "with labels"
    notes = [f"{len(items):,} images in {len(facts['stamps']) - 1:,} chunks of litdata, {labelled}"]
    notes += index_notes(index, "every process reads the labels")
    return source, notes + left_out(facts["faults"])


def _open_chunk_index(folder: Path) -> Index:
    """Labels of the items, and which can be read; it holds while the files do."""
    chunks = _checked_chunks(folder)
    files = [folder / "index.json", *(folder / name for name, _, _ in chunks)]
    stamps = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]

    def build() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        dataset, faults = _dataset(folder), dict[str, str]()
        kept, labels, counts = list[int](), list[Label](), [0] * len(chunks)
        item = 0
        lost = 0
        for number, (name, size, least) in enumerate(chunks):
            if (there := (folder / name).stat().st_size) < least:  # litdata would wait for the rest
                faults[printable(f"{folder / name}")] = f"it is cut short: {there:,} of {least:,} bytes"
                item, lost = item + size, lost + size
                continue
            for _ in range(size):
                try:
                    found = dataset[item]
                    image_of(found)
                except Exception as error:  # of bytes of any kind
                    faults[printable(f"{folder} item {item}")] = why_not_decoded(error)
                    lost += 1
                else:
                    kept.append(item)
                    labels.append(_label_of(found))
                    counts[number] += 1
                item += 1
            report_progress("reading labels", number + 1, len(chunks))
        known, classes = numbered(labels)
        arrays = {"kept": np.array(kept, np.int64), "starts": np.cumsum([0, *counts], dtype=np.int64)}
        arrays |= {} if known is None else {"labels": known}
        return arrays, {"stamps": stamps, "classes": classes, "faults": faults, "lost": lost}

    place = str(folder.resolve())
    return open_index("litdata", place, lambda index: index.facts.get("stamps") == stamps, build)


def _checked_chunks(folder: Path) -> list[tuple[str, int, int]]:
    """Name, items and bytes of each chunk, once nothing in them can run code.

    Raises:
        DataError: see `open_litdata`.
    """
    path = folder / "index.json"
    if not path.exists():
        raise DataError(f"{folder} has no index.json: it is no folder that litdata.optimize has written")
    with refusing(f"{path} is no index of litdata, or damaged"):
        said = read_json(path)
        config = said["config"]
        formats = [str(kind).partition(":")[0] for kind in config["data_format"]]
        keys = ("filename", "chunk_size", "chunk_bytes")
        rows = [[chunk[key] for key in keys] for chunk in said["chunks"]]
        chunks = [(str(name), int(size), int(least)) for name, size, least in rows]
    if refused := sorted(set(formats) - READ):
        raise DataError(
            f"{folder} holds items as {', '.join(refused)[:80]}, which are not read here (pickles can run "
            f"code): write images as JPEG bytes, PIL images or uint8 arrays, and labels as numbers"
        )
    for what in ("compression", "encryption"):
        if config.get(what):
            raise DataError(f"{folder} has {what}: write it without (images are compressed already)")
    for name, _, _ in chunks:
        if Path(name).name != name:
            raise DataError(f"{path} names a chunk outside its folder: {printable(name)[:80]}")
        require_regular(folder / name)
    return chunks


def _dataset(folder: Path) -> Any:
    """litdata's own reader, which leaves JPEGs encoded and unpickles nothing."""
    os.environ.setdefault("LITDATA_DISABLE_VERSION_CHECK", "1")  # it would ask a registry
    import litdata
    from litdata.streaming.serializers import Serializer

    class Bytes(Serializer):  # type: ignore[misc]
        def serialize(self, data: Any) -> Any:
            return bytes(data), None

        def deserialize(self, data: Any) -> bytes:
            return bytes(data)

        def can_serialize(self, data: Any) -> bool:
            return False

    class Refused(Bytes):
        def deserialize(self, data: Any) -> bytes:
            raise UsageError("pickles are never read")

    own = {"jpeg": Bytes(), "pickle": Refused()}
    return litdata.StreamingDataset(str(folder.resolve()), shuffle=False, serializers=own)
