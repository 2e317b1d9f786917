"""Recipe of a view, and the presets of the literature by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from fullrank.errors import UsageError
from fullrank.registry import Registry
from fullrank.views import image_ops as ops

Role = Literal["both", "source", "target"]

SMALL = 96 / 224  # side of the literature's small crops
LEAST_SIDE = 8  # pixels: below it a crop says nothing, and networks run out of pixels to pool


@dataclass(frozen=True)
class View:
    """Recipe of one view; the default changes nothing but the size.

    The stages follow the order of `Views`; RandAugment comes after every change of colour, where Asym-Siam
    puts it, and a mix of scales last of all.

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
        size: side of the view as a share of the image size, in (0, 1]; see `side`.
        role: which branch of a method with two branches sees the view: the "source", which gets the gradient,
            the "target", whose output the source regresses to, or "both", each in its turn.
        scale_mix: the view is made of two versions of the image, each drawn by all the rest of this recipe: a
            random box of the second is pasted into the first, at its place. See `random_boxes`.
        randaugment: operations of RandAugment per image; 0 is off. See `randaugment`.
        randaugment_magnitude: mean of their magnitudes, in [0, 10].
        randaugment_std: standard deviation of the magnitudes, which are then clamped to [0, 10].
        randaugment_p: probability that each of the operations is used at all; timm's is 0.5.

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
    size: float = 1.0
    role: Role = "both"
    scale_mix: bool = False
    randaugment: int = 0
    randaugment_magnitude: float = 10.0
    randaugment_std: float = 0.5
    randaugment_p: float = 0.5

    def __post_init__(self) -> None:
        def within(most: float) -> Callable[[Any], bool]:
            return lambda pair: len(pair) == 2 and 0 < pair[0] <= pair[1] <= most

        probability = (lambda p: 0 <= p <= 1), "a probability lies in [0, 1]"
        strength = (lambda s: 0 <= s < math.inf), "a strength is 0 or more"
        positive = within(math.inf), "give (low, high) with 0 < low <= high"
        share = (lambda pair: pair is None or within(1)(pair)), "give (low, high) with 0 < low <= high <= 1"
        rules: dict[str, tuple[Callable[[Any], bool], str]] = {
            **dict.fromkeys(("flip_p", "jitter_p", "gray_p", "blur_p", "solarize_p", "erase_p"), probability),
            "randaugment_p": probability,
            **dict.fromkeys(("brightness", "contrast", "saturation", "randaugment_std"), strength),
            **dict.fromkeys(("ratio", "blur_sigma", "erase_ratio"), positive),
            **dict.fromkeys(("crop", "erase_area"), share),
            "hue": (lambda h: 0 <= h <= 0.5, "it lies in [0, 0.5] of the circle"),
            "rotation": (lambda r: 0 <= r <= 180, "it lies in [0, 180] degrees"),
            "interpolation": (("bicubic", "bilinear").__contains__, "use 'bicubic' or 'bilinear'"),
            "rotation_interpolation": (("nearest", "bilinear").__contains__, "use 'nearest' or 'bilinear'"),
            "size": (lambda s: 0 < s <= 1, "it lies in (0, 1]"),
            "role": (("both", "source", "target").__contains__, "use 'both', 'source' or 'target'"),
            "randaugment": (lambda n: isinstance(n, int) and n >= 0, "give a whole number, 0 or more"),
            "randaugment_magnitude": (lambda m: 0 <= m <= 10, "it lies in [0, 10]"),
        }
        for name, (right, remedy) in rules.items():
            if not right(getattr(self, name)):
                raise UsageError(f"view: {name} is {getattr(self, name)!r}; {remedy}")

    def side(self, image_size: int) -> int:
        """Side of the view in pixels: a share of the image size, at least 8.

        Example:
            >>> View(size=96 / 224).side(224), View(size=0.5).side(32), View(size=0.1).side(32)
            (96, 16, 8)
        """
        return min(image_size, max(LEAST_SIDE, round(self.size * image_size)))


@dataclass(frozen=True)
class ViewSet:
    """Named recipe: views of an image, their purpose and their source."""

    views: tuple[View, ...]
    description: str
    source: str

    def sides(self, image_size: int) -> set[int]:
        """Sides of its views in pixels."""
        return {view.side(image_size) for view in self.views}


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
    full_swav = replace(swav, crop=(0.14, 1.0), interpolation="bilinear")
    upper = tuple(replace(view, crop=(0.2, 1.0), interpolation="bilinear") for view in byol)
    vicreg = replace(jitter, crop=(0.2, 1.0), blur_p=0.5, solarize_p=0.1)
    wide = tuple(replace(view, crop=(0.4, 1.0)) for view in byol)
    local = replace(byol[0], crop=(0.05, 0.4), blur_p=0.5, size=SMALL, role="source")
    dino_views, swav_views = (*wide, *(local,) * 8), (full_swav, full_swav, *(_small(full_swav),) * 6)
    solo, rdm, tutorial = "solo-learn", "RDM, arXiv 2303.02387", "SSL collapse tutorial, 2025"
    grill, chen, ressl = "BYOL, arXiv 2006.07733", "SimSiam, arXiv 2011.10566", "ReSSL, arXiv 2107.09282"
    for name, views, description, source in (
        ("asymmetric", (jitter, replace(jitter, solarize_p=0.2)), "small images, view 2 solarized", solo),
        ("asymmetric-imagenet", byol, "view 1 blurred, view 2 solarized", grill),
        ("byol", byol, "another name for asymmetric-imagenet", grill),
        ("mocov3", upper, "BYOL's, crops from 20% of the area", "MoCo v3, arXiv 2104.02057"),
        ("vicreg", (vicreg,) * 2, "crops from 20% of the area, blur half the time", solo),
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
        ("dino-multicrop", dino_views, "2 full views, 8 small ones for the source", "DINO, arXiv 2104.14294"),
        ("swav-multicrop", swav_views, "2 full views, 6 small ones for the source", "SwAV, arXiv 2006.09882"),
    ):
        VIEWS.register(name)(ViewSet(views, description, source))


def _small(view: View) -> View:
    return replace(view, crop=(0.05, 0.14), size=SMALL, role="source")


def _asymmetric_presets() -> None:
    """Register the designs of Asym-Siam (arXiv 2204.00613).

    Each makes the source vary more, or the target less. As there, one source view is held against one target;
    only the baseline and the full views of the multi-crop are "both". `-target` swaps the two sides, which
    ought to do harm. `-cifar` leaves out the blur and makes the side of the small crops half the image's.
    """
    both = VIEWS["simsiam"].views[0]  # MoCo-v2's augmentation, which SimSiam took over
    source, target = replace(both, role="source"), replace(both, role="target")
    full = replace(both, crop=(0.14, 1.0))
    weak = View(crop=(0.08, 1.0), interpolation="bilinear", flip_p=0.5, role="target")
    swapped: dict[Role, Role] = {"source": "target", "target": "source", "both": "both"}
    for name, views, description in (
        ("baseline", (both, both), "MoCo-v2's, both views on both sides"),
        ("one-sided", (source, target), "the same, one view for each side"),
        ("multicrop", (full, full, *(_small(both),) * 6), "2 full views, 6 small ones for the source"),
        ("scalemix", (replace(source, scale_mix=True), target), "two crops mixed for the source"),
        ("aug", (replace(source, randaugment=2), weak), "RandAugment against crop and flip"),
        ("meanenc", (source, target, target), "1 source view, 2 target views to average"),
    ):
        small = tuple(replace(v, blur_p=0.0, size=0.5 if v.size < 1 else 1.0) for v in views)
        for suffix, chosen, where in (("", views, ""), ("-cifar", small, ", small images")):
            about, wang = description + where, "Asym-Siam, arXiv 2204.00613"
            VIEWS.register(f"asym-{name}{suffix}")(ViewSet(chosen, about, wang))
            if name not in ("baseline", "one-sided"):  # they are their own mirror images
                mirrored = tuple(replace(view, role=swapped[view.role]) for view in chosen)
                views_set = ViewSet(mirrored, f"{about}; sides swapped", wang)
                VIEWS.register(f"asym-{name}-target{suffix}")(views_set)


_presets()
_asymmetric_presets()
