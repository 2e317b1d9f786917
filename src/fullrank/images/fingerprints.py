"""Fingerprints of data, by which a run knows its images again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from fullrank.images.sources import Data, LazySource, MemorySource, Source

PIXEL_BYTES = 64_000_000  # of decoded images that are hashed; of more evenly spaced ones
MOST_PARTS = 4096  # files that have a digest of their own


@runtime_checkable
class Fingerprinted(Protocol):
    """Items that tell what they are without reading images."""

    def fingerprint(self) -> dict[str, str]:
        """Digests by what they are of, in the order of the images."""


def digest(*parts: bytes) -> str:
    """Digest of some bytes, short enough to keep one for every shard.

    Example:
        >>> digest(b"ab", b"c") == digest(b"ab", b"c") != digest(b"a", b"bc")
        True
    """
    found = hashlib.sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.hexdigest()[:16]


def file_digests(files: Sequence[str | Path], digests: Iterable[str]) -> dict[str, str]:
    """Digests of files, in order, by their names below the folder that all lie in.

    Example:
        >>> file_digests(["/data/a/1.tar", "/data/b/1.tar"], ["9f", "c0"])
        {'a/1.tar': '9f', 'b/1.tar': 'c0'}
    """
    parts = [os.fspath(file).split("/") for file in files]
    levels = list(zip(*(each[:-1] for each in parts), strict=False))
    shared = next((i for i, level in enumerate(levels) if len(set(level)) > 1), len(levels))
    names = ["/".join(each[shared:]) for each in parts]
    found = dict(zip(names, digests, strict=True))
    if len(found) <= MOST_PARTS:
        return found
    return {
        "files": digest(*(f"{name}\0{each}".encode(errors="surrogateescape") for name, each in found.items()))
    }


def fingerprint_of(source: Source) -> dict[str, str]:
    """Digests of files or pixels of a source; empty where neither is cheap.

    Example:
        >>> import torch
        >>> black = MemorySource(name="black", images=torch.zeros(8, 3, 4, 4, dtype=torch.uint8))
        >>> list(fingerprint_of(black))
        ['pixels']
    """
    if isinstance(source, MemorySource):
        n = len(source)
        most = max(1, PIXEL_BYTES * n // max(source.nbytes, 1))
        chosen = np.unique(np.linspace(0, n - 1, min(n, most)).astype(np.int64))
        pixels = source.images[chosen.tolist()].cpu().contiguous().numpy()
        return {"pixels": digest(str(tuple(source.images.shape)).encode(), pixels.tobytes())}
    if isinstance(source, LazySource) and isinstance(source.items, Fingerprinted):
        return source.items.fingerprint()
    return {}


def fingerprint_of_choice(data: Data) -> dict[str, str]:
    """Digests of what was opened, of the images chosen from it, and of their labels.

    Example:
        >>> import torch
        >>> black = MemorySource(name="black", images=torch.zeros(8, 3, 4, 4, dtype=torch.uint8))
        >>> list(fingerprint_of_choice(Data("black", black, black.subset(np.arange(2)))))
        ['train: chosen pixels', 'held out: chosen pixels']
    """
    found = dict(data.fingerprint)
    for split, source in (("train", data.train), ("held out", data.held_out)):
        found |= {f"{split}: {of}": each for of, each in _of_choice(source).items()}
    return found


def _of_choice(source: Source) -> dict[str, str]:
    found = {}
    if isinstance(source, MemorySource):
        found = {f"chosen {of}": each for of, each in fingerprint_of(source).items()}
    elif isinstance(source, LazySource):
        found = {"choice of images": digest(np.asarray(source.index, np.int64).tobytes())}
    if source.labels is not None:
        found["labels"] = digest(np.asarray(source.labels, np.int64).tobytes())
    return found


def difference(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """What two fingerprints differ in, for a message; nothing where they do not.

    Example:
        >>> difference({"0.tar": "9f", "1.tar": "c0"}, {"0.tar": "9f", "1.tar": "aa"})
        '1.tar'
        >>> difference({"0.tar": "9f"}, {"1.tar": "9f"})
        '0.tar is gone and 1.tar is new'
    """
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    if gone or new:
        return " and ".join(_named(names, state) for names, state in ((gone, "gone"), (new, "new")) if names)
    changed = [name for name, each in before.items() if now[name] != each]
    if changed:
        return changed[0] + (f" and {len(changed) - 1:,} more" if len(changed) > 1 else "")
    return "" if list(before) == list(now) else "the order of the files"


def _named(names: Sequence[str], state: str) -> str:
    more = f" and {len(names) - 1:,} more are" if len(names) > 1 else " is"
    return f"{names[0]}{more} {state}"
