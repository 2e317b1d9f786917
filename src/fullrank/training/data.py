"""The images of a run."""

from __future__ import annotations

from fullrank.images.named import DATA
from fullrank.images.opening import open_data
from fullrank.images.sources import Data
from fullrank.training.config import TrainConfig


def open_run_data(config: TrainConfig) -> Data:
    """Open the images that a run trains on, and those that it holds out.

    Example:
        >>> data = open_run_data(TrainConfig(limit=50, seed=3))
        >>> len(data.train), len(data.held_out)
        (50, 50)
    """
    generated = config.data in DATA and DATA[config.data].any_size
    return open_data(
        config.data,
        image_size=(config.image_size or None) if generated else None,
        limit=config.limit or None,
        download=config.download,
        max_corrupt=config.max_corrupt,
        max_pixels=config.max_pixels,
        seed=config.seed,
    )
