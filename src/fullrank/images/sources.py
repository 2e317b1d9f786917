"""A source says which images there are: in memory as one tensor, or decoded one by one on demand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from fullrank.errors import DataError
from fullrank.images.decoding import Encoded, decode, fit

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Data", "Items", "LazySource", "MemorySource", "Source"]

Channels: TypeAlias = tuple[float, float, float]
Indices: TypeAlias = npt.NDArray[np.int64]

IMAGENET_MEAN: Channels = (0.485, 0.456, 0.406)
IMAGENET_STD: Channels = (0.229, 0.224, 0.225)


@dataclass(frozen=True, eq=False, kw_only=True)
class Source(ABC):
    """Some images, numbered from 0, and what is known of them.

    Attributes:
        name: for people, as "cifar10/train".
        labels: int64 [N], -1 where an image has none; None where no image has one.
        classes: the name of each label, or None.
        mean: per channel, of pixels scaled to [0, 1]; what to normalise with.
        std: per channel, likewise.
    """

    name: str
    labels: Indices | None = None
    classes: list[str] | None = None
    mean: Channels = IMAGENET_MEAN
    std: Channels = IMAGENET_STD

    @property
    @abstractmethod
    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels of all images, or of most of them; None where that is not known."""

    @abstractmethod
    def __len__(self) -> int:
        """How many images there are."""

    @abstractmethod
    def load(self, i: int) -> Tensor:
        """Image `i` as uint8 [3, h, w] on the CPU; raises DataError where it cannot be decoded."""

    @abstractmethod
    def subset(self, indices: Indices, name: str | None = None) -> Self:
        """The images at `indices`, in that order, with their labels, perhaps under another name."""

    def labels_at(self, indices: Indices) -> Indices | None:
        """The labels of the images at `indices`, or None where there are none at all."""
        return None if self.labels is None else self.labels[indices]


@dataclass(frozen=True, eq=False, kw_only=True)
class MemorySource(Source):
    """Images of one size, decoded, in one tensor.

    Attributes:
        images: uint8 [N, 3, H, W].

    Example:
        >>> source = MemorySource(name="black", images=torch.zeros(8, 3, 4, 4, dtype=torch.uint8))
        >>> len(source), source.image_size, len(source.subset(np.array([3, 1])))
        (8, (4, 4), 2)
    """

    images: Tensor

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.images.shape[2], self.images.shape[3]

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.images)

    def load(self, i: int) -> Tensor:
        """Image `i` as uint8 [3, H, W] on the CPU."""
        return self.images[i].cpu()

    def subset(self, indices: Indices, name: str | None = None) -> MemorySource:
        """The images at `indices`, copied."""
        images = self.images[torch.from_numpy(indices).to(self.images.device)]
        return replace(self, name=name or self.name, images=images, labels=self.labels_at(indices))

    def resized(self, size: int) -> MemorySource:
        """The same images at `size` by `size` pixels: resized to cover it, centre cropped."""
        return replace(self, images=fit(self.images, size, size))

    def to(self, device: torch.device | str) -> MemorySource:
        """The same images on `device`, so that batches are gathered there."""
        return replace(self, images=self.images.to(device))


class Items(Protocol):
    """Encoded images that can be had one at a time; must survive pickling, to reach a worker process."""

    def __len__(self) -> int:
        """How many there are."""

    def __getitem__(self, i: int, /) -> Encoded:
        """The encoded image; raises OSError where it cannot be read."""

    def where(self, i: int) -> str:
        """Where image `i` lies, for messages: a path, or a file and a row."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LazySource(Source):
    """Images that are decoded when they are wanted, each of its own size.

    Attributes:
        items: the encoded images.
        index: int64 [N], which of `items` belong to this source, in order.
        usual_size: height and width in pixels of most images, or what was asked for; None where not known.
        tolerance: how many undecodable images a reader may replace or skip before it has to stop.

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

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Height and width in pixels of most images, or what was asked for; None where not known."""
        return self.usual_size

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.index)

    def load(self, i: int) -> Tensor:
        """Decodes image `i` to uint8 [3, h, w]; raises DataError, naming it, where that fails."""
        try:
            return decode(self.items[int(self.index[i])])
        except (
            Exception
        ) as error:  # PIL raises what each format's parser trips over: OSError, SyntaxError, ...
            raise DataError(f"{self.where(i)} cannot be decoded: {error or type(error).__name__}") from error

    def where(self, i: int) -> str:
        """Where image `i` lies, for messages."""
        return self.items.where(int(self.index[i]))

    def subset(self, indices: Indices, name: str | None = None) -> LazySource:
        """The images at `indices`; nothing is decoded."""
        return replace(
            self, name=name or self.name, index=self.index[indices], labels=self.labels_at(indices)
        )


@dataclass(frozen=True, eq=False)
class Data:
    """What a data set comes to: images to train on, images held out, and what a reader should know.

    Attributes:
        name: of the data set.
        train: images to pretrain on; some or all may be unlabelled.
        held_out: images never trained on.
        notes: one line each: what was left out, split off, guessed.

    Example:
        >>> black = MemorySource(name="black", images=torch.zeros(8, 3, 4, 4, dtype=torch.uint8))
        >>> Data("black", black, black.subset(np.arange(2))).notes
        []
    """

    name: str
    train: Source
    held_out: Source
    notes: list[str] = field(default_factory=list)


def corrupt_line(names: Sequence[str], tried: int) -> str:
    """One line on images that cannot be decoded: how many of how many, and the first three.

    Example:
        >>> corrupt_line(["a.jpg", "b.jpg", "c.jpg", "d.jpg"], 900)
        '4 of 900 images cannot be decoded: a.jpg, b.jpg, c.jpg, ...'
    """
    shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names):,} of {tried:,} image{'s' * (tried != 1)} cannot be decoded: {shown}"
