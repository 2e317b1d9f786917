"""Data orders: which images an epoch sees, at equal compute."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fullrank.errors import DataError, UsageError
from fullrank.untrusted.npy import load_npy

Indices: TypeAlias = npt.NDArray[np.int64]
OrderKind: TypeAlias = Literal["iid", "single-pass", "cumulative", "last-fraction", "hybrid"]


@dataclass(frozen=True, eq=False)
class DataOrder:
    """Order of the images of every epoch, decided by seed and epoch alone.

    Paper: Li, Efros and Pathak 2022 (2209.15007). A fixed *ordering* of all N images is cut into chunks, one
    for each `chunk_size` epochs of a round of `E_R = epochs // n_rounds`. With `k = (epoch mod E_R) //
    chunk_size`, epoch by epoch the images in use are

    - `iid`: all of them;
    - `single-pass` (their `current`): `ordering[N k c // E_R : N (k+1) c // E_R]`, chunk after chunk;
    - `cumulative` (`accumulate`): `ordering[: N (k+1) c // E_R]`, all chunks so far;
    - `last-fraction` (`last`): the final `ceil(N c / E_R)`, throughout;
    - `hybrid`: single-pass before `switch_epoch`, iid from then on.

    Every epoch takes the same number of batches, `steps_per_epoch or N // batch_size`, whatever the order:
    the images in use are permuted again and again, each time without what does not fill a batch. So all
    orders cost the same, and a single pass over chunks is many passes over each.

    `iid` draws from (seed, epoch), the others, as the reference does, from `seed + epoch`: seeds that differ
    by less than the number of epochs share permutations, a different epoch's.

    With a `window`, an iid epoch is shuffled as a stream is: see `shuffled_stream`.

    Args:
        batch_size: images per batch, over all ranks together.
        epochs: of the whole run.
        chunk_size: epochs that a chunk lasts, at most a round.
        n_rounds: sweeps over the ordering; chunks are as many times larger.
        repeat_batch: how often each batch is taken in a row.
        ordering: int64 [n], each of 0 .. n-1 once; None: a random one that the seed decides.
        window: images that an iid epoch is shuffled among; 0: all of them.
        groups: shard of each image, int64 [n], for a `window`.

    Raises:
        UsageError: a batch larger than the images or than a chunk, or numbers that do not fit together.

    Example:
        >>> order = DataOrder(n=12, batch_size=2, epochs=3, kind="single-pass", steps_per_epoch=2,
        ...     ordering=np.arange(12))
        >>> [sorted(order(epoch).tolist()) for epoch in range(3)]
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    """

    n: int
    batch_size: int
    epochs: int
    kind: OrderKind = "iid"
    chunk_size: int = 1
    n_rounds: int = 1
    repeat_batch: int = 1
    steps_per_epoch: int = 0
    switch_epoch: int = 40
    seed: int = 0
    ordering: Indices | None = None
    window: int = 0
    groups: Indices | None = None

    def __post_init__(self) -> None:
        batches(np.arange(self.n), self.batch_size)  # says what is wrong with the batch size
        if self.window and self.kind != "iid":
            raise UsageError(f"--shuffle-window belongs to --order iid, not {self.kind}")
        if self.window and self.groups is None:
            raise UsageError(
                "--shuffle-window belongs to images in shards or row groups; images that lie by themselves "
                "are shuffled as a whole: leave it out"
            )
        if self.kind == "iid":
            return
        if self.n_rounds > self.epochs:
            raise UsageError(f"--rounds {self.n_rounds} are more than the run's {self.epochs} epochs")
        if self.chunk_size > self.epochs_per_round:
            raise UsageError(
                f"--chunk-size {self.chunk_size} is longer than a round of {self.epochs_per_round} epochs"
            )
        if self.kind == "hybrid" and not 0 < self.switch_epoch < self.epochs:
            raise UsageError(
                f"--switch-epoch lies within the run's {self.epochs} epochs, not at {self.switch_epoch}"
            )
        if self.ordering is not None and len(self.ordering) != self.n:
            raise UsageError(
                f"the ordering is of {len(self.ordering)} images, but there are {self.n} to train on"
            )
        smallest = min(range(min(self.epochs, self.epochs_per_round)), key=lambda e: len(self.chunk(e)))
        images = len(self.chunk(smallest))
        if images < self.batch_size:
            raise UsageError(
                f"the chunk of epoch {smallest} has {images} images, less than a batch of {self.batch_size}; "
                f"use a larger --chunk-size, more --rounds or a smaller --batch-size"
            )

    @property
    def epochs_per_round(self) -> int:
        """Epochs of one sweep over the ordering, `E_R`."""
        return self.epochs // self.n_rounds

    @property
    def steps(self) -> int:
        """Batches in every epoch, `T`."""
        return self.steps_per_epoch or self.n // self.batch_size

    @cached_property
    def sequence(self) -> Indices:
        """The ordering in use, int64 [n]."""
        if self.ordering is not None:
            return np.asarray(self.ordering, dtype=np.int64)
        entropy = np.random.SeedSequence(self.seed, spawn_key=(0,))  # no epoch's: those are [seed, epoch]
        return np.random.Generator(np.random.PCG64(entropy)).permutation(self.n)

    @cached_property
    def sha256(self) -> str:
        """Of the ordering in use, as little-endian int64; empty for iid, which has none."""
        if self.kind == "iid":
            return ""
        return hashlib.sha256(self.sequence.astype("<i8").tobytes()).hexdigest()

    def chunk(self, epoch: int) -> Indices:
        """The images in use in an epoch: int64 [m], in the ordering's order."""
        if self._is_iid(epoch):
            return np.arange(self.n)
        c, per_round = self.chunk_size, self.epochs_per_round
        k = epoch % per_round // c
        end = self.n * (k + 1) * c // per_round  # beyond the last image where c does not divide the round
        match self.kind:
            case "cumulative":
                return self.sequence[:end]
            case "last-fraction":
                return self.sequence[-self.n * c // per_round :]
            case _:
                return self.sequence[self.n * k * c // per_round : end]

    def __call__(self, epoch: int) -> Indices:
        """The images of one epoch, batch after batch: int64 [steps * batch_size]."""
        generator: np.random.Generator | np.random.RandomState
        if self._is_iid(epoch):
            generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self.seed, epoch])))
        else:
            generator = np.random.RandomState(self.seed + epoch)
        chunk, chosen = self.chunk(epoch), list[Indices]()
        while len(chosen) < self.steps:  # permutations, cut into batches, until the epoch is full
            if self.window and self.groups is not None and isinstance(generator, np.random.Generator):
                shuffled = shuffled_stream(self.groups, self.window, generator)
            else:
                shuffled = generator.permutation(chunk)
            for batch in batches(shuffled, self.batch_size):
                chosen += [batch] * min(self.repeat_batch, self.steps - len(chosen))
        return np.concatenate(chosen[: self.steps])

    def _is_iid(self, epoch: int) -> bool:
        return self.kind == "iid" or (self.kind == "hybrid" and epoch >= self.switch_epoch)


def shuffled_stream(groups: Indices, window: int, generator: np.random.Generator) -> Indices:
    """Shuffle shards as a whole, and images within a window of their stream.

    All images come once. The shards of the stream are permuted and put one behind the other; this sequence is
    cut at every `window` images, with the first cut at random, and each piece is permuted. So what is read at
    any time lies in a few shards.

    Args:
        groups: shard of each image, int64 [n].
        window: images that are permuted among themselves.

    Example:
        >>> order = shuffled_stream(np.repeat(np.arange(4), 3), 3, np.random.default_rng(0))
        >>> sorted(order.tolist()) == list(range(12)), len(set(order[:2] // 3)) <= 2
        (True, True)
    """
    names, place = np.unique(groups, return_inverse=True)
    stream = np.argsort(generator.permutation(len(names))[place], kind="stable")
    piece = (np.arange(len(groups)) + generator.integers(window)) // window
    return stream[np.lexsort((generator.random(len(groups)), piece))]


def batches(order: Indices, batch_size: int, drop_last: bool = True) -> Iterator[Indices]:
    """Cut an order into batches; `drop_last` leaves out a last one that is not full.

    Raises:
        UsageError: the batch size is not positive, or no batch could be filled.

    Example:
        >>> [batch.tolist() for batch in batches(np.arange(5), 2)]
        [[0, 1], [2, 3]]
        >>> batches(np.arange(300), 512)
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: batch size 512 is larger than the 300 training images; \
use --batch-size 300 or fewer
    """
    n = len(order)
    if batch_size < 1:
        raise UsageError(f"batch size {batch_size} is not positive; use --batch-size 1 or more")
    if drop_last and batch_size > n == 1:
        raise UsageError("one training image makes no batch: train on two or more")
    if drop_last and batch_size > n:
        raise UsageError(
            f"batch size {batch_size} is larger than the {n} training images; use --batch-size {n} or fewer"
        )
    stop = n - n % batch_size if drop_last else n
    return (order[start : start + batch_size] for start in range(0, stop, batch_size))


def load_ordering(path: Path, n: int) -> Indices:
    """Read an ordering, each of 0 .. n-1 once, from a `.npy` file.

    Raises:
        DataError: no such file, or something else in it.
    """
    if not path.exists():
        raise DataError(f"no ordering {path}; it is a .npy file of image numbers")
    try:
        ordering = load_npy(path)
    except DataError as error:
        raise DataError(f"{path} is no .npy file of image numbers: {error}") from error
    if ordering.ndim != 1 or ordering.dtype.kind not in "iu":
        raise DataError(f"{path} is no .npy file of one vector of integers")
    if len(ordering) != n:
        raise DataError(f"{path} orders {len(ordering)} images, but there are {n} to train on")
    ordering = ordering.astype(np.int64)
    if not np.array_equal(np.sort(ordering), np.arange(n)):
        raise DataError(f"{path} must hold each of 0 to {n - 1} once")
    return ordering
