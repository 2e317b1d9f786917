"""Views by masks are the views by branches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fullrank.errors import UsageError
from fullrank.views import VIEWS, DenseViews, View, Views
from fullrank.views.params import RandomNumbers
from views.test_views import pixels

PLAIN_RECIPES = [name for name in VIEWS if not any(view.randaugment for view in VIEWS[name].views)]
SIZE, BATCH = 24, 12


def photos() -> Tensor:
    return pixels(BATCH, 30, 36)


def assert_close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    """Equal to rounding; where a value lies on solarize's threshold, that may invert it."""
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert ((one - other).abs() > 1e-4).double().mean() < 1e-3


def drawn(views: Views, seed: int = 1) -> RandomNumbers:
    return views.random_numbers(BATCH, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", PLAIN_RECIPES)
def test_every_preset_gives_the_same_views_from_images_and_from_crops_of_workers(name: str) -> None:
    plain = Views(name, SIZE)
    dense, images, draws = DenseViews(plain), photos(), drawn(plain)
    assert_close(dense.make(images, draws), plain.make(images, draws))
    cut = plain.sample(BATCH, 30, 36, torch.Generator().manual_seed(2))
    rows = [plain.crop_in_worker(image, cut, row) for row, image in enumerate(images)]
    crops = [torch.stack(crop) for crop in zip(*rows, strict=True)]
    assert_close(dense.make(crops, draws), plain.make(crops, draws))


def test_the_views_of_some_rows_are_those_rows_of_the_views() -> None:
    dense = DenseViews(Views("simsiam", SIZE))
    images, draws = photos(), drawn(dense)
    assert_close(
        dense.make(images[4:8], draws.rows(slice(4, 8))), [v[4:8] for v in dense.make(images, draws)]
    )


@pytest.mark.slow
def test_compiled_views_are_the_same() -> None:
    plain = Views("simsiam", SIZE)
    compiled = DenseViews(plain, compiled="default")
    images, draws = photos(), drawn(plain)
    assert_close(compiled.make(images, draws), plain.make(images, draws))


class Counted(TorchDispatchMode):
    """Counts what a device would be asked to do."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.asked = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.asked += not func.is_view
        return func(*args, **(kwargs or {}))


def test_two_equal_recipes_go_through_together() -> None:
    view = View(crop=(0.2, 1.0), jitter_p=0.8, hue=0.1)
    one, two = (DenseViews(Views([view] * n, SIZE)) for n in (1, 2))
    asked = []
    for views in (one, two):
        with Counted() as counted:
            views.make(photos(), drawn(views))
        asked.append(counted.asked)
    assert asked[1] < 1.1 * asked[0]


def test_what_cannot_be_made_is_said() -> None:
    with pytest.raises(UsageError, match="RandAugment are made by `Views`"):
        DenseViews(Views("asym-aug", SIZE))
    views = DenseViews(Views("simsiam", SIZE))
    with pytest.raises(UsageError, match=r"images are \(3, 3, 30, 36\); give \[12, 3, height, width\]"):
        views.make(photos()[:3], drawn(views))
