"""What a step asks of the device that it runs on: PyTorch's `meta` device stands in for a GPU.

It holds no values, so that whatever would make the host wait for one (`item`, `nonzero`, a copy to the CPU, a
branch) is an error there. What a GPU would wait for on the way to it is refused by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fullrank.methods import METHODS
from fullrank.training import finite
from fullrank.training import setup as building
from fullrank.training.config import TrainConfig
from fullrank.training.launch import launch_fabric
from fullrank.training.loop import Loop
from fullrank.training.run_dir import RunDir
from methods.shrunk import shrunk

META = torch.device("meta")
STEPS = 2
WAITING = {"wmse"}  # asks whether its Cholesky factorisation failed, to say what would help


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training runs on `meta`; autocast and generators, which it has none of, are the CPU's."""
    autocast, enabled, generator = torch.autocast, torch.is_autocast_enabled, torch.Generator
    normal = torch.randn

    class Autocast(autocast):  # type: ignore[valid-type, misc]
        def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
            super().__init__("cpu" if device_type == "meta" else device_type, *args, **kwargs)

    def there(*shape: int, generator: torch.Generator | None = None, **how: Any) -> torch.Tensor:
        return normal(*shape, generator=generator).to(**how, non_blocking=True)

    monkeypatch.setattr(torch, "autocast", Autocast)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda k="cpu": enabled("cpu" if k == "meta" else k))
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator("cpu"))
    monkeypatch.setattr(torch, "randn", there)
    monkeypatch.setattr(Fabric, "device", property(lambda _: META))
    monkeypatch.setattr(finite, "Sent", Arrived)


class Arrived:
    """What is sent to the host beside the step: there are no values, so zeros arrive."""

    def __init__(self, values: torch.Tensor) -> None:
        self.count = len(values)

    def numbers(self) -> list[float]:
        return [0.0] * self.count


class NoWaiting(TorchDispatchMode):
    """Refuses operations on tensors of two devices, and to send without `non_blocking` or from a list."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        where = {t.device.type for t in tensors if t.ndim or t.device.type != "cpu"}
        name = func.name()
        if name in ("aten::_to_copy", "aten::copy_"):
            aim = torch.device(kwargs.get("device") or args[0].device)
            sent = aim == META and tensors[-1].device != META
            assert not sent or kwargs.get("non_blocking") or args[2:3] == (True,), f"{name} waits"
        else:
            assert len(where) < 2, f"{func} takes tensors on {sorted(where)}"
        assert name != "aten::lift_fresh" or META.type not in where, "a list is sent, and waited for"
        return func(*args, **kwargs)


def train_on_meta(folder: Path, method: str, **settings: Any) -> Loop:
    """A loop that has taken a few steps there."""
    tiny: Mapping[str, Any] = {
        "limit": 32 * STEPS, "batch_size": 32, "backbone": "resnet8-w16", "image_size": 32, "probe": "own",
        "level_every": 1000, "accelerator": "cpu", "options": shrunk(method),
    }  # fmt: skip
    config = TrainConfig(method=method, **{**tiny, **settings})
    fabric = launch_fabric(config)
    config, data = building.prepare(config, fabric)
    loop = Loop(building.setup(config, data, fabric), RunDir.create(folder / "run", config), ())
    loop.s.method.train()
    images = torch.zeros(32, 3, 32, 32, dtype=torch.uint8, device=META)
    loop.make_views(images, 0)  # constants are sent once
    loop.state.step = 1  # the first step is logged, and what is logged is waited for
    with NoWaiting():  # type: ignore[no-untyped-call]
        loop.train_epoch()
    return loop


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("method", sorted(set(METHODS) - WAITING))
def test_a_step_never_waits_for_the_device_nor_mixes_two(method: str, tmp_path: Path) -> None:
    loop = train_on_meta(tmp_path, method)
    assert loop.state.step == STEPS
    assert {p.device for p in loop.s.method.parameters()} == {META}
    assert torch.as_tensor(loop.state.loss_sum).device == META


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "lars", "exclude_1d_decay": True, "lars_clip": True},
        {"clip_grad": 1.0},
        {"optimizer": "adamw", "accumulate": 2, "probe": "shared"},
        {"views": "asym-multicrop-cifar", "method": "byol"},
        {"views": "asym-scalemix", "image_size": 64},
        {"views": "digits"},
        {"views": "asym-aug", "method": "byol"},
    ],
    ids=["lars", "clipped", "adamw, accumulated", "multi-crop", "mixed scales", "rotated", "RandAugment"],
)
def test_no_option_makes_a_step_wait(settings: dict[str, Any], tmp_path: Path) -> None:
    method = settings.pop("method", "simsiam")
    loop = train_on_meta(tmp_path, method, **settings)
    assert {p.device for p in loop.s.method.parameters()} == {META}
