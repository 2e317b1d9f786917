"""Decoding of images to RGB, sizes from headers, resizing with a centre crop."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

Encoded: TypeAlias = bytes | Path | np.ndarray
"""An image file's bytes, its path, or pixels already decoded: uint8 [3, h, w]."""

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp")
)

ORIENTATION = 0x0112  # the EXIF tag; its values 5 to 8 swap height and width


def decode(encoded: Encoded) -> Tensor:
    """Decode one image to RGB, uint8 [3, h, w], contiguous, on the CPU.

    Grey is copied to three channels, palettes and CMYK are converted, alpha is dropped, the EXIF orientation
    is applied, and 16-bit grey keeps its upper 8 bits. Arrays are passed through.

    Raises:
        Exception: whatever PIL's parser for the format stumbles with; `LazySource.load` has one type.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("L", (4, 2), 7).save(buffer, "PNG")
        >>> image = decode(buffer.getvalue())
        >>> image.shape, image.unique().tolist()
        (torch.Size([3, 2, 4]), [7])
    """
    if isinstance(encoded, np.ndarray):
        return torch.from_numpy(np.array(encoded))
    with _open(encoded) as image:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.array(_to_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def header_size(encoded: Encoded) -> tuple[int, int]:
    """Read (height, width) from the header, EXIF applied; raises as `decode` does.

    Example:
        >>> header_size(np.zeros((3, 2, 4), np.uint8))
        (2, 4)
    """
    if isinstance(encoded, np.ndarray):
        return encoded.shape[1], encoded.shape[2]
    with _open(encoded) as image:
        width, height = image.size
        # without the first condition a PNG would be decoded
        turned = "exif" in image.info and image.getexif().get(ORIENTATION, 1) >= 5
    return (width, height) if turned else (height, width)


def fit(images: Tensor, height: int, width: int, crop_ratio: float = 1.0) -> Tensor:
    """Resize to just cover the target, antialiased, then crop the centre.

    From uint8 [..., 3, h, w] on any device to [..., 3, height, width], the input itself where nothing is to
    be done. `crop_ratio` is the share of the covering resize that the crop keeps per side; 0.875 is
    ImageNet's 256 to 224.

    Example:
        >>> fit(torch.zeros(5, 3, 40, 30, dtype=torch.uint8), 16, 16).shape
        torch.Size([5, 3, 16, 16])
    """
    h, w = images.shape[-2:]
    if (h, w) == (height, width) and crop_ratio == 1.0:
        return images
    scale = max(height / h, width / w) / crop_ratio
    covering = max(height, round(h * scale)), max(width, round(w * scale))
    resized = _resize(images.reshape(-1, 3, h, w), covering)
    top, left = (covering[0] - height) // 2, (covering[1] - width) // 2
    cropped = resized[..., top : top + height, left : left + width]
    return cropped.reshape(*images.shape[:-2], height, width).contiguous()


def _resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    if images.device.type == "cpu":  # torch resizes uint8 itself here, several times faster than floats
        return interpolate(images, size, mode="bilinear", antialias=True)
    resized = interpolate(images.float(), size, mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8)


def _open(encoded: bytes | Path) -> Image.Image:
    return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # PIL would clip 16-bit grey to white
        return Image.fromarray((np.asarray(image) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range; save the images with 8 or 16 bits")
    if image.mode == "P":  # by way of RGBA, or PIL warns about transparent palette entries
        image = image.convert("RGBA")
    return image.convert("RGB")
