"""Memory that a run will take, worked out before its first step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fullrank.errors import FullrankError, UsageError
from fullrank.images.batch_loaders import worker_count
from fullrank.images.sources import Data
from fullrank.methods import Method, StepInfo, build_method
from fullrank.networks.backbones import build_backbone
from fullrank.networks.checkpointing import checkpoint_blocks
from fullrank.networks.live_memory import LiveMemory, fused_attention
from fullrank.training.config import TrainConfig
from fullrank.training.held_out import evaluation_chunk
from fullrank.views import VIEWS

STATES = {"sgd": 1, "lars": 1, "adam": 2, "adamw": 2}  # tensors that an optimiser keeps for each parameter
HALF = 0.6  # of the activations, where mixed precision computes: losses and normalisations stay as they are
LOOP = 250e6  # bytes of what the loop imports and keeps besides: panels, k-NN, checkpoints, logs
WORKER = 120e6  # bytes of a process that decodes images, beyond what it shares
SLACK = 1.25  # allocators keep pieces between tensors, and convolutions room to work in


class TooLargeError(UsageError):
    """A layer has more numbers than any tensor can hold. Exit code 2."""


@dataclass(frozen=True)
class Footprint:
    """Bytes of a run, besides what its process takes already.

    Attributes:
        weights: parameters, momentum copies and buffers, and the optimiser's state.
        step: peak of a training step: views, activations, gradients.
        evaluation: peak of a batch of held-out images.
        loading: what worker processes take, and the batches that wait for the step.
        loop: the rest of the training loop.
    """

    weights: float
    step: float
    evaluation: float
    loading: float
    loop: float

    @property
    def total(self) -> int:
        """All bytes at the moment at which most are taken."""
        return int(SLACK * (self.weights + max(self.step, self.evaluation)) + self.loading + self.loop)


def estimate_footprint(config: TrainConfig, data: Data, processes: int = 1, gpu: bool = False) -> Footprint:
    """Estimate the memory of a resolved run by a step on tensors without contents.

    Args:
        config: resolved: with image size, views and backbone.
        data: whose images tell whether worker processes decode.
        processes: that share a batch.
        gpu: count the memory of a GPU, where no loop and no worker lives.

    Raises:
        UsageError: backbone and method do not go together.
        TooLargeError: a layer is larger than any tensor can be.

    Example:
        >>> from fullrank.training.data import open_run_data
        >>> config = TrainConfig(batch_size=32, backbone="resnet8-w4", image_size=32, views="shapes")
        >>> small, large = (
        ...     estimate_footprint(each, open_run_data(config))
        ...     for each in (config, TrainConfig(**{**vars(config), "batch_size": 64}))
        ... )
        >>> 1.5 < large.step / small.step < 2.1, large.weights == small.weights
        (True, True)
    """
    try:
        method = _on_meta(config)
    except (RuntimeError, OverflowError) as error:  # of PyTorch, whose sizes are 64 bits
        raise TooLargeError(
            f"{config.method} through {config.backbone} has a layer that is larger than any tensor can be"
        ) from error
    trained = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    kept = sum(tensor.nbytes for tensor in (*method.parameters(), *method.buffers()))
    rows, half = config.batch_size // processes, HALF if config.precision != "fp32" else 1.0
    recipe = VIEWS[config.views].views
    sides = [view.side(config.image_size) for view in recipe]
    step, gradients = _peak_of_step(method, [torch.empty(rows, 3, s, s, device="meta") for s in sides])
    chunk = evaluation_chunk(config)  # of no more than a batch, it takes less than a step
    evaluation = 0.0 if chunk <= rows else _peak_of_evaluation(method, chunk, config.image_size)
    loading = 0.0
    if not gpu and not data.train.in_memory:
        versions = sum((1 + view.scale_mix) * side**2 for view, side in zip(recipe, sides, strict=True))
        workers = worker_count(config.workers)
        waiting = 2 * workers + 1  # batches that PyTorch's loader prefetches
        loading = workers * WORKER + waiting * rows * 3 * versions
    return Footprint(
        weights=kept + trained * STATES[config.optimizer],
        step=half * (step - gradients) + gradients + (kept / 2 if half < 1 else 0),
        evaluation=half * evaluation,
        loading=loading,
        loop=0.0 if gpu else LOOP,
    )


def _on_meta(config: TrainConfig) -> Method:
    """The method of a run without its numbers."""
    with torch.device("meta"):
        backbone = build_backbone(
            config.backbone,
            config.image_size,
            stem=config.stem,
            zero_init_residual=config.zero_init_residual,
            sides=VIEWS[config.views].sides(config.image_size),
        )
        method = build_method(config.method, backbone.network, backbone.feature_dim, config.options)
    method.roles = tuple(view.role for view in VIEWS[config.views].views) if method.two_branches else ()
    if config.checkpoint_activations:
        checkpoint_blocks(method.backbone, config.backbone)
    return method


def _peak_of_step(method: Method, views: list[Tensor]) -> tuple[float, float]:
    """Peak bytes of a step with views of that shape, and those of the gradients."""
    method.train()
    method.before_step(StepInfo())
    given = sum(view.nbytes for view in views)
    try:
        peak = _peak(lambda: method(views).loss.backward())
    except FullrankError:
        raise
    except (RuntimeError, NotImplementedError):  # a loss that asks for the values of tensors
        method.zero_grad()
        peak = _peak(lambda: _sum_of_taps(method, views).backward())
    gradients = sum(p.nbytes for p in method.parameters() if p.requires_grad)
    return given + max(peak, gradients), gradients


def _sum_of_taps(method: Method, views: list[Tensor]) -> Tensor:
    taps = [tap for view in views for tap in method.encode_source(view).values()]
    return torch.stack([tap.sum() for tap in taps]).sum()


@torch.no_grad()
def _peak_of_evaluation(method: Method, images: int, size: int) -> float:
    backbone: nn.Module = method.backbone.eval()
    batch = torch.empty(images, 3, size, size, device="meta")
    return 2 * batch.nbytes + _peak(lambda: backbone(batch))


def _peak(work: object) -> float:
    assert callable(work)
    with fused_attention(), LiveMemory() as memory:
        work()
    return float(memory.peak)
