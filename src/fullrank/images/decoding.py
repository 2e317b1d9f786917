"""Decoding of images to RGB, sizes from headers, resizing with a centre crop."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from torch import Tensor
from torch.nn.functional import interpolate

from fullrank.images.formats import can_read_heif, why_unknown
from fullrank.options import MAX_PIXELS
from fullrank.untrusted.paths import require_regular

Encoded: TypeAlias = bytes | Path | np.ndarray
"""An image file's bytes, its path, or pixels already decoded: uint8 [3, h, w]."""

ORIENTATION = 0x0112  # the EXIF tag; its values 5 to 8 swap height and width


warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # they are refused here, in words of ours


def decode(encoded: Encoded, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Decode one image to RGB, uint8 [3, h, w], contiguous, on the CPU.

    Grey is copied to three channels, palettes, CMYK and Lab are converted, what is transparent lies on white,
    the EXIF orientation is applied, and of animations and pages the first is taken. More than 8 bits are
    scaled by the range of the values: see `to_eight_bits`. Arrays are passed through.

    Raises:
        OSError: it has more than `max_pixels`, by its header.
        Exception: whatever PIL's parser for the format stumbles with; `LazySource.load` raises one type.

    Example:
        >>> buffer = io.BytesIO()
        >>> Image.new("L", (4, 2), 7).save(buffer, "PNG")
        >>> image = decode(buffer.getvalue())
        >>> image.shape, image.unique().tolist()
        (torch.Size([3, 2, 4]), [7])
    """
    if isinstance(encoded, np.ndarray):
        return torch.from_numpy(np.array(encoded))
    with _open(encoded, max_pixels) as image:
        ImageOps.exif_transpose(image, in_place=True)
        pixels = np.array(_to_rgb(image))
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def header_size(encoded: Encoded, max_pixels: int = MAX_PIXELS) -> tuple[int, int]:
    """Read (height, width) from the header, EXIF applied; raises as `decode` does.

    Example:
        >>> header_size(np.zeros((3, 2, 4), np.uint8))
        (2, 4)
    """
    if isinstance(encoded, np.ndarray):
        return encoded.shape[1], encoded.shape[2]
    with _open(encoded, max_pixels) as image:
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


def why_not_decoded(error: Exception) -> str:
    """Reason in one line, without the path that the place beside it names."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(said.split())[:200] or type(error).__name__


def _open(encoded: bytes | Path, max_pixels: int) -> Image.Image:
    if isinstance(encoded, Path):
        require_regular(encoded)
    Image.MAX_IMAGE_PIXELS = max_pixels  # PIL's own guard, for pages and frames that are met later
    try:
        image = _identified(encoded)
    except Image.DecompressionBombError as error:
        raise OSError(f"it has more than twice the {max_pixels:,} pixels of --max-pixels") from error
    width, height = image.size
    if width * height > max_pixels:
        image.close()
        raise OSError(f"it has {width:,} x {height:,} pixels, more than the {max_pixels:,} of --max-pixels")
    return image


def _identified(encoded: bytes | Path) -> Image.Image:
    try:
        return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
    except UnidentifiedImageError:
        head = _head(encoded)
        if head[4:8] == b"ftyp" and can_read_heif():  # by content: many a .jpg of a telephone is HEIC
            return Image.open(io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded)
        raise OSError(why_unknown(head)) from None


def _head(encoded: bytes | Path) -> bytes:
    if isinstance(encoded, bytes):
        return encoded[:16]
    with encoded.open("rb") as file:
        return file.read(16)


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):  # PIL would clip these to white
        return Image.fromarray(to_eight_bits(np.asarray(image))).convert("RGB")
    if image.mode == "LAB":
        lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        return ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB") or image
    if image.mode.lower() in ("la", "pa", "rgba") or "transparency" in image.info:
        if image.mode in ("La", "RGBa"):  # colours multiplied by alpha
            image = image.convert({"La": "LA", "RGBa": "RGBA"}[image.mode])
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def to_eight_bits(pixels: np.ndarray) -> np.ndarray:
    """Scale numbers of any range to uint8, without clipping.

    White is 1, or the largest number of 8, 10, 12, 14 or 16 bits: the least that holds all values, so that 12
    bits in a file of 16 are not black. Other ranges, with negative numbers or larger ones, are stretched
    from the smallest value to the largest. Numbers that are not finite are a ValueError.

    Example:
        >>> to_eight_bits(np.array([0, 2048, 4095], np.uint16)), to_eight_bits(np.array([-3.0, 1.0]))
        (array([  0, 128, 255], dtype=uint8), array([  0, 255], dtype=uint8))
    """
    low, high = float(pixels.min()), float(pixels.max())
    if not math.isfinite(high - low):
        raise ValueError("pixels are not finite numbers")
    whites = [1.0] * (pixels.dtype.kind == "f") + [2.0**bits - 1 for bits in (8, 10, 12, 14, 16)]
    holding = [white for white in whites if white >= high]
    if low >= 0 and holding:
        low, high = 0.0, holding[0]
    scaled = (pixels.astype(np.float64) - low) * (255 / max(high - low, 1e-300))
    return scaled.round().astype(np.uint8)
