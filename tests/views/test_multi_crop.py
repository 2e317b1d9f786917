"""Views of several sizes and roles: what they look like, how workers cut them, and their presets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from fullrank.images.loader import Batches
from fullrank.images.sources import LazySource
from fullrank.views import VIEWS, Role, View, Views
from views.test_views import pixels, sampled

ASYMMETRIC = [name for name in VIEWS if name.startswith("asym-")]
FULL = View(crop=(0.2, 1.0), flip_p=0.5, blur_p=1.0, erase_p=1.0)
SMALL = replace(FULL, crop=(0.05, 0.14), size=0.5, role="source")


def test_each_view_has_its_own_side() -> None:
    views, images = Views([FULL, SMALL], 32), pixels(4, 40, 48)
    made = views(images, sampled(views, images))
    assert [tuple(view.shape) for view in made] == [(4, 3, 32, 32), (4, 3, 16, 16)]


def test_a_small_view_is_the_full_view_of_a_small_recipe_bitwise() -> None:
    images = pixels(4, 40, 48)
    small, full = Views([SMALL], 32), Views([replace(SMALL, size=1.0)], 16)
    made, expected = (v(images, sampled(v, images))[0] for v in (small, full))
    assert torch.equal(made, expected)


@pytest.mark.parametrize(
    ("size", "image_size", "side"),
    [(96 / 224, 224, 96), (0.5, 33, 16), (0.01, 32, 8), (0.01, 4, 4), (1.0, 7, 7)],
)
def test_a_side_is_rounded_and_not_below_8(size: float, image_size: int, side: int) -> None:
    assert Views([View(size=size)], image_size).sizes == (side,)


def test_the_clean_view_has_the_full_size() -> None:
    assert Views([SMALL], 32).clean(pixels(2, 40, 48)).shape == (2, 3, 32, 32)


class Noise:
    """Images of differing sizes."""

    def __len__(self) -> int:
        return 6

    def __getitem__(self, i: int) -> Any:
        return pixels(1, 40 + i, 50)[0].numpy()

    def where(self, i: int) -> str:
        return f"noise {i}"


class Cut:
    """The crops of an image by its place."""

    def __init__(self, views: Views) -> None:
        self.views = views

    def __call__(self, image: Tensor, index: int, epoch: int, position: int) -> list[Tensor]:
        height, width = image.shape[1:]
        params = self.views.sample(1, height, width, torch.Generator().manual_seed(position))
        return self.views.crop_in_worker(image, params, row=0)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loader_collates_crops_of_several_sizes(workers: int) -> None:
    views = Views([replace(FULL, scale_mix=True), SMALL], 32)
    source = LazySource(name="noise", items=Noise(), index=torch.arange(6).numpy())
    (_, (_, crops)) = next(Batches(source, 3, seed=0, workers=workers, crop=Cut(views)).epoch(0))
    assert [tuple(crop.shape) for crop in crops] == [(3, 3, 32, 32), (3, 3, 32, 32), (3, 3, 16, 16)]
    assert isinstance(crops, list)
    made = views.finish(crops, views.sample(3, 32, 32, torch.Generator()))
    assert [view.shape[-1] for view in made] == [32, 16]


# -- Presets -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "sizes", "roles"),
    [
        ("asym-baseline", (224,) * 2, ("both",) * 2),
        ("asym-one-sided", (224,) * 2, ("source", "target")),
        ("asym-multicrop", (224,) * 2 + (96,) * 6, ("both",) * 2 + ("source",) * 6),
        ("asym-scalemix", (224,) * 2, ("source", "target")),
        ("asym-aug", (224,) * 2, ("source", "target")),
        ("asym-meanenc", (224,) * 3, ("source", "target", "target")),
        ("dino-multicrop", (224,) * 2 + (96,) * 8, ("both",) * 2 + ("source",) * 8),
        ("swav-multicrop", (224,) * 2 + (96,) * 6, ("both",) * 2 + ("source",) * 6),
    ],
)
def test_sizes_and_roles_of_the_presets(name: str, sizes: tuple[int, ...], roles: tuple[str, ...]) -> None:
    views = Views(name, 224)
    assert views.sizes == sizes and views.roles == roles


@pytest.mark.parametrize("name", [name for name in ASYMMETRIC if "-target" in name])
def test_a_mirrored_preset_swaps_the_sides_and_nothing_else(name: str) -> None:
    plain, mirrored = VIEWS[name.replace("-target", "")].views, VIEWS[name].views
    other: dict[Role, Role] = {"source": "target", "target": "source", "both": "both"}
    assert plain == tuple(replace(view, role=other[view.role]) for view in mirrored) != mirrored


@pytest.mark.parametrize("name", [name for name in ASYMMETRIC if name.endswith("-cifar")])
def test_a_preset_for_small_images_has_no_blur_and_crops_of_half_the_side(name: str) -> None:
    views = VIEWS[name].views
    assert not any(view.blur_p for view in views)
    assert set(Views(name, 32).sizes) == ({32, 16} if "multicrop" in name else {32})


def test_every_design_has_its_mirror_and_its_variant_for_small_images() -> None:
    for design in ("multicrop", "scalemix", "aug", "meanenc"):
        for name in ("", "-target", "-cifar", "-target-cifar"):
            assert f"asym-{design}{name}" in VIEWS
    assert "asym-baseline-cifar" in VIEWS and "asym-one-sided-cifar" in VIEWS


def test_the_designs_differ_from_the_baseline_by_what_they_are_named_after() -> None:
    base = VIEWS["asym-baseline"].views[0]
    source = replace(base, role="source")
    assert VIEWS["asym-scalemix"].views[0] == replace(source, scale_mix=True)
    assert VIEWS["asym-aug"].views[0] == replace(source, randaugment=2)
    small = replace(source, crop=(0.05, 0.14), size=96 / 224)
    assert VIEWS["asym-multicrop"].views == (replace(base, crop=(0.14, 1.0)),) * 2 + (small,) * 6
    weak = VIEWS["asym-aug"].views[1]
    assert weak == View(crop=(0.08, 1.0), interpolation="bilinear", flip_p=0.5, role="target")


def test_areas_of_the_multi_crop_presets() -> None:
    areas = {name: [v.crop for v in VIEWS[name].views[1:3]] for name in ("dino-multicrop", "swav-multicrop")}
    assert areas == {
        "dino-multicrop": [(0.4, 1.0), (0.05, 0.4)],
        "swav-multicrop": [(0.14, 1.0), (0.05, 0.14)],
    }
