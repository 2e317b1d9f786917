"""The images of a run."""

from __future__ import annotations

from fullrank.images.named import generated_size
from fullrank.images.opening import open_data
from fullrank.images.sources import Data
from fullrank.training.config import TrainConfig

__all__ = ["open_run_data"]


def open_run_data(config: TrainConfig) -> Data:
    """Open the images that a run trains on, and those that it holds out.

    Example:
        >>> data = open_run_data(TrainConfig(limit=50, seed=3))
        >>> len(data.train), len(data.held_out)
        (50, 50)
    """
    return open_data(
        config.data,
        image_size=generated_size(config.data, config.image_size),
        limit=config.limit or None,
        download=config.download,
        max_corrupt=config.max_corrupt,
        seed=config.seed,
    )
