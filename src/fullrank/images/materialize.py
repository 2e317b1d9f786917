"""Decoding into memory what fits there, and leaving out what is corrupt."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import DataError
from fullrank.images.batch_loaders import corrupt_line
from fullrank.images.decoding import fit, header_size
from fullrank.images.sources import Indices, LazySource, MemorySource, Source

T = TypeVar("T")

HEADERS_SURVEYED = 2_000  # enough to tell whether sizes differ; where many are corrupt, all are looked at
THREADS = min(4, os.cpu_count() or 1)  # PIL decodes outside the interpreter lock, but does much within it


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
    total = len(train) + len(held_out)
    sizes = Counter(size for size in _sizes(train, _surveyed(train)) if size)
    usual = sizes.most_common(1)[0][0] if sizes else (1, 1)  # no readable header: all are found corrupt below
    height, width = (image_size, image_size) if image_size else usual
    decoded_bytes = 3 * height * width * total
    fits = decoded_bytes <= memory_limit_bytes
    in_memory = fits and (image_size is not None or len(sizes) == 1)

    done: list[Source] = []
    corrupt: list[str] = []
    for source in (train, held_out):
        if in_memory:
            kept, images = _decoded(source, height, width)
            known = {name: getattr(source, name) for name in ("name", "classes", "mean", "std")}
            done.append(MemorySource(images=images, labels=source.labels_at(kept), **known))
        else:
            kept = _with_header(source, max_corrupt)
            done.append(replace(source.subset(kept), usual_size=(height, width)))
        corrupt += [source.where(int(i)) for i in np.setdiff1d(np.arange(len(source)), kept)]

    line = corrupt_line(corrupt, total)
    if len(corrupt) > max_corrupt * total or not all(map(len, done)):
        raise DataError(f"{line}; the share may be {max_corrupt:.3g}: remove them, or raise --max-corrupt")
    notes = [f"{line}; left out"] if corrupt else []
    if not in_memory:
        why = "they differ in size" if fits else f"in memory they would take {decoded_bytes / 1e9:.1f} GB"
        notes.append(f"images are decoded on demand: {why}")
    tolerance = int(max_corrupt * total) - len(corrupt)
    first, second = (
        replace(source, tolerance=tolerance) if isinstance(source, LazySource) else source for source in done
    )
    return first, second, notes


def _decoded(source: LazySource, height: int, width: int) -> tuple[Indices, Tensor]:
    """Decode all images that can be: their indices, and uint8 [k, 3, height, width]."""
    images = torch.empty(len(source), 3, height, width, dtype=torch.uint8)

    def decode_into(i: int) -> bool:
        try:
            images[i] = fit(source.load(i), height, width)
        except DataError:
            return False
        return True

    kept = np.flatnonzero(_in_threads(decode_into, np.arange(len(source))))
    return kept, images if len(kept) == len(source) else images[torch.from_numpy(kept)]


def _with_header(source: LazySource, max_corrupt: float) -> Indices:
    """List the images but for those surveyed that have no readable header."""
    chosen = _surveyed(source)
    broken = [size is None for size in _sizes(source, chosen)]
    if sum(broken) > max_corrupt * len(chosen):
        chosen = np.arange(len(source))
        broken = [size is None for size in _sizes(source, chosen)]
    return np.setdiff1d(np.arange(len(source)), chosen[broken])


def _surveyed(source: LazySource) -> Indices:
    every = np.arange(len(source))
    if len(every) <= HEADERS_SURVEYED:
        return every
    return np.random.default_rng(0).choice(every, HEADERS_SURVEYED, replace=False)


def _sizes(source: LazySource, indices: Indices) -> list[tuple[int, int] | None]:
    """Height and width in pixels from each header, or None where it cannot be read."""

    def size_or_none(i: int) -> tuple[int, int] | None:
        try:
            return header_size(source.items[int(source.index[i])])
        except Exception:  # as in LazySource.load: whatever the parser stumbles with
            return None

    return _in_threads(size_or_none, indices)


def _in_threads(function: Callable[[int], T], indices: Indices) -> list[T]:
    chunks = np.array_split(indices, len(indices) // 256 + 1)  # one task per image would cost too much
    with ThreadPoolExecutor(THREADS) as pool:
        results = pool.map(lambda chunk: [function(int(i)) for i in chunk], chunks)
        return [result for several in results for result in several]
