"""Embeddings of any file, and features of images through an encoder.

Example:
    >>> from fullrank.images.opening import open_data
    >>> from fullrank.encoders.opening import open_encoder
    >>> model = open_encoder("timm:resnet18", pretrained=False, image_size=32)
    >>> images = open_data("shapes", limit=10).train
    >>> for batch in embed_images(model, images, taps=["layer2", "features"], device="cpu"):
    ...     {tap: tuple(rows.shape) for tap, rows in batch.rows.items()}
    {'layer2': (10, 128), 'features': (10, 512)}
"""

from fullrank.encoders.hooks import FEATURES, pool, take_taps, which_taps
from fullrank.features.augmented import Augmentation
from fullrank.features.extraction import Embedded, embed_images

__all__ = ["FEATURES", "Augmentation", "Embedded", "embed_images", "pool", "take_taps", "which_taps"]
