"""Opening of data by name or folder, with images held out."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np

from fullrank.errors import DataError, UnknownNameError, UsageError
from fullrank.images.materialize import materialize
from fullrank.images.named import DATA, open_folder, open_named
from fullrank.images.sources import Data, LazySource, MemorySource, Source

HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 10_000  # where a data set has no such split of its own


def data_root() -> Path:
    """Folder of the named data sets: `$FULLRANK_DATA`, else `~/.cache/fullrank/data`.

    Example:
        >>> data_root().is_absolute() or "FULLRANK_DATA" in os.environ
        True
    """
    return Path(os.environ.get("FULLRANK_DATA") or "~/.cache/fullrank/data").expanduser()


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
) -> Data:
    """Open the images to train on and the images held out.

    Images of one size, and all images where `image_size` is given (then resized to cover it and centre
    cropped, once), are decoded into memory if they fit there, and whatever cannot be decoded is left out.
    Other images stay encoded: the headers of up to 2,000 are checked now, and the rest of the corrupt ones
    are met, replaced and counted while training (see `Batches`).

    Args:
        spec: a name in `DATA`; a folder of images or parquet files; or one parquet file.
        image_size: height and width in pixels that images are wanted at; None leaves them as they are.
        limit: train on this many images only, a fixed random choice (smaller ones lie within larger ones),
            and hold out at most as many.
        download: fetch a named data set that is not under `root`.
        root: the folder that named data sets lie under; None is `data_root()`.
        max_corrupt: largest tolerated share of images that cannot be decoded.
        seed: of the choice of `limit`, and of the tenth that is held out where the data set has no val or
            test split.
        memory_limit_bytes: for all decoded images together.

    Raises:
        UnknownNameError: neither a known name nor a folder.
        DataError: not there, not reachable, empty, or more corrupt than tolerated.
        UsageError: `limit`, `image_size` or `max_corrupt` makes no sense.

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

    name, train, held_out, notes = _open(
        spec, Path(root).expanduser() if root else data_root(), download, image_size
    )
    if not len(train):
        raise DataError(f"{spec} has no training images")
    if held_out is None or not len(held_out):
        train, held_out = _split_off(train, seed)
        notes.append(f"{len(held_out):,} random images are held out: there is no val or test split")
    if limit is not None and limit < len(train):
        notes.append(f"a random {limit:,} of {len(train):,} training images")
    train, held_out = _limited(train, limit, seed), _limited(held_out, limit, seed)

    if isinstance(train, LazySource) and isinstance(held_out, LazySource):
        train, held_out, more = materialize(train, held_out, image_size, max_corrupt, memory_limit_bytes)
        notes += more
    elif isinstance(train, MemorySource) and isinstance(held_out, MemorySource) and image_size:
        train, held_out = train.resized(image_size), held_out.resized(image_size)
    return Data(name, train, held_out, notes)


def _open(
    spec: str, root: Path, download: bool, image_size: int | None
) -> tuple[str, Source, Source | None, list[str]]:
    if spec in DATA:
        return spec, *open_named(spec, root, download, image_size)
    path = Path(spec).expanduser()
    if not path.exists() and "/" not in spec and not spec.startswith((".", "~")):
        raise UnknownNameError("data set", spec, DATA, hint="or pass a folder of images or .parquet files")
    return path.resolve().name.removesuffix(".parquet"), *open_folder(path)


def _split_off(train: Source, seed: int) -> tuple[Source, Source]:
    n = len(train)
    if n < 2:
        raise DataError(
            f"{train.name} has {n} image; at least 2 are needed, one to train on and one held out"
        )
    order = np.random.default_rng([seed, 1]).permutation(n)
    held = min(max(int(HELD_OUT_SHARE * n), 1), HELD_OUT_MOST)
    rest, chosen = np.sort(order[held:]), np.sort(order[:held])
    return train.subset(rest), train.subset(chosen, train.name.removesuffix("/train") + "/held out")


def _limited(source: Source, limit: int | None, seed: int) -> Source:
    if limit is None or limit >= len(source):
        return source
    return source.subset(np.sort(np.random.default_rng([seed, 2]).permutation(len(source))[:limit]))
