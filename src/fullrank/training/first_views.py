"""Figure of the views that a run trains on, of its first images."""

from __future__ import annotations

from pathlib import Path

import torch

from fullrank.images.decoding import fit
from fullrank.images.loader import first_images
from fullrank.training.setup import Setup, generator_of
from fullrank.views import save_sheet

IMAGES = 8


def save_first_views(s: Setup, run: Path) -> None:
    """Write `figures/views.png` of a run directory."""
    views, loaded = s.views, first_images(s.data.train, IMAGES)
    # no larger than needed: the views must look as in training, where crops are cut from the whole image
    size = min(max(min(min(image.shape[1:]) for image in loaded), views.image_size), 4 * views.image_size)
    images = torch.stack([fit(image, size, size) for image in loaded])
    params = views.sample(len(images), size, size, generator_of(s.config.seed, 3))
    save_sheet(run / "figures" / "views.png", images, views, params)
