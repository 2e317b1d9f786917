"""Features in a folder: what `fullrank embed` writes, and how it is opened again.

    F/embed.json            what was embedded, with which network, from which images, in which layout
    F/train.safetensors     one file a split: a tensor a tap, `labels` and `indices`; the header is provenance
    F/test.safetensors      or test.parquet, or a folder test/ with TAP.npy, labels.npy and indices.npy

Example:
    >>> import tempfile, torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     writer = StoreWriter(Path(folder), "train", {"subject": "noise", "taps": ["features"]})
    ...     writer.add({"features": torch.ones(3, 2)}, torch.arange(3), None, images=3)
    ...     _ = writer.finish({"classes": None})
    ...     stored = open_stored(Path(folder))["train"]
    ...     stored.rows["features"].shape, stored.indices.tolist(), stored.provenance["subject"]
    (torch.Size([3, 2]), [0, 1, 2], 'noise')
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from fullrank.errors import DataError, UnknownNameError
from fullrank.features.layouts import INDICES, LABELS, LAYOUTS
from fullrank.features.shard_writer import SPLITS, StoreWriter, read_manifest, unfinished

__all__ = ["SPLITS", "StoreWriter", "Stored", "is_stored", "open_stored"]


@dataclass(frozen=True)
class Stored:
    """One split of one subject's features.

    Attributes:
        rows: by tap, float32 [n, d]; memory-mapped, but for parquet, which is read when a tap is asked for.
        labels: int64 [n], -1 where an image has none; None where no image has one.
        indices: int64 [n], which images of the split the rows are of. With k views k rows in turn have one.
        provenance: subject, data, split, taps, views, classes (names or None), image_size, mean, std,
            fullrank.
    """

    rows: Mapping[str, Tensor]
    labels: Tensor | None
    indices: Tensor
    provenance: Mapping[str, Any]


def is_stored(path: Path) -> bool:
    """Whether a path is a folder that `fullrank embed` wrote, finished or not.

    Example:
        >>> is_stored(Path("no such folder"))
        False
    """
    return path.is_dir() and read_manifest(path) is not None


def open_stored(path: Path) -> dict[str, Stored]:
    """The features in a folder that `fullrank embed` wrote, by split.

    Args:
        path: the folder.

    Returns:
        `train`, `test` or both, in this order.

    Raises:
        DataError: no such folder, a split that is not finished, or a damaged file.
    """
    manifest = read_manifest(path)
    if manifest is None:
        raise DataError(f"{path} holds no features of ours: `fullrank embed ... --out {path}` writes them")
    layout, found = LAYOUTS[manifest["layout"]], {}
    for split in SPLITS:
        file = layout.place(path, split)
        if unfinished(path, split):
            raise DataError(f"{path} is not finished: the same `fullrank embed` again goes on with {split}")
        if not file.exists():
            continue
        try:
            provenance, names, column = layout.open(file)
            labels = column(LABELS) if LABELS in names else None
            rows = _Taps([name for name in provenance["taps"] if name in names], column)
            found[split] = Stored(rows, labels, column(INDICES), provenance)
        except (OSError, ValueError, KeyError, struct.error) as error:
            raise DataError(f"{file} is damaged: {(str(error) or 'empty').splitlines()[0][:120]}") from error
    if not found:
        raise DataError(f"{path} is not finished: the same `fullrank embed` again goes on")
    return found


class _Taps(Mapping[str, Tensor]):
    """Matrices that are opened when they are asked for."""

    def __init__(self, names: Sequence[str], column: Callable[[str], Tensor]) -> None:
        self.names, self.column = names, column

    def __getitem__(self, tap: str) -> Tensor:
        if tap not in self.names:
            raise UnknownNameError("tap", tap, self.names)
        return self.column(tap)

    def __contains__(self, tap: object) -> bool:
        return tap in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)
