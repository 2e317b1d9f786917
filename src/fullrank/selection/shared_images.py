"""Held-out images for runs whose seeds held out different ones."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fullrank.encoders.runs import own_data
from fullrank.images.sources import Data, MemorySource, Source
from fullrank.training.config import TrainConfig

ENOUGH = 200
"""Held-out images from which a label-free score tells encoders apart."""


def held_out_of_all(configs: Sequence[TrainConfig], wanted: int) -> Data:
    """Data of the first run, with the held-out images that no run trained on.

    Where fewer than `wanted` (or `ENOUGH`) are left, as a random tenth follows the seed, they are those of
    the first run, and a note says that others may have trained on them.

    Example:
        >>> data = held_out_of_all([TrainConfig(limit=50, seed=seed) for seed in (0, 0)], 40)
        >>> len(data.held_out), data.notes[1:]
        (50, [])
    """
    by_choice = {(config.seed, config.limit): config for config in configs}
    first, *others = by_choice.values()
    data = own_data(first)
    if not others:
        return data
    names = _identities(data.held_out)
    shared = set(names)
    for config in others:
        shared &= set(_identities(own_data(config).held_out))
    if len(shared) == len(set(names)):
        return data
    if len(shared) >= min(wanted, ENOUGH):
        held_out = data.held_out.subset(np.flatnonzero([name in shared for name in names]))
        note = f"{len(held_out):,} images that no run trained on: all {len(by_choice)} choices held them out"
        return replace(data, held_out=held_out, notes=[note])
    note = (
        f"the images are those that the run of seed {first.seed} held out; runs of other seeds may have "
        "trained on them, which may favour these: add --data with a folder that no run saw"
    )
    return replace(data, notes=[*data.notes, note])


def _identities(source: Source) -> list[str]:
    """What tells images apart whichever split they are in: pixels, or the file."""
    if isinstance(source, MemorySource):
        return [hashlib.sha256(image.cpu().numpy().tobytes()).hexdigest() for image in source.images]
    return [source.where(i) for i in range(len(source))]
