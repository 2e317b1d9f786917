"""Features with labels: from files, stores and encoders, and one line where something is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fullrank.errors import FullrankError, UsageError
from fullrank.evaluation.labelled import Features, _batch_statistics, open_features
from fullrank.features.writing import StoreWriter
from fullrank.options import EvaluateOptions

SMALL, WIDTH = "timm:test_resnet", 96


def opened(what: str | Path, **options: Any) -> Features:
    return open_features(what, EvaluateOptions(**options))


def saved(path: Path, n: int, d: int = 4, labels: bool = True, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)
    arrays: dict[str, Any] = {"features": rows} | ({"labels": np.arange(n) % 5} if labels else {})
    np.savez(path, **arrays)
    return rows


def test_train_and_test_files_are_taken_as_they_are(tmp_path: Path) -> None:
    train, test = saved(tmp_path / "a.npz", 30), saved(tmp_path / "b.npz", 10, seed=1)
    features = opened(tmp_path / "a.npz", test=str(tmp_path / "b.npz"))
    assert np.array_equal(features.train.rows.numpy(), train)
    assert np.array_equal(features.test.rows.numpy(), test)
    assert features.test.labels.tolist() == [i % 5 for i in range(10)]


def test_of_a_single_file_a_fifth_is_held_out_and_that_is_said(tmp_path: Path) -> None:
    rows = saved(tmp_path / "a.npz", 50)
    features = opened(tmp_path / "a.npz")
    together = torch.cat([features.train.rows, features.test.rows]).numpy()
    assert (len(features.train), len(features.test)) == (40, 10)
    assert np.array_equal(np.sort(together, axis=0), np.sort(rows, axis=0))
    assert any("held out" in note for note in features.notes)


def test_labels_may_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    np.save(tmp_path / "z.npy", np.ones((6, 2), np.float32))
    (tmp_path / "y.csv").write_text("label\n" + "\n".join("abcabc") + "\n")
    features = opened(tmp_path / "z.npy", labels=str(tmp_path / "y.csv"))
    assert sorted(torch.cat([features.train.labels, features.test.labels]).tolist()) == [0, 0, 1, 1, 2, 2]


def test_a_store_gives_the_tap_that_was_asked_for(tmp_path: Path) -> None:
    about = {"subject": "made", "data": "noise", "taps": ["features", "projector"], "views": 0}
    for split in ("train", "test"):
        writer = StoreWriter(tmp_path, split, about)
        rows = {"features": torch.zeros(4, 3), "projector": torch.ones(4, 2)}
        writer.add(rows, torch.arange(4), torch.tensor([0, 1, 0, 1]), images=4)
        writer.finish({"classes": ["cat", "dog"]})
    features = opened(tmp_path, tap="projector")
    assert features.train.rows.tolist() == [[1.0, 1.0]] * 4
    assert (features.name, features.classes) == ("made", ("cat", "dog"))


def test_features_of_an_encoder_are_those_of_its_network_on_the_normalised_images() -> None:
    features = opened(SMALL, untrained=True, data="shapes", limit=12, image_size=32)
    assert features.train.rows.shape == (12, WIDTH)
    assert len(features.train.labels.unique()) > 1


def test_legacy_batchnorm_uses_each_batchs_statistics_and_forgets_them() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    x = torch.randn(16, 3, 8, 8)
    before = network(x)
    with _batch_statistics(network):
        inside = network(x)
    expected = nn.functional.batch_norm(network[0](x), None, None, training=True)
    assert torch.allclose(inside, expected, atol=1e-6)
    assert torch.equal(network(x), before)


@pytest.mark.parametrize("legacy", [False, True])
def test_features_do_not_depend_on_the_batch_size_that_is_asked_for(legacy: bool) -> None:
    torch.manual_seed(0)
    images: dict[str, Any] = {"untrained": True, "data": "shapes", "limit": 96, "image_size": 32}
    one, other = (
        opened(SMALL, batch_size=size, legacy_batchnorm=legacy, **images).train.rows for size in (96, 32)
    )
    assert torch.allclose(one, other, atol=1e-5)  # legacy batches are of 64, whatever the size asked for


def test_widths_that_differ_are_refused(tmp_path: Path) -> None:
    saved(tmp_path / "a.npz", 30)
    saved(tmp_path / "b.npz", 10, d=3)
    with pytest.raises(UsageError, match=r"4 dimensions and .* 3"):
        opened(tmp_path / "a.npz", test=str(tmp_path / "b.npz"))


@pytest.mark.parametrize("what", ["file", "images"])
def test_without_labels_one_line_says_so(tmp_path: Path, what: str) -> None:
    if what == "file":
        saved(tmp_path / "a.npz", 10, labels=False)
        subject: tuple[str, dict[str, Any]] = str(tmp_path / "a.npz"), {}
    else:
        from PIL import Image

        for i in range(24):
            Image.new("RGB", (32, 32), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
        subject = SMALL, {"untrained": True, "data": str(tmp_path), "image_size": 32}
    with pytest.raises(UsageError, match="labels, which this evaluation needs"):
        opened(subject[0], **subject[1])


def test_half_a_store_is_refused(tmp_path: Path) -> None:
    writer = StoreWriter(tmp_path, "train", {"subject": "made", "taps": ["features"]})
    writer.add({"features": torch.zeros(2, 2)}, torch.arange(2), torch.tensor([0, 1]), images=2)
    writer.finish({"classes": None})
    with pytest.raises(FullrankError, match="--split train,test"):
        opened(tmp_path)
