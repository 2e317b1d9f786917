"""Small loops on images of noise, and the ways in which their numbers go wrong."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.errors import NotFiniteError
from fullrank.images.sources import Data, MemorySource
from fullrank.methods import Step
from fullrank.training.config import TrainConfig
from fullrank.training.launch import launch_fabric
from fullrank.training.loop import Loop
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import resolve, setup

NAN, INF = float("nan"), float("inf")
IMAGES, BATCH = 24, 8
STEPS = IMAGES // BATCH
BAD_IMAGE = 7
METHODS: dict[str, dict[str, Any]] = {
    "simsiam": {"proj_output_dim": 16, "pred_hidden_dim": 8},
    "byol": {"proj_hidden_dim": 32, "proj_output_dim": 16, "pred_hidden_dim": 32},
    "swav": {"proj_hidden_dim": 32, "proj_output_dim": 16, "num_prototypes": 24},
}
Break = Callable[[Loop], None]


def config(method: str = "simsiam", **changes: Any) -> TrainConfig:
    """A run of two epochs with three steps each."""
    values: dict[str, Any] = {
        "data": "noise", "batch_size": BATCH, "epochs": 2, "backbone": "resnet8-w4", "level_every": 1,
        "accelerator": "cpu", "watch_images": 32, "knn_every": 0, "lr": 0.2, "views": "shapes",
        "probe": "off", "image_size": 8, "options": METHODS.get(method, {}),
    }  # fmt: skip
    return TrainConfig(method=method, **{**values, **changes})


def noise(bad: float | None = None, labelled: bool = False) -> Data:
    """Images as floats, of which one may have a pixel that is not finite."""
    images = torch.rand(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    if bad is not None:
        images[BAD_IMAGE, 1, 4, 4] = bad
    labels = torch.arange(IMAGES).remainder(2).numpy() if labelled else None
    held_out = images.nan_to_num(0.0, 0.0, 0.0)
    train = MemorySource(name="noise", images=images, labels=labels)
    return Data("noise", train, MemorySource(name="held out", images=held_out, labels=labels))


def loop_of(
    folder: Path, data: Data | None = None, prepare: Callable[[Any], None] = lambda _: None, **changes: Any
) -> Loop:
    """A loop before its first step; `prepare` may change its Fabric before anything is built."""
    data = data or noise()
    fabric = launch_fabric(config(**changes))
    prepare(fabric)
    resolved = resolve(config(**changes), data)
    loop = Loop(setup(resolved, data, fabric), RunDir.create(folder / "run", resolved), ())
    loop.s.method.train()
    return loop


def weights_of(loop: Loop) -> dict[str, Tensor]:
    """Copies of parameters, buffers and all numbers of the optimiser."""
    found = {name: value.clone() for name, value in loop.s.method.state_dict().items()}
    for key, state in loop.s.optimizer.state_dict()["state"].items():
        found |= {f"optimiser {key} {name}": v.clone() for name, v in state.items() if isinstance(v, Tensor)}
    return found


def kept_by(run: RunDir) -> dict[str, Any]:
    """What the newest checkpoint of a run holds."""
    found = run.checkpoints.newest()
    assert found is not None
    return dict(found.state)


def parameters_of(loop: Loop) -> dict[str, Tensor]:
    """Copies of the parameters alone."""
    return {name: p.detach().clone() for name, p in loop.s.method.named_parameters()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """Whether both hold the same tensors, to the last bit."""
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def finite(weights: dict[str, Tensor]) -> bool:
    """Whether all numbers are finite."""
    return all(bool(value.isfinite().all()) for value in weights.values())


def watch_steps(loop: Loop) -> list[dict[str, Tensor]]:
    """A list that gets the weights as they are before every step."""
    seen: list[dict[str, Tensor]] = []
    begin = loop.begin_step

    def watched() -> float:
        seen.append(weights_of(loop))
        return begin()

    vars(loop)["begin_step"] = watched
    return seen


def failure(loop: Loop) -> str:
    """What an epoch says that ends because a number went wrong; empty where none did."""
    try:
        loop.train_epoch()
        loop.guard.end_epoch(loop.state)
    except NotFiniteError as error:
        return str(error)
    return ""


def change_loss(loop: Loop, at: Sequence[int], change: Callable[[Step], Step]) -> None:
    """Change what the method's loss gives at some steps (from 1), in every run of their batches."""
    method: Any = loop.s.method
    loss = method.loss

    def changed(views: Sequence[Tensor]) -> Step:
        step: Step = loss(views)
        return change(step) if loop.state.step + 1 in at else step

    method.loss = changed


class _Backward(torch.autograd.Function):
    """The identity, whose derivative is as `factor` says."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return gradients[0] * ctx.factor, None


class Between(nn.Module):
    """A module after the backbone that changes its features at some steps (from 1)."""

    def __init__(self, inner: nn.Module, change: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.change = inner, change

    def forward(self, x: Tensor) -> Tensor:
        """The features, changed."""
        return self.change(self.inner(x))


def change_features(loop: Loop, at: Sequence[int], change: Callable[[Tensor], Tensor]) -> None:
    """Change what the projector's first layer is given at some steps."""
    method: Any = loop.s.method
    method.projector[0] = Between(
        method.projector[0], lambda z: change(z) if loop.state.step + 1 in at else z
    )


def bad_loss(loop: Loop, at: Sequence[int] = (2,)) -> None:
    """The loss alone: its gradient is as it was."""
    change_loss(loop, at, lambda step: step._replace(loss=step.loss + NAN))


def bad_tap(loop: Loop, at: Sequence[int] = (2,)) -> None:
    """A layer output alone."""
    change_loss(
        loop, at, lambda step: step._replace(taps=step.taps | {"projector": step.taps["projector"] * INF})
    )


def bad_gradient(loop: Loop, at: Sequence[int] = (2,)) -> None:
    """A gradient alone: forward all is finite."""
    method: Any = loop.s.method
    backbone = method.backbone.forward
    method.backbone.forward = lambda x: _Backward.apply(
        backbone(x), NAN if loop.state.step + 1 in at else 1.0
    )


def bad_activation(loop: Loop, at: Sequence[int] = (2,)) -> None:
    """A logarithm of zero within a module."""
    method: Any = loop.s.method
    inner = method.backbone.forward
    method.backbone.forward = lambda x: (
        inner(x) + (torch.log(torch.zeros(1)) if loop.state.step + 1 in at else 0.0)
    )


BREAKS: dict[str, Break] = {
    "loss": bad_loss, "layer output": bad_tap, "gradient": bad_gradient, "activation": bad_activation,
}  # fmt: skip
