"""CIFAR and STL-10 as torchvision downloads and stores them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch

from fullrank.errors import DataError
from fullrank.images.sources import Indices, LazySource, MemorySource

STL_BYTES = 3 * 96 * 96  # of one image


def open_cifar(
    kind: Literal["CIFAR10", "CIFAR100"], folder: Path, download: bool
) -> tuple[MemorySource, MemorySource] | None:
    """Open CIFAR's training and test images from the checksummed batches in `folder`.

    With `download`, they are put there first where they are missing; else None is returned. DataError says
    that files are missing or their checksums are wrong.

    Example:
        >>> open_cifar("CIFAR10", Path("nowhere"), download=False) is None
        True
    """
    import torchvision.datasets

    reader = getattr(torchvision.datasets, kind)
    if not download and not (folder / reader.base_folder).is_dir():
        return None

    def split(train: bool) -> MemorySource:
        try:
            cifar = reader(folder, train=train, download=download)
        except RuntimeError as error:
            raise DataError(
                f"{folder / reader.base_folder} is incomplete; remove it and add --download"
            ) from error
        images = torch.from_numpy(cifar.data).permute(0, 3, 1, 2).contiguous()
        labels = np.array(cifar.targets, np.int64)
        return MemorySource(name=kind, images=images, labels=labels, classes=cifar.classes)

    return split(True), split(False)


def open_stl10(folder: Path, download: bool) -> tuple[LazySource, LazySource] | None:
    """Open STL-10: 105,000 training images, 5,000 labelled, and 8,000 test images.

    Unlabelled images have the label -1. With `download`, the files are put into the folder first (2.6 GB)
    where they are missing; else None is returned. DataError says that some are missing.
    """
    from torchvision.datasets import STL10

    if download:
        STL10(folder, split="test", download=True)
    files = folder / STL10.base_folder
    if not files.is_dir():
        return None

    def split(*parts: str) -> LazySource:
        items = StlRows([files / f"{part}_X.bin" for part in parts])
        labels = np.full(len(items), -1, np.int64)
        known: Indices = np.fromfile(files / f"{parts[0]}_y.bin", np.uint8).astype(np.int64) - 1
        labels[: len(known)] = known
        classes = (files / "class_names.txt").read_text().split()
        return LazySource(
            name="stl10", items=items, index=np.arange(len(items)), labels=labels, classes=classes
        )

    try:
        return split("train", "unlabeled"), split("test")
    except OSError as error:
        raise DataError(f"{files} is incomplete ({error}); remove it and add --download") from error


class StlRows:
    """Raw files of STL-10 as items of a `LazySource`: by channel, then by column."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files
        self.starts = np.cumsum([0, *(file.stat().st_size // STL_BYTES for file in files)])

    def __len__(self) -> int:
        return int(self.starts[-1])

    def __getitem__(self, i: int) -> np.ndarray:
        """Read image `i` as uint8 [3, 96, 96]."""
        file = int(np.searchsorted(self.starts, i, side="right")) - 1
        offset = int(i - self.starts[file]) * STL_BYTES
        pixels = np.fromfile(self.files[file], np.uint8, STL_BYTES, offset=offset)
        return pixels.reshape(3, 96, 96).transpose(0, 2, 1)

    def where(self, i: int) -> str:
        """Name of an image for messages."""
        return f"stl10 image {i}"
