"""Order of the images of an epoch, from a seed alone, and its cut into batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fullrank.errors import UsageError

__all__ = ["batches", "epoch_generator", "epoch_order"]


def epoch_order(n: int, epoch: int, seed: int) -> npt.NDArray[np.int64]:
    """Random order of `n` images that `seed` and `epoch` alone decide.

    Args:
        n: number of images.
        epoch: from 0.
        seed: not negative.

    Returns:
        int64 [n], each of 0 .. n-1 once.

    Example:
        >>> first, again = epoch_order(1000, epoch=3, seed=0), epoch_order(1000, epoch=3, seed=0)
        >>> bool((first == again).all()), bool((first == epoch_order(1000, epoch=4, seed=0)).all())
        (True, False)
    """
    return epoch_generator(epoch, seed).permutation(n)


def epoch_generator(epoch: int, seed: int) -> np.random.Generator:
    """Generator of an epoch's order, whose first permutation is `epoch_order`.

    Example:
        >>> epoch_generator(epoch=3, seed=0).permutation(4).tolist() == epoch_order(4, 3, 0).tolist()
        True
    """
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))


def batches(
    order: npt.NDArray[np.int64], batch_size: int, drop_last: bool = True
) -> Iterator[npt.NDArray[np.int64]]:
    """Cut an order into batches.

    Args:
        order: int64 [n], image indices.
        batch_size: images per batch, over all ranks together.
        drop_last: leave out a last batch that is not full.

    Returns:
        An iterator over int64 [batch_size] (the last may be shorter where it is not dropped).

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
    if drop_last and batch_size > n:
        raise UsageError(
            f"batch size {batch_size} is larger than the {n} training images; use --batch-size {n} or fewer"
        )
    stop = n - n % batch_size if drop_last else n
    return (order[start : start + batch_size] for start in range(0, stop, batch_size))
