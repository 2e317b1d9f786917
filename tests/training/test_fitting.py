"""A run fits into the memory that there is, or is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from fullrank.errors import FullrankError, UsageError
from fullrank.images.sources import Data, LazySource, MemorySource
from fullrank.methods import METHODS
from fullrank.training import fitting, footprint
from fullrank.training.config import TrainConfig
from fullrank.training.fitting import fit_memory, naming_remedies
from fullrank.training.footprint import Footprint, estimate_footprint
from fullrank.training.machine import FreeMemory

CPU = torch.device("cpu")
VIT = "vit_tiny_patch16_224"
GPU = torch.device("cuda", 0)
Limit = Callable[[float], None]


class Noise:
    """Encoded images."""

    def __len__(self) -> int:
        return 4096

    def __getitem__(self, i: int) -> Any:
        return np.zeros((3, 224, 224), np.uint8)

    def where(self, i: int) -> str:
        return f"image {i}"


LAZY = LazySource(name="large", items=Noise(), index=np.arange(4096))
LARGE = Data("large", LAZY, LAZY.subset(np.arange(100)))
IN_MEMORY = MemorySource(name="small", images=torch.zeros(512, 3, 32, 32, dtype=torch.uint8))
SMALL = Data("small", IN_MEMORY, IN_MEMORY)


def config_of(
    method: str = "simsiam", backbone: str = "resnet18", size: int = 224, **more: Any
) -> TrainConfig:
    settings: dict[str, Any] = {
        "image_size": size,
        "backbone": backbone,
        "views": "simsiam",
        "workers": 0,
    } | more
    return TrainConfig(method=method, **settings)


def by_pixels(config: TrainConfig, *_: Any) -> Footprint:
    """In place of an estimate: 16 GB for a batch of 256 at 224 pixels, a third if checkpointed."""
    kept = 0.3 if config.checkpoint_activations else 1.0
    step = 1e3 * config.batch_size * config.image_size**2 * kept
    return Footprint(weights=1e8, step=step, evaluation=0.0, loading=0.0, loop=1e8)


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Limit:
    monkeypatch.setattr(fitting, "estimate_footprint", by_pixels)

    def set_to(gigabytes: float) -> None:
        free = FreeMemory(int(gigabytes * 1e9), "free on this machine")
        monkeypatch.setattr(fitting, "free_memory", lambda device: free)

    return set_to


def test_what_fits_stays_as_it_is_and_says_what_it_needs(limit: Limit) -> None:
    limit(100)
    config, note = fit_memory(config_of(), LARGE, CPU, ())
    assert config == config_of()
    assert note.startswith("memory: about ") and note.endswith(" of 100.0 GB free on this machine")


@pytest.mark.parametrize("method", ["simsiam", "byol", "dino", "directpred", "teacher_student"])
def test_a_loss_of_single_images_keeps_the_images_of_a_step(limit: Limit, method: str) -> None:
    limit(8)
    config, note = fit_memory(config_of(method), LARGE, CPU, ())
    assert config.batch_size < 256
    assert config.batch_size * config.accumulate == 256
    assert f"{config.accumulate} batches of {config.batch_size} a step" in note
    assert "\n" not in note


@pytest.mark.parametrize("method", ["vicreg", "wmse", "simclr", "swav", "cplearn", "lejepa"])
def test_a_loss_that_compares_images_keeps_its_batch_as_long_as_it_can(limit: Limit, method: str) -> None:
    limit(8)
    config, note = fit_memory(config_of(method), LARGE, CPU, ())
    assert config.batch_size == 256 and config.checkpoint_activations
    assert "checkpointed" in note
    limit(3)
    config, note = fit_memory(config_of(method), LARGE, CPU, ())
    assert config.batch_size < 256
    assert "compares the images of a batch" in note


def test_smaller_images_come_last(limit: Limit) -> None:
    limit(0.27 / fitting.MARGIN)
    config, note = fit_memory(config_of(), LARGE, CPU, ())
    assert config.image_size < 224
    assert f"images of {config.image_size} pixels" in note


@pytest.mark.parametrize(
    "named", [("batch_size", "checkpoint_activations", "image_size"), None], ids=["named", "whole"]
)
def test_what_was_asked_for_and_cannot_fit_is_refused_with_what_would(limit: Limit, named: Any) -> None:
    limit(6)
    says = (
        r"simsiam on batches of 256 images of 224 pixels through resnet18 needs about \d+\.\d GB of memory, "
    )
    says += r"and 6\.0 GB are free on this machine; this would fit: --batch-size \d+ --accumulate \d+"
    with pytest.raises(UsageError, match=says):
        fit_memory(config_of(), LARGE, CPU, named)


def test_what_is_said_to_fit_fits(limit: Limit) -> None:
    limit(6)
    with pytest.raises(UsageError) as refused:
        fit_memory(config_of(), LARGE, CPU, None)
    words = str(refused.value).split("this would fit: ")[1].split()
    batch, times = (int(words[words.index(flag) + 1]) for flag in ("--batch-size", "--accumulate"))
    fit_memory(config_of(batch_size=batch, accumulate=times), LARGE, CPU, None)


def test_where_nothing_fits_a_smaller_backbone_is_named(limit: Limit) -> None:
    limit(0.1)
    with pytest.raises(UsageError, match="take a smaller --backbone"):
        fit_memory(config_of(), LARGE, CPU, ())


def test_a_named_batch_is_checkpointed_rather_than_changed(limit: Limit) -> None:
    limit(8)
    config, _ = fit_memory(config_of(), LARGE, CPU, ("batch_size",))
    assert (config.batch_size, config.accumulate, config.checkpoint_activations) == (256, 1, True)


def test_a_run_that_goes_on_keeps_its_batch(limit: Limit) -> None:
    from fullrank.training.run import CHANGES_THE_RUN

    limit(8)
    config, _ = fit_memory(config_of(), LARGE, CPU, CHANGES_THE_RUN)
    assert (config.batch_size, config.image_size) == (256, 224)


def test_a_small_run_is_not_worked_out(limit: Limit, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(100)
    monkeypatch.setattr(fitting, "estimate_footprint", None)
    assert fit_memory(config_of(backbone="resnet8-w16", size=32), SMALL, CPU, None).note == ""


def test_of_a_gpu_the_images_that_move_there_are_taken_off(limit: Limit) -> None:
    config = config_of(size=32)
    needed, images = by_pixels(config).total, 2 * SMALL.train.nbytes
    limit((needed + 0.9 * images) / fitting.MARGIN / 1e9)
    with pytest.raises(UsageError, match="this would fit"):
        fit_memory(config, SMALL, GPU, None)
    limit((needed + 1.1 * images) / fitting.MARGIN / 1e9)
    assert fit_memory(config, SMALL, GPU, None).config == config


def test_processes_on_cpus_share_the_memory(limit: Limit) -> None:
    limit(22)
    assert fit_memory(config_of(), LARGE, CPU, None, processes=1).config == config_of()
    with pytest.raises(UsageError, match=r"11\.0 GB are a process, free on this machine"):
        fit_memory(config_of(), LARGE, CPU, None, processes=2)


def test_a_batch_that_the_loss_cannot_take_is_passed_over(
    limit: Limit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def picky(config: TrainConfig, *_: Any) -> Footprint:
        if config.batch_size < 128:
            raise UsageError("takes more than 64 rows")
        return by_pixels(config)

    limit(1)
    monkeypatch.setattr(fitting, "estimate_footprint", picky)
    config, _ = fit_memory(config_of("wmse"), LARGE, CPU, ())
    assert config.batch_size >= 128 and config.image_size < 224


def widths(method: str) -> list[str]:
    """Options of a method that are widths of its layers."""
    names = dict(METHODS[method].Config.__dataclass_fields__)
    if method == "wmse":  # which refuses it before, for its whitening
        del names["proj_output_dim"]
    return [name for name in names if name.endswith(("_dim", "_prototypes"))]


@pytest.mark.parametrize("size", [100_000_000, 2_000_000_000])
@pytest.mark.parametrize(
    ("method", "name"), [(method, name) for method in METHODS for name in widths(method)]
)
def test_a_width_that_no_machine_holds_is_refused_by_its_name(
    monkeypatch: pytest.MonkeyPatch, method: str, name: str, size: int
) -> None:
    monkeypatch.setattr(fitting, "free_memory", lambda device: FreeMemory(16 * 10**9, "free on this machine"))
    monkeypatch.setattr(footprint, "_peak_of_step", lambda *_: (0.0, 0.0))  # the weights alone are too many
    config = config_of(method, "resnet8-w8", 16, batch_size=16, options={name: size})
    with pytest.raises(UsageError, match=f"take a smaller --options.{name.replace('_', '-')}$") as refusal:
        fit_memory(config, SMALL, CPU, ())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("method", list(METHODS))
def test_the_widths_that_a_method_has_by_itself_leave_a_small_run_small(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    monkeypatch.setattr(fitting, "free_memory", lambda device: FreeMemory(16 * 10**9, "free on this machine"))
    config = config_of(method, "resnet8-w8", 16, batch_size=16)
    assert fit_memory(config, SMALL, CPU, ()).config == config


@pytest.mark.parametrize("name", list(METHODS))
def test_every_methods_step_is_estimated_from_its_batch(name: str) -> None:
    small, large = (
        estimate_footprint(config_of(name, "resnet8-w16", 32, batch_size=n), SMALL) for n in (128, 256)
    )
    assert 1.3 < large.step / small.step < 2.3
    assert large.weights == small.weights > 0


def test_a_loss_that_asks_for_values_is_estimated_by_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = estimate_footprint(config_of(size=32), SMALL).step

    def curious(self: Any, views: Any) -> Any:
        return self.encode_source(views[0])["projector"].sum().item()

    monkeypatch.setattr(METHODS["simsiam"], "loss", curious)
    assert estimate_footprint(config_of(size=32), SMALL).step == pytest.approx(expected, rel=0.1)


def test_checkpointing_lowers_the_estimate() -> None:
    plain, checkpointed = (
        estimate_footprint(config_of(backbone=VIT, checkpoint_activations=on), LARGE).step
        for on in (False, True)
    )
    assert checkpointed < 0.6 * plain


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        MemoryError(),
        RuntimeError("can't allocate memory: 9"),
    ],
)
def test_running_out_of_memory_names_the_remedies(error: Exception) -> None:
    says = r"--batch-size.*--checkpoint-activations.*--image-size"
    with pytest.raises(FullrankError, match=says), naming_remedies(config_of()):
        raise error


def test_another_error_passes() -> None:
    with pytest.raises(RuntimeError, match="something else"), naming_remedies(config_of()):
        raise RuntimeError("something else")
