"""Opening of data by name or folder, with images held out and decoded if they fit."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import DataError, ImageError, UnknownNameError, UsageError
from fullrank.images.batch_loaders import corrupt_line
from fullrank.images.column_labels import require_class_numbers
from fullrank.images.decoding import fit, header_size, why_not_decoded
from fullrank.images.fingerprints import fingerprint_of
from fullrank.images.named import DATA, open_folder, open_named
from fullrank.images.skipped import first_three, left_out
from fullrank.images.sources import Data, Indices, LazySource, MemorySource, Source
from fullrank.images.streams import is_stream, open_stream
from fullrank.options import MAX_PIXELS
from fullrank.progress import report_progress
from fullrank.untrusted.paths import did_you_mean, expand_user, require_real_folder

T = TypeVar("T")
HEADERS_SURVEYED = 2_000  # enough to tell whether sizes differ; where many are corrupt, all are looked at
THREADS = min(4, os.cpu_count() or 1)  # PIL decodes outside the interpreter lock, but does much within it
HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 10_000  # where a data set has no such split of its own
HELD_OUT_LEAST = 40  # images, at most a third: a verdict needs 32 that can be decoded
FEWEST_JUDGED = 96  # images, from which a third is enough for a verdict


def data_root() -> Path:
    """Folder of the named data sets: `$FULLRANK_DATA`, else `~/.cache/fullrank/data`.

    Example:
        >>> data_root().is_absolute() or "FULLRANK_DATA" in os.environ
        True
    """
    return expand_user(os.environ.get("FULLRANK_DATA") or "~/.cache/fullrank/data")


def open_data(
    spec: str,
    *,
    image_size: int | None = None,
    limit: int | None = None,
    download: bool = False,
    root: Path | str | None = None,
    max_corrupt: float = 0.01,
    seed: int = 0,
    memory_limit_bytes: float = 2e9,
    max_pixels: int = MAX_PIXELS,
) -> Data:
    """Open the images to train on and the images held out.

    Images of one size, and all images where `image_size` is given (then resized to cover it and centre
    cropped, once), are decoded into memory if they fit there, and whatever cannot be decoded is left out.
    Other images stay encoded: the headers of up to 2,000 are checked now, and the rest of the corrupt ones
    are met, replaced and counted while training (see `Batches`).

    Args:
        spec: a name in `DATA`; a folder of images or parquet files; one parquet file; or images that are
            streamed: `shards:PATTERN`, `hub:NAME` or `litdata:FOLDER` (`open_stream`).
        image_size: height and width in pixels that images are wanted at; None leaves them as they are.
        limit: train on this many images only, a fixed random choice (smaller ones lie within larger ones),
            and hold out at most as many.
        download: fetch a named data set that is not under `root`.
        root: the folder that named data sets lie under; None is `data_root()`.
        max_corrupt: largest tolerated share of images that cannot be decoded.
        seed: of the choice of `limit`, and of the images that are held out where the data set has no val or
            test split: a tenth; of 96 to 400 images a third or 40, as a verdict needs 32.
        memory_limit_bytes: for all decoded images together.
        max_pixels: of one image, by its header; larger ones are left out and named, as corrupt ones are.

    Raises:
        UnknownNameError: neither a known name nor a folder.
        DataError: not there, not reachable, empty, or more corrupt than tolerated.
        UsageError: `limit`, `image_size`, `max_corrupt` or `max_pixels` makes no sense.

    Example:
        >>> data = open_data("shapes", limit=100)
        >>> len(data.train), len(data.held_out), data.train.image_size, data.notes
        (100, 100, (16, 16), ['a random 100 of 4,000 training images'])
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit} is not positive; leave it out to train on all images")
    if image_size is not None and image_size < 1:
        raise UsageError(f"image size {image_size} is not positive; pixels are meant, as in 32")
    if not 0 <= max_corrupt <= 1:
        raise UsageError(f"max_corrupt {max_corrupt} is not a share between 0 and 1")
    if max_pixels < 1:
        raise UsageError(f"max_pixels {max_pixels} is not positive; the default is {MAX_PIXELS:,}")

    place = expand_user(root) if root else data_root()
    name, train, held_out, notes = _open(spec, place, download, image_size)
    if not len(train):
        raise DataError(f"{spec} has no training images")
    require_class_numbers(train, held_out)
    fingerprint = {
        f"{split}: {of}": each
        for split, source in (("train", train), ("held out", held_out))
        for of, each in (fingerprint_of(source) if source is not None else {}).items()
    }
    if held_out is None or not len(held_out):
        train, held_out = _split_off(train, seed)
        kept = min(len(held_out), limit or len(held_out))
        images = "random image is" if kept == 1 else "random images are"
        notes.append(f"{kept:,} {images} held out: there is no val or test split")
    if limit is not None and limit < len(train):
        notes.append(f"a random {limit:,} of {len(train):,} training images")
    train, held_out = _limited(train, limit, seed), _limited(held_out, limit, seed)

    if isinstance(train, LazySource) and isinstance(held_out, LazySource):
        train, held_out = (replace(source, max_pixels=max_pixels) for source in (train, held_out))
        train, held_out, more = materialize(train, held_out, image_size, max_corrupt, memory_limit_bytes)
        notes += more
    elif isinstance(train, MemorySource) and isinstance(held_out, MemorySource) and image_size:
        train, held_out = train.resized(image_size), held_out.resized(image_size)
    return Data(name, train, held_out, notes, fingerprint)


def _open(
    spec: str, root: Path, download: bool, image_size: int | None
) -> tuple[str, Source, Source | None, list[str]]:
    if spec in DATA:
        return spec, *open_named(spec, root, download, image_size)
    if is_stream(spec):
        return open_stream(spec)
    path = require_real_folder(expand_user(spec))
    if not path.exists() and "/" not in spec and not spec.startswith((".", "~")):
        raise UnknownNameError(
            "data set", spec, DATA, hint=f"and there is no folder {path.absolute()}{did_you_mean(path)}"
        )
    return path.resolve().name.removesuffix(".parquet"), *open_folder(path)


def _split_off(train: Source, seed: int) -> tuple[Source, Source]:
    n = len(train)
    if n < 2:
        lost = "".join(f"; {line}" for line in left_out(train.skipped)[:3])
        name = train.name.removesuffix("/train")
        raise DataError(
            f"{name} has {n} image; at least 2 are needed, one to train on and one held out{lost}"
        )
    order = _at_random(train, np.random.default_rng([seed, 1]))
    judged = min(HELD_OUT_LEAST, n // 3) if n >= FEWEST_JUDGED else 1
    held = min(max(int(HELD_OUT_SHARE * n), judged), HELD_OUT_MOST)
    rest, chosen = np.sort(order[held:]), np.sort(order[:held])
    split_off = train.subset(chosen, train.name.removesuffix("/train") + "/held out")
    if isinstance(split_off, LazySource):
        split_off = replace(split_off, lost=0)  # which the others count
    return train.subset(rest), split_off


def _limited(source: Source, limit: int | None, seed: int) -> Source:
    if limit is None or limit >= len(source):
        return source
    chosen = source.subset(np.sort(_at_random(source, np.random.default_rng([seed, 2]))[:limit]))
    if isinstance(source, LazySource) and isinstance(chosen, LazySource):
        return replace(chosen, lost=round(source.lost * limit / len(source)))
    return chosen


def _at_random(source: Source, generator: np.random.Generator) -> Indices:
    """All images in an order whose beginning is a random choice that is cheap to read.

    That is whole row groups in random order, where reading one image reads its row group.
    """
    groups = source.groups if source.window else None
    if groups is None:
        return generator.permutation(len(source))
    names, place = np.unique(groups, return_inverse=True)
    return np.argsort(generator.permutation(len(names))[place], kind="stable")


def materialize(
    train: LazySource,
    held_out: LazySource,
    image_size: int | None,
    max_corrupt: float,
    memory_limit_bytes: float,
) -> tuple[Source, Source, list[str]]:
    """Decode both sources into memory where they fit; else check headers.

    Arguments are as of `open_data`; held-out images get the size of the training images. Returned are the
    sources, both in memory or lazy, without the corrupt images found so far, and notes.

    Raises:
        DataError: more images are corrupt than tolerated, or none are left.

    Example:
        >>> class Black:
        ...     def __len__(self): return 5
        ...     def __getitem__(self, i): return np.zeros((3, 4, 4), np.uint8) if i else b"not an image"
        ...     def where(self, i): return f"black {i}"
        >>> black = LazySource(name="black", items=Black(), index=np.arange(5))
        >>> train, held_out, notes = materialize(black, black.subset(np.array([2])), None, 0.2, 2e9)
        >>> type(train).__name__, len(train), len(held_out), notes
        ('MemorySource', 4, 1, ['1 of 6 images cannot be decoded: black 0; left out'])
    """
    lost = train.lost + held_out.lost
    total = len(train) + len(held_out) + lost
    sizes = Counter(size for size in _sizes(train, _surveyed(train)) if not isinstance(size, str))
    usual = sizes.most_common(1)[0][0] if sizes else (1, 1)  # no readable header: all are found corrupt below
    height, width = (image_size, image_size) if image_size else usual
    decoded_bytes = 3 * height * width * total
    fits = decoded_bytes <= memory_limit_bytes
    in_memory = fits and (image_size is not None or len(sizes) == 1) and not train.streamed

    done: list[Source] = []
    corrupt: dict[str, str] = {}
    for source in (train, held_out):
        if in_memory:
            kept, images, faults = _decoded(source, height, width)
            known = {name: getattr(source, name) for name in ("name", "classes", "mean", "std", "skipped")}
            done.append(MemorySource(images=images, labels=source.labels_at(kept), **known))
        else:
            kept, faults = _with_header(source, max_corrupt)
            done.append(replace(source.subset(kept), usual_size=(height, width)))
        corrupt |= {source.where(i): why for i, why in faults.items()}
        source.skipped.update(corrupt)

    line = corrupt_line(list(corrupt), total)
    bad = len(corrupt) + lost
    if bad > max_corrupt * total or not all(map(len, done)):
        why = Counter((corrupt or train.skipped).values()).most_common(1)[0][0]
        rule = f"the share may be {max_corrupt:.3g}: remove them, or raise --max-corrupt"
        line = f"{line}, and {_lost_line(lost, total, train.skipped)}" if corrupt and lost else line
        line = line if corrupt else _lost_line(lost, total, train.skipped)
        if bad <= max_corrupt * total:
            rule = f"none is left to {'hold out' if len(done[0]) else 'train on'}: remove them"
        raise DataError(f"{line} ({why}); {rule}")
    notes = [f"{line}; left out"] if corrupt else []
    if not in_memory and not train.streamed:
        why = "they differ in size" if fits else f"in memory they would take {decoded_bytes / 1e9:.1f} GB"
        notes.append(f"images are decoded on demand: {why}")
    tolerance = int(max_corrupt * total) - bad
    first, second = (
        replace(source, tolerance=tolerance) if isinstance(source, LazySource) else source for source in done
    )
    return first, second, notes


def _lost_line(lost: int, total: int, skipped: Mapping[str, str]) -> str:
    return (
        f"about {lost:,} of {total:,} images are missing or lie in damaged shards: {first_three([*skipped])}"
    )


def _decoded(source: LazySource, height: int, width: int) -> tuple[Indices, Tensor, dict[int, str]]:
    """Decode the images that can be: indices, uint8 [k, 3, h, w], faults of others."""
    images = torch.empty(len(source), 3, height, width, dtype=torch.uint8)

    def fault_of(i: int) -> str:
        try:
            images[i] = fit(source.load(i), height, width)
        except ImageError as error:
            return error.why
        return ""

    faults = {
        i: why
        for i, why in enumerate(_in_threads(fault_of, np.arange(len(source)), "decoding images"))
        if why
    }
    kept = np.setdiff1d(np.arange(len(source)), list(faults))
    return kept, images[torch.from_numpy(kept)] if faults else images, faults


def _with_header(source: LazySource, max_corrupt: float) -> tuple[Indices, dict[int, str]]:
    """List the images but for those surveyed that have no readable header, and why."""
    chosen = _surveyed(source)
    sizes = _sizes(source, chosen)
    if sum(isinstance(size, str) for size in sizes) > max_corrupt * len(chosen):
        chosen = np.arange(len(source))
        sizes = _sizes(source, chosen)
    faults = {int(i): size for i, size in zip(chosen, sizes, strict=True) if isinstance(size, str)}
    return np.setdiff1d(np.arange(len(source)), list(faults)), faults


def _surveyed(source: LazySource) -> Indices:
    every = np.arange(len(source))
    if len(every) <= HEADERS_SURVEYED:
        return every
    if source.window:  # a few whole row groups: one image costs as much as they all
        return np.sort(_at_random(source, np.random.default_rng(0))[: HEADERS_SURVEYED // 4])
    return np.random.default_rng(0).choice(every, HEADERS_SURVEYED, replace=False)


def _sizes(source: LazySource, indices: Indices) -> list[tuple[int, int] | str]:
    """Height and width in pixels from each header, or why it cannot be read."""

    def size_or_fault(i: int) -> tuple[int, int] | str:
        try:
            return header_size(source.items[int(source.index[i])], source.max_pixels)
        except Exception as error:  # as in LazySource.load: whatever the parser stumbles with
            return why_not_decoded(error)

    return _in_threads(size_or_fault, indices, "reading headers")


def _in_threads(function: Callable[[int], T], indices: Indices, task: str) -> list[T]:
    chunks = np.array_split(indices, len(indices) // 256 + 1)  # one task per image would cost too much
    with ThreadPoolExecutor(THREADS) as pool:
        results: list[T] = []
        for several in pool.map(lambda chunk: [function(int(i)) for i in chunk], chunks):
            results += several
            report_progress(task, len(results), len(indices))
        return results
