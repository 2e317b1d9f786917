"""A classifier trained on images: the encoder's part in it, the papers' settings, and what a kill leaves."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fullrank.encoders.encoder import Encoder
from fullrank.errors import UsageError
from fullrank.evaluation.classifier import train_classifier
from fullrank.evaluation.finetune import label_share
from fullrank.evaluation.protocols import FINETUNING, PROTOCOLS, Protocol
from fullrank.images.opening import open_data
from fullrank.images.sources import Data

QUICK = Protocol("quick", epochs=3, batch_size=64, lr=0.5)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def data() -> Data:
    return open_data("shapes", limit=192, image_size=16)


def encoder() -> Encoder:
    """A small network with a BatchNorm, whose statistics would tell that it was run in training mode."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten()]
    network = nn.Sequential(*layers).eval().requires_grad_(False)
    return Encoder("small", network, 32, 16)


def state(model: Encoder) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.network.state_dict().items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], value) for name, value in other.items())


@pytest.mark.parametrize("protocol", [QUICK, FINETUNING.changed(epochs=2)], ids=["frozen", "tuned"])
def test_the_given_encoder_is_left_as_it_was(data: Data, protocol: Protocol) -> None:
    model = encoder()
    before = state(model)
    train_classifier(model, data, protocol)
    assert equal(before, state(model))
    assert not model.network.training


def test_the_classifier_learns(data: Data) -> None:
    found = train_classifier(encoder(), data, QUICK.changed(epochs=20, lr=2.0))
    assert found.loss[-1] < 0.95 * found.loss[0]
    assert max(found.top1) > 1.5 / 10


def test_fine_tuning_fits_better_than_a_frozen_encoder(data: Data) -> None:
    frozen = train_classifier(encoder(), data, QUICK.changed(epochs=6))
    tuned = train_classifier(encoder(), data, Protocol("t", 6, 64, 0.5, frozen=False))
    assert tuned.loss[-1] < frozen.loss[-1]


def test_the_first_step_is_that_of_plain_sgd_on_the_cross_entropy() -> None:
    """One batch of all images, cut whole and never flipped by chance, from a zero start: computed by hand."""
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8)
    from fullrank.images.sources import MemorySource

    symmetric = torch.cat([images, images.flip(3)], 3)[..., ::2]
    symmetric = torch.cat([symmetric[..., :8], symmetric[..., :8].flip(3)], 3)  # a flip changes nothing
    source = MemorySource(name="made", images=symmetric, labels=np.arange(8) % 4)
    model = encoder()
    found = train_classifier(
        model, Data("made", source, source), Protocol("one", 1, 8, 3.2, crop=(1.0, 1.0), init_std=1e-12)
    )
    assert found.loss == [pytest.approx(math.log(4), abs=1e-6)]
    mean, std = torch.tensor(source.mean).view(3, 1, 1), torch.tensor(source.std).view(3, 1, 1)
    h = model.network((symmetric / 255 - mean) / std)
    labels = torch.arange(8) % 4
    error = torch.full((8, 4), 0.25) - nn.functional.one_hot(labels, 4)
    lr = 3.2 * 8 / 256
    logits = h @ (-lr * error.T @ h / 8).T - lr * error.mean(0)
    assert found.top1 == [(logits.argmax(1) == labels).double().mean().item()]


@pytest.mark.parametrize("protocol", [QUICK, FINETUNING.changed(epochs=3)], ids=["frozen", "tuned"])
def test_an_interrupted_training_goes_on_to_the_same_end(
    data: Data, protocol: Protocol, tmp_path: Path
) -> None:
    whole = train_classifier(encoder(), data, protocol)

    def stop(_: str, done: int, __: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    file = tmp_path / "probe.pt"
    with pytest.raises(KeyboardInterrupt):
        train_classifier(encoder(), data, protocol, state=file, on_progress=stop)
    resumed = train_classifier(encoder(), data, protocol, state=file)
    assert (resumed.top1, resumed.loss) == (whole.top1, whole.loss)
    assert not file.exists()


def test_a_state_of_another_protocol_is_not_taken_up(data: Data, tmp_path: Path) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "probe.pt"
    with pytest.raises(KeyboardInterrupt):
        train_classifier(encoder(), data, QUICK, state=file, on_progress=stop)
    other = train_classifier(encoder(), data, QUICK.changed(lr=0.1), state=file)
    assert len(other.top1) == 3
    assert other.loss == train_classifier(encoder(), data, QUICK.changed(lr=0.1)).loss


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_trains(data: Data, name: str) -> None:
    found = train_classifier(encoder(), data, PROTOCOLS[name].changed(epochs=1))
    assert math.isfinite(found.loss[0])


def test_the_literatures_rates() -> None:
    assert [PROTOCOLS["simsiam"].rate(epoch) for epoch in (0, 45)] == [
        pytest.approx(0.1),
        pytest.approx(0.05),
    ]
    rates = [PROTOCOLS["rdm-simsiam"].rate(epoch) for epoch in (0, 59, 60, 79, 80, 99)]
    assert rates == [pytest.approx(rate) for rate in (30, 30, 3, 3, 0.3, 0.3)]


def test_smaller_shares_of_labels_lie_within_larger_ones_and_have_every_class(data: Data) -> None:
    def images(share: float) -> set[bytes]:
        train: Any = label_share(data, share).train
        assert set(train.labels.tolist()) == set(range(10))
        return {image.numpy().tobytes() for image in train.images}

    assert images(0.1) < images(0.5) < images(1.0)


def test_images_without_labels_are_left_out(data: Data) -> None:
    from dataclasses import replace

    labels = data.train.labels.copy()  # type: ignore[union-attr]
    labels[::2] = -1
    half = replace(data, train=replace(data.train, labels=labels))
    assert train_classifier(encoder(), half, QUICK.changed(epochs=1)).images == 96


@pytest.mark.parametrize("share", [0.0, -0.1, 1.5])
def test_a_share_that_is_none_is_refused(data: Data, share: float) -> None:
    with pytest.raises(UsageError, match="share of labels lies in"):
        label_share(data, share)


def test_unlabelled_data_is_refused_in_one_line(data: Data) -> None:
    from dataclasses import replace

    bare = replace(data, train=replace(data.train, labels=None))
    with pytest.raises(UsageError, match="have no labels"):
        train_classifier(encoder(), bare, QUICK)
