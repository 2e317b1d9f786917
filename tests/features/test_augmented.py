"""Several views of each image: the same ones whatever the batches and the processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from fullrank.encoders.opening import open_encoder
from fullrank.errors import UnknownNameError, UsageError
from fullrank.features.augmented import BLOCK, Augmentation, augmented_batches
from fullrank.features.extraction import embed_images
from fullrank.images.named import open_folder
from fullrank.images.opening import open_data
from fullrank.images.sources import LazySource, Source
from fullrank.views import Views

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)


def seen(source: Source, batch: int, part: np.ndarray, seed: int = 0, count: int = 3) -> dict[int, Tensor]:
    """The views [k, 3, S, S] of each image."""
    views = Augmentation(count, "simsiam-cifar", seed).views(16, MEAN, STD)
    found: dict[int, Tensor] = {}
    for indices, made in augmented_batches(source, part, batch, views, seed, 0, torch.device("cpu")):
        found |= {int(index): torch.stack([view[k] for view in made]) for k, index in enumerate(indices)}
    return found


def lazy(tmp_path_factory: pytest.TempPathFactory) -> Source:
    from PIL import Image

    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for k in range(12):
        pixels = rng.integers(0, 256, (20 + k, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k:02}.png")
    (folder / "05.png").write_bytes(b"no picture")
    return open_folder(folder)[0]


@pytest.mark.parametrize("kind", ["memory", "lazy"])
def test_views_do_not_depend_on_batches_or_parts(kind: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    if kind == "memory":
        source: Source = open_data("shapes", limit=BLOCK + 40).train
    else:
        source = lazy(tmp_path_factory)
        assert isinstance(source, LazySource)
        source = LazySource(**{**vars(source), "tolerance": 1})
    every = np.arange(len(source))
    whole = seen(source, 64, every)
    assert len(whole) == len(source) - (kind == "lazy"), "what cannot be decoded is left out"
    begin = len(source) // 3
    for batch, part in ((7, every), (64, every[begin:])):
        other = seen(source, batch, part)
        assert all(torch.allclose(whole[k], views, atol=1e-6) for k, views in other.items())
        assert set(other) == set(whole) & set(part.tolist())
    again = seen(source, 64, every, seed=1)
    assert not any(torch.equal(whole[k], again[k]) for k in whole), "another seed, other views"
    assert all(not torch.equal(views[0], views[1]) for views in whole.values())


def test_small_crops_are_left_out_and_full_views_take_turns() -> None:
    views = Augmentation(3, "dino-multicrop").views(64, MEAN, STD)
    assert views.sizes == (64, 64, 64) and views.recipe[0] == views.recipe[2] != views.recipe[1]


def test_rows_of_the_views_of_an_image_come_one_after_the_other() -> None:
    model = open_encoder("resnet18", pretrained=False, image_size=32)
    source = open_data("shapes", limit=10).train
    parts = list(embed_images(model, source, None, 4, "cpu", augmentation=Augmentation(2, "simsiam-cifar")))
    rows = torch.cat([part.rows["features"] for part in parts])
    indices = torch.cat([part.indices for part in parts])
    labels = torch.cat([part.labels for part in parts if part.labels is not None])
    assert rows.shape == (20, 512)
    assert indices.tolist() == [k for k in range(10) for _ in range(2)]
    assert source.labels is not None and np.array_equal(labels.numpy(), source.labels.repeat(2))
    views = Augmentation(2, "simsiam-cifar").views(model.image_size, model.mean or (), model.std or ())
    batches = augmented_batches(source, np.arange(10), 10, views, 0, 0, torch.device("cpu"))
    _, (first, second) = next(batches)
    with torch.no_grad():
        expected = torch.stack([model.network(first), model.network(second)], 1).flatten(0, 1)
    assert torch.allclose(rows, expected, atol=1e-5)


def test_nonsense_is_refused() -> None:
    with pytest.raises(UsageError, match="0 augmented views are none"):
        Augmentation(0)
    with pytest.raises(UnknownNameError, match="'simsaim'; did you mean 'simsiam'"):
        Augmentation(2, "simsaim")
    assert isinstance(Augmentation(1).views(8, MEAN, STD), Views)
