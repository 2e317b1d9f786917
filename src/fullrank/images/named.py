"""Data sets known by name, and CIFAR and STL-10 as torchvision stores them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch

from fullrank.errors import DataError
from fullrank.images.folders import open_image_folder
from fullrank.images.parquet import find_parquet, open_parquet
from fullrank.images.shapes import SHAPES, shapes
from fullrank.images.sources import Channels, Indices, LazySource, MemorySource, Source
from fullrank.registry import Registry
from fullrank.untrusted.paths import did_you_mean, expand_user

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


Split: TypeAlias = tuple[Source, Source | None]
"""Training images, and held-out ones where the data set has such a split."""


@dataclass(frozen=True)
class NamedData:
    """Data set that `open_data` knows by name, as `fullrank list data` shows it.

    Attributes:
        images: number of training images.
        size: height and width in pixels; None where they differ from image to image.
        labelled: whether "all" or "some" of the training images have a label.
        mean: per channel, of pixels in [0, 1], as `std`; None is computed of an embedded set's images, and
            ImageNet's of any other.
        make: makes an embedded set at an image size (None: its own); such a set needs no files.
        any_size: whether `make` heeds that size.
        read: reads a layout of its own from a folder, downloading it first if told to; None where it is not
            there.
        hub: repository on the Hugging Face Hub whose parquet files are downloaded where there is no `read`.

    Example:
        >>> stl10 = DATA["stl10"]
        >>> stl10.images, stl10.size, stl10.labelled, stl10.needs_download
        (105000, 96, 'some', True)
    """

    description: str
    images: int
    size: int | None
    classes: int
    labelled: str = "all"
    mean: Channels | None = None
    std: Channels | None = None
    make: Callable[[int | None], Split] | None = None
    any_size: bool = False
    read: Callable[[Path, bool], Split | None] | None = None
    hub: str | None = None

    @property
    def needs_download(self) -> bool:
        """Whether files must be downloaded, or put under the root, first."""
        return self.make is None


def _shapes(size: int | None) -> Split:
    """4,000 training and 1,000 held-out shapes of `size` (16) pixels."""
    train, held_out = (
        MemorySource(name="shapes", images=torch.from_numpy(images), labels=labels, classes=list(SHAPES))
        for images, labels in (shapes(4000, 0, size or 16), shapes(1000, 1, size or 16))
    )
    return train, held_out


def _digits(_: int | None) -> Split:
    """Scikit-learn's 1,797 digits, doubled to 16 by 16; a fifth is held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    grey = torch.from_numpy((digits.images * (255 / 16)).round().astype(np.uint8))
    images = grey.repeat_interleave(2, 1).repeat_interleave(2, 2)[:, None].repeat(1, 3, 1, 1)
    labels = digits.target.astype(np.int64)
    every = MemorySource(name="digits", images=images, labels=labels, classes=[str(i) for i in range(10)])
    order = np.random.default_rng(0).permutation(len(every))
    return every.subset(np.sort(order[359:])), every.subset(np.sort(order[:359]))


DATA: Registry[NamedData] = Registry("data set", group="fullrank.data")

for _name, _data in {
    "shapes": NamedData(
        "ten bright shapes on dark ground, generated", 4_000, 16, 10, make=_shapes, any_size=True
    ),
    "digits": NamedData(
        "scikit-learn's handwritten digits, doubled in size", 1_438, 16, 10, make=_digits
    ),
    "cifar10": NamedData(
        "small photographs of ten kinds of things", 50_000, 32, 10,
        mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616), read=partial(open_cifar, "CIFAR10"),
    ),
    "cifar100": NamedData(
        "small photographs of a hundred kinds of things", 50_000, 32, 100,
        mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762), read=partial(open_cifar, "CIFAR100"),
    ),
    "stl10": NamedData(
        "photographs from ImageNet, 5,000 labelled and 100,000 not", 105_000, 96, 10, labelled="some",
        mean=(0.4914, 0.4823, 0.4466), std=(0.247, 0.243, 0.261), read=open_stl10,
    ),
    "tiny-imagenet": NamedData(
        "200 classes of ImageNet at 64 by 64 pixels", 100_000, 64, 200, hub="zh-plus/tiny-imagenet"
    ),
    "imagenet100": NamedData(
        "a hundred classes of ImageNet", 126_689, None, 100, hub="clane9/imagenet-100"
    ),
    "imagenet": NamedData(
        "ImageNet (ILSVRC 2012); needs an account that accepted its terms", 1_281_167, None, 1000,
        hub="ILSVRC/imagenet-1k",
    ),
}.items():  # fmt: skip
    DATA.register(_name)(_data)


def open_named(
    name: str, root: Path, download: bool = False, image_size: int | None = None
) -> tuple[Source, Source | None, list[str]]:
    """Open a data set of the registry: training images, held-out ones or None, notes.

    A folder `root/name` with parquet files or with `train/` in it serves for every name; CIFAR and STL-10
    are also read as torchvision stores them, in `root/name` or in `root`. `image_size` is what a generated
    set is drawn at.

    Raises:
        UnknownNameError: there is no such name.
        DataError: it is not there and `download` is False, or it cannot be fetched or read.

    Example:
        >>> train, held_out, notes = open_named("digits", Path())
        >>> len(train), len(held_out), notes
        (1438, 359, [])
        >>> open_named("cifar10", Path("nowhere"))
        Traceback (most recent call last):
            ...
        fullrank.errors.DataError: cifar10 is not under nowhere; add --download, or pass a folder: --data DIR
    """
    known, notes = DATA[name], list[str]()
    if known.make:
        split: Split | None = known.make(image_size)
    else:
        split, notes = _find(name, known, root)
        incomplete = split is not None and known.hub is not None and len(split[0]) < known.images
        if download and (split is None or incomplete):
            split, notes = _download(name, known, root)
        elif split is not None and incomplete:
            notes.append(f"{len(split[0]):,} training images where {name} has {known.images:,}")
    if split is None:
        raise DataError(f"{name} is not under {root}; add --download, or pass a folder: --data DIR")

    train, held_out = split
    mean, std = train.mean, train.std
    if known.mean and known.std:
        mean, std = known.mean, known.std
    elif isinstance(train, MemorySource):  # an embedded set
        mean, std = _statistics(train.images)
    train = replace(train, name=f"{name}/train", mean=mean, std=std)
    if held_out is not None:
        held_out = replace(held_out, name=f"{name}/held out", mean=mean, std=std)
    return train, held_out, notes


def open_folder(path: Path) -> tuple[Source, Source | None, list[str]]:
    """Open a folder of parquet files, else one of image files; or one parquet file.

    See `open_parquet` and `open_image_folder` for what may lie there, and what is returned.

    Raises:
        DataError: the path is neither, or holds no images.

    Example:
        >>> open_folder(Path("nowhere"))
        Traceback (most recent call last):
            ...
        fullrank.errors.DataError: there is no folder nowhere; pass a folder of images or of .parquet files
    """
    path = expand_user(path)
    if path.is_file() and path.suffix == ".parquet":
        return open_parquet(path.stem, [path])
    if not path.is_dir():
        what = (
            f"{path} is not a folder" if path.exists() else f"there is no folder {path}{did_you_mean(path)}"
        )
        raise DataError(
            f"{what}{'' if what.endswith('?') else ';'} pass a folder of images or of .parquet files"
        )
    if files := find_parquet(path):
        return open_parquet(path.resolve().name, files)
    return open_image_folder(path.resolve())


def _find(name: str, known: NamedData, root: Path) -> tuple[Split | None, list[str]]:
    """Open what lies under the root by that name, in any layout."""
    folder = root / name
    if find_parquet(folder) or (folder / "train").is_dir():
        train, held_out, notes = open_folder(folder)
        return (train, held_out), notes
    return known.read and (known.read(folder, False) or known.read(root, False)), []


def _download(name: str, known: NamedData, root: Path) -> tuple[Split | None, list[str]]:
    folder = root / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if known.hub is None:
            return known.read and known.read(folder, True), []
        from huggingface_hub import snapshot_download

        wanted = ["*train*.parquet", "*val*.parquet"]
        snapshot_download(known.hub, repo_type="dataset", local_dir=folder, allow_patterns=wanted)
        return _find(name, known, root)
    except Exception as error:  # each client has its own for no network, no space, no permission
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        page = f"huggingface.co/datasets/{known.hub}"
        terms = f"accept its terms at {page} if it asks for them, " if known.hub else ""
        raise DataError(
            f"{name} could not be downloaded ({reason}); {terms}"
            f"put it into {folder}, or pass a folder: --data DIR"
        ) from error


def _statistics(images: torch.Tensor) -> tuple[Channels, Channels]:
    """Mean and standard deviation per channel of pixels in [0, 1]."""
    pixels = images.double().div(255).transpose(0, 1).flatten(1)
    (r, g, b), (r_std, g_std, b_std) = pixels.mean(1).tolist(), pixels.std(1).tolist()
    return (r, g, b), (r_std, g_std, b_std)
