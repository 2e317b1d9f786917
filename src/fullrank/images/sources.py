"""Sources of images: in memory as one tensor, or decoded one by one on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fullrank.errors import ImageError, UsageError
from fullrank.images.batch_loaders import CentreCrop, Crop, LazyLoader, Loader, MemoryLoader
from fullrank.images.decoding import Encoded, decode, fit, why_not_decoded
from fullrank.options import MAX_PIXELS

Channels: TypeAlias = tuple[float, float, float]
Indices: TypeAlias = npt.NDArray[np.int64]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False, kw_only=True)
class Source(ABC):
    """Some images, numbered from 0, and what is known of them.

    Attributes:
        in_memory: whether they are decoded already, all of one size.
        name: for people, as "cifar10/train".
        labels: int64 [N], -1 where an image has none; None where no image has one.
        classes: the name of each label, or None.
        mean: per channel, of pixels scaled to [0, 1]; what to normalise with.
        std: per channel, likewise.
        skipped: files and images that are not read, with the reason; subsets share it, and readers add what
            they meet.
    """

    in_memory: ClassVar[bool] = False

    name: str
    labels: Indices | None = None
    classes: list[str] | None = None
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels of all or most images; None where not known."""

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def load(self, i: int) -> Tensor:
        """Load image `i` as uint8 [3, h, w] on the CPU; ImageError where that fails."""

    @abstractmethod
    def subset(self, indices: Indices, name: str | None = None) -> Self:
        """Images at `indices`, in that order, perhaps under another name."""

    @abstractmethod
    def loader(self, crop: Crop, workers: int, replace_corrupt: bool) -> Loader:
        """Loader of batches (`LazyLoader`); images in memory are cropped batch by batch."""

    @property
    def groups(self) -> Indices | None:
        """Shard or row group of each image, int64 [N]; None where there are none."""
        return None

    @property
    def window(self) -> int:
        """Images among which an epoch is shuffled where nobody says so; 0: all of them."""
        return 0

    def where(self, i: int) -> str:
        """Path of image `i`, or file and row, or its number, for messages."""
        return f"{self.name} {i}"

    def to(self, device: torch.device | str) -> Self:
        """Move images in memory to `device`, so that batches are gathered there."""
        return self

    @property
    def nbytes(self) -> int:
        """Bytes of memory that decoded images take."""
        return 0

    def centre_crop(self, size: int | None, crop_ratio: float = 1.0) -> CentreCrop:
        """Crop to `size`, or to the images' own; raises UsageError where neither is known."""
        shape = (size, size) if size else self.image_size
        if shape is None:
            raise UsageError(
                f"{self.name} does not say how large its images are; give an image size in pixels"
            )
        return CentreCrop(*shape, crop_ratio)

    @property
    def labelled(self) -> Indices:
        """Indices of the images that have a label."""
        return np.flatnonzero(self.labels >= 0) if self.labels is not None else np.empty(0, np.int64)

    def labels_at(self, indices: Indices) -> Indices | None:
        """Labels of the images at `indices`, or None where there are none at all."""
        return None if self.labels is None else self.labels[indices]


@dataclass(frozen=True, eq=False, kw_only=True)
class MemorySource(Source):
    """Images of one size, decoded, in one tensor, uint8 [N, 3, H, W].

    Example:
        >>> source = MemorySource(name="black", images=torch.zeros(8, 3, 4, 4, dtype=torch.uint8))
        >>> len(source), source.image_size, len(source.subset(np.array([3, 1])))
        (8, (4, 4), 2)
    """

    in_memory: ClassVar[bool] = True

    images: Tensor

    @property
    def image_size(self) -> tuple[int, int]:
        """See `Source.image_size`."""
        return self.images.shape[2], self.images.shape[3]

    def __len__(self) -> int:
        return len(self.images)

    def load(self, i: int) -> Tensor:
        """See `Source.load`."""
        return self.images[i].cpu()

    def subset(self, indices: Indices, name: str | None = None) -> MemorySource:
        """Images at `indices`, copied or left encoded; see `Source.subset`."""
        images = self.images[torch.from_numpy(indices).to(self.images.device)]
        return replace(self, name=name or self.name, images=images, labels=self.labels_at(indices))

    def resized(self, size: int) -> MemorySource:
        """The same images at `size` by `size` pixels: resized to cover it, centre cropped."""
        return replace(self, images=fit(self.images, size, size))

    def loader(self, crop: Crop, workers: int, replace_corrupt: bool) -> Loader:
        """See `Source.loader`."""
        return MemoryLoader(self.images, crop)

    def to(self, device: torch.device | str) -> MemorySource:
        """See `Source.to`."""
        return replace(self, images=self.images.to(device))

    @property
    def nbytes(self) -> int:
        """See `Source.nbytes`."""
        return self.images.nbytes


class Items(Protocol):
    """Encoded images, one at a time; must survive pickling, to reach a worker process."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int, /) -> Encoded:
        """Encoded image; raises OSError where it cannot be read."""

    def where(self, i: int) -> str:
        """Path of image `i`, or file and row, for messages."""


@runtime_checkable
class Grouped(Protocol):
    """Items that lie in groups: shards, or row groups that are read as a whole.

    Attributes:
        starts: int64 [G + 1], the first item of each group, and how many items there are.
        window: see `Source.window`; above 0 where reading one item reads its group.
    """

    starts: Indices
    window: int


@dataclass(frozen=True, eq=False, kw_only=True)
class LazySource(Source):
    """Images that are decoded when they are wanted, each of its own size.

    Attributes:
        items: the encoded images.
        index: int64 [N], which of `items` belong to this source, in order.
        usual_size: height and width in pixels of most images, or what was asked for; None where not known.
        tolerance: how many undecodable images a reader may replace or skip before it has to stop.
        max_pixels: of one image; a larger one counts as undecodable.
        streamed: whether the images are never decoded into memory as a whole, however few.
        lost: images that damaged shards are thought to have held, which count as undecodable.

    Example:
        >>> class Black:
        ...     def __len__(self): return 5
        ...     def __getitem__(self, i): return np.zeros((3, 4, 4 + i), np.uint8)
        ...     def where(self, i): return f"black {i}"
        >>> source = LazySource(name="black", items=Black(), index=np.arange(5))
        >>> source.subset(np.array([4, 2])).load(0).shape
        torch.Size([3, 4, 8])
    """

    items: Items
    index: Indices
    usual_size: tuple[int, int] | None = None
    tolerance: int = 0
    max_pixels: int = MAX_PIXELS
    streamed: bool = False
    lost: int = 0

    @property
    def image_size(self) -> tuple[int, int] | None:
        """See `Source.image_size`."""
        return self.usual_size

    @property
    def groups(self) -> Indices | None:
        """See `Source.groups`."""
        if not isinstance(self.items, Grouped):
            return None
        return np.searchsorted(self.items.starts, self.index, side="right") - 1

    @property
    def window(self) -> int:
        """See `Source.window`."""
        return self.items.window if isinstance(self.items, Grouped) else 0

    def __len__(self) -> int:
        return len(self.index)

    def load(self, i: int) -> Tensor:
        """See `Source.load`."""
        try:
            return decode(self.items[int(self.index[i])], self.max_pixels)
        except Exception as error:  # PIL raises what each format's parser trips over: SyntaxError, ...
            raise ImageError(self.where(i), why_not_decoded(error)) from error

    def where(self, i: int) -> str:
        """Path of image `i`, or file and row, for messages."""
        return self.items.where(int(self.index[i]))

    def loader(self, crop: Crop, workers: int, replace_corrupt: bool) -> Loader:
        """See `Source.loader`."""
        return LazyLoader(self, crop, workers, replace_corrupt)

    def subset(self, indices: Indices, name: str | None = None) -> LazySource:
        """Images at `indices`, copied or left encoded; see `Source.subset`."""
        return replace(
            self, name=name or self.name, index=self.index[indices], labels=self.labels_at(indices)
        )


@dataclass(frozen=True, eq=False)
class Data:
    """Images to train on, images held out, and notes on them, a line each.

    `fingerprint` is what tells these images from others, where they were opened by name or place.

    Example:
        >>> black = MemorySource(name="black", images=torch.zeros(8, 3, 4, 4, dtype=torch.uint8))
        >>> Data("black", black, black.subset(np.arange(2))).notes
        []
    """

    name: str
    train: Source
    held_out: Source
    notes: list[str] = field(default_factory=list)
    fingerprint: Mapping[str, str] = field(default_factory=dict)

    @property
    def skipped(self) -> dict[str, str]:
        """Files and images that are not read, with the reason, as far as they were met."""
        return self.train.skipped | self.held_out.skipped
