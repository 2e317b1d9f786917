"""What a view is, and the presets of the literature by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from fullrank.data import image_ops as ops
from fullrank.errors import UsageError
from fullrank.registry import Registry

__all__ = ["VIEWS", "View", "ViewSet"]


@dataclass(frozen=True)
class View:
    """The recipe of one view. The default changes nothing but the size.

    Args:
        crop: (low, high) share of the image's area that a random crop takes, in (0, 1]; None: the shortest
            side is resized and the centre kept.
        ratio: (low, high) width over height of that crop, drawn on a log scale.
        interpolation: of the resizing, always antialiased: "bicubic" or "bilinear".
        flip_p: probability of mirroring left to right.
        jitter_p: probability of a colour jitter: the next four, in random order.
        brightness: strength b; the factor is uniform in [max(0, 1 - b), 1 + b]. So for the next two.
        contrast: strength.
        saturation: strength.
        hue: strength h in [0, 0.5]; the hue turns by uniform [-h, h] of the circle.
        gray_p: probability of losing the colour.
        blur_p: probability of a Gaussian blur.
        blur_sigma: (low, high) of its standard deviation, in pixels of the view.
        solarize_p: probability of inverting the values from 128/255 on.
        rotation: the view turns by uniform [-rotation, rotation] degrees, in [0, 180]; 0 is off.
        rotation_interpolation: "nearest" or "bilinear".
        erase_p: probability of a box of zeros, after normalising.
        erase_area: (low, high) share of the view's area that the box covers.
        erase_ratio: (low, high) height over width of the box, drawn on a log scale.

    Raises:
        UsageError: a value lies outside its range.

    Example:
        >>> View(crop=(0.2, 1.0), flip_p=1.5)
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: view: flip_p is 1.5; a probability lies in [0, 1]
    """

    crop: ops.Range | None = None
    ratio: ops.Range = (3 / 4, 4 / 3)
    interpolation: ops.Interpolation = "bicubic"
    flip_p: float = 0.0
    jitter_p: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    gray_p: float = 0.0
    blur_p: float = 0.0
    blur_sigma: ops.Range = (0.1, 2.0)
    solarize_p: float = 0.0
    rotation: float = 0.0
    rotation_interpolation: ops.Interpolation = "nearest"
    erase_p: float = 0.0
    erase_area: ops.Range = (0.02, 0.33)
    erase_ratio: ops.Range = (0.3, 3.3)

    def __post_init__(self) -> None:
        def within(most: float) -> Callable[[Any], bool]:
            return lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] <= most

        probability = (lambda p: 0 <= p <= 1), "a probability lies in [0, 1]"
        strength = (lambda s: 0 <= s < math.inf), "a strength is 0 or more"
        positive = within(math.inf), "give (low, high) with 0 < low <= high"
        share = (lambda pair: pair is None or within(1)(pair)), "give (low, high) with 0 < low <= high <= 1"
        rules: dict[str, tuple[Callable[[Any], bool], str]] = {
            **dict.fromkeys(("flip_p", "jitter_p", "gray_p", "blur_p", "solarize_p", "erase_p"), probability),
            **dict.fromkeys(("brightness", "contrast", "saturation"), strength),
            **dict.fromkeys(("ratio", "blur_sigma", "erase_ratio"), positive),
            **dict.fromkeys(("crop", "erase_area"), share),
            "hue": (lambda h: 0 <= h <= 0.5, "it lies in [0, 0.5] of the circle"),
            "rotation": (lambda r: 0 <= r <= 180, "it lies in [0, 180] degrees"),
            "interpolation": (("bicubic", "bilinear").__contains__, "use 'bicubic' or 'bilinear'"),
            "rotation_interpolation": (("nearest", "bilinear").__contains__, "use 'nearest' or 'bilinear'"),
        }
        for name, (right, remedy) in rules.items():
            if not right(getattr(self, name)):
                raise UsageError(f"view: {name} is {getattr(self, name)!r}; {remedy}")


@dataclass(frozen=True)
class ViewSet:
    """A named recipe: the views of an image in their order, what they are for, and where they come from."""

    views: tuple[View, ...]
    description: str
    source: str


#: Presets of views by name.
VIEWS: Registry[ViewSet] = Registry("views preset")


def _presets() -> None:
    crop = View(crop=(0.08, 1.0), flip_p=0.5)
    jitter = replace(crop, jitter_p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, gray_p=0.2)
    even = replace(jitter, saturation=0.4)
    even_blur = replace(even, blur_p=0.5)
    swav = replace(jitter, brightness=0.8, contrast=0.8, saturation=0.8, hue=0.2, blur_p=0.5)
    byol = (replace(jitter, blur_p=1.0), replace(jitter, blur_p=0.1, solarize_p=0.2))
    light, box = View(interpolation="bilinear"), (0.4, 0.5)
    strong = replace(light, crop=(0.8, 1.0), flip_p=0.5, rotation=15.0, erase_p=1.0, erase_area=box)
    vivid = replace(jitter, crop=(0.4, 1.0), jitter_p=1.0, brightness=0.2, contrast=0.2, hue=0.5, gray_p=0.3)
    digits = View(crop=(0.6, 1.0), rotation=15.0, rotation_interpolation="bilinear")
    official = replace(even_blur, crop=(0.2, 1.0), interpolation="bilinear")
    solo, rdm, tutorial = "solo-learn", "RDM, arXiv 2303.02387", "SSL collapse tutorial, 2025"
    grill, chen, ressl = "BYOL, arXiv 2006.07733", "SimSiam, arXiv 2011.10566", "ReSSL, arXiv 2107.09282"
    for name, views, description, source in (
        ("asymmetric", (jitter, replace(jitter, solarize_p=0.2)), "small images, view 2 solarized", solo),
        ("asymmetric-imagenet", byol, "view 1 blurred, view 2 solarized", grill),
        ("byol", byol, "another name for asymmetric-imagenet", grill),
        ("symmetric", (swav,) * 2, "strong colour, blur half the time", "CPLearn's SwAV, arXiv 2410.04959"),
        ("symmetric-weak", (even_blur,) * 2, "half that colour, blur half the time", solo),
        ("ressl", (replace(jitter, blur_p=0.5), crop), "colour and blur against crop and flip", ressl),
        ("reconstruction", (crop,) * 2, "crop and flip only", solo),
        ("simsiam-cifar", (even,) * 2, "small images, no blur", rdm),
        ("simsiam-imagenet100", (even_blur,) * 2, "blur half the time, crops from 8% of the area", rdm),
        ("simsiam", (official,) * 2, "the official one: crops from 20% of the area", chen),
        ("tutorial", (strong, light), "view 1 strong, view 2 clean", tutorial),
        ("tutorial-reversed", (light, strong), "view 1 clean, view 2 strong", tutorial),
        ("tutorial-light", (light,) * 2, "both views clean", tutorial),
        ("tutorial-strong", (strong,) * 2, "both views cropped, turned and half erased", tutorial),
        ("shapes", (vivid,) * 2, "any hue, for the generated shapes", "fullrank"),
        ("digits", (digits,) * 2, "crop and small turns, for grey digits", "fullrank"),
        ("none", (View(),) * 2, "resized only", "fullrank"),
    ):
        VIEWS.register(name)(ViewSet(views, description, source))


_presets()
