"""Set-up of a run: devices, images, views, method, compilation, optimiser."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from lightning_fabric.wrappers import _unwrap_objects
from torch import Tensor, nn
from torch.optim import Optimizer

from fullrank.errors import UsageError
from fullrank.images.data_order import DataOrder, Indices, load_ordering
from fullrank.images.loader import Batches
from fullrank.images.sources import Data, Source
from fullrank.methods import METHODS, Method
from fullrank.networks.backbones import Backbone, default_backbone
from fullrank.networks.checkpointing import checkpoint_blocks
from fullrank.networks.depth import rate_factors
from fullrank.networks.layouts import channels_last_fault
from fullrank.networks.processes import synchronise_batch_norm
from fullrank.training.agreement import check_alike
from fullrank.training.config import TrainConfig
from fullrank.training.data import open_run_data
from fullrank.training.defaults import default_views
from fullrank.training.launch import launch_line
from fullrank.training.networks import InitialWeights, build_networks
from fullrank.training.optim import build_optimizer, clip_each, clip_together
from fullrank.training.sharding import average_gradients, shard
from fullrank.views import VIEWS, DenseViews, Views

LARGEST_OWN_SIZE = 96  # images up to here are trained on at their own size, larger ones at 224
ROOM = 0.4  # of a GPU's free memory, that images may take
FEW_PIXELS = 2**20  # of a view's batch: a GPU passes over them in about the time that it takes to ask it


@dataclass
class Setup:
    """Everything that a run works with; `wrapped` is the method as the devices run it."""

    config: TrainConfig
    fabric: Fabric
    data: Data
    batches: Batches
    views: Views
    backbone: Backbone
    method: Method
    wrapped: Any
    optimizer: Optimizer
    channels_last: bool
    notes: tuple[str, ...] = ()  # one line each, for the reader of the run
    sharded: bool = False  # each process holds a part of the backbone

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps in an epoch."""
        return len(self.batches) // self.config.accumulate

    def average_gradients(self) -> None:
        """Average the gradients of heads that stay whole beside a sharded backbone."""
        if self.sharded:
            bf16 = self.config.reduce_precision == "bf16"
            average_gradients(list(self.method.parameters()), bf16)

    def clip_gradients(self) -> None:
        """Clip the gradients as `clip_grad_of` says; those that are not finite stay so."""
        largest = self.config.clip_grad
        if self.sharded and self.config.clip_grad_of == "all":
            clip_together(self.method.parameters(), largest)
            return
        if self.config.clip_grad_of == "all":
            self.fabric.clip_gradients(  # waits for nothing
                self.wrapped, self.optimizer, max_norm=largest, error_if_nonfinite=False
            )
            return
        self.fabric.strategy.precision.unscale_gradients(_unwrap_objects(self.optimizer))
        part = self.method if self.config.clip_grad_of == "tensor" else self.method.backbone
        clip_each(part.parameters(), largest)


def generator_of(*key: int) -> torch.Generator:
    """CPU generator whose numbers the key alone decides, whatever came before.

    Example:
        >>> generator_of(0, 3).initial_seed() == generator_of(0, 3).initial_seed()
        True
    """
    seed = np.random.SeedSequence(key).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(seed >> np.uint64(1)))


@dataclass(frozen=True)
class CropViews:
    """Crop that cuts the views of a large image where it is decoded."""

    views: Views
    seed: int

    def __call__(self, image: Tensor, index: int, epoch: int, position: int) -> list[Tensor]:
        """Cut uint8 [3, h, w] into a uint8 [3, s, s] per view; two if scale-mixed."""
        generator = generator_of(self.seed, 1, epoch, position)
        params = self.views.sample(1, image.shape[1], image.shape[2], generator)
        return self.views.crop_in_worker(image, params, row=0)


def resolve(config: TrainConfig, data: Data) -> TrainConfig:
    """Replace every `auto` of a configuration by what the data says."""
    size = config.image_size or default_image_size(data.train)
    views = default_views(config.method, size, config.data) if config.views == "auto" else config.views
    VIEWS[views]
    backbone = default_backbone(size) if config.backbone == "auto" else config.backbone
    warmup = min(10.0, 0.1 * config.epochs) if config.warmup_epochs == -1 else config.warmup_epochs
    config = replace(config, image_size=size, views=views, backbone=backbone, warmup_epochs=warmup)
    if config.order == "iid":
        config = replace(config, shuffle_window=config.shuffle_window or data.train.window)
    return replace(config, ordering_sha256=data_order(config, len(data.train), data.train.groups).sha256)


def data_order(config: TrainConfig, n: int, groups: Indices | None = None) -> DataOrder:
    """Order of `n` images over the run, which lie in shards `groups`, int64 [n].

    Raises:
        UsageError: order, batches and epochs do not fit, or the ordering is not the one that was hashed.
    """
    order = DataOrder(
        n,
        config.batch_size,
        config.epochs,
        config.order,
        chunk_size=config.chunk_size,
        n_rounds=config.rounds,
        repeat_batch=config.repeat_batch,
        steps_per_epoch=config.steps_per_epoch * config.accumulate,
        switch_epoch=config.switch_epoch,
        seed=config.seed,
        ordering=load_ordering(Path(config.ordering), n) if config.ordering else None,
        window=config.shuffle_window,
        groups=groups,
    )
    if config.ordering_sha256 not in ("", order.sha256):
        raise UsageError(
            f"the ordering has the SHA-256 {order.sha256 or 'of none'}, not {config.ordering_sha256}: "
            f"it is another than the one this run began with"
        )
    return order


def default_image_size(source: Source) -> int:
    """Default side of the views: that of most images up to 96 pixels, else 224."""
    size = max(source.image_size or (LARGEST_OWN_SIZE + 1, 0))
    return size if size <= LARGEST_OWN_SIZE else 224


def prepare(
    config: TrainConfig,
    fabric: Fabric,
    data: Data | None = None,
    initial: InitialWeights | None = None,
    named: Collection[str] | None = None,
) -> tuple[TrainConfig, Data]:
    """Open the data, unless it is open, and resolve the configuration.

    Raises:
        UsageError: processes of the run differ in either, see `check_alike`.
    """
    config = initial.follow(config) if initial else config
    if data is None:
        with fabric.rank_zero_first():
            data = open_run_data(config)
    config = resolve(config, data)
    if fabric.world_size > 1:
        check_alike(config, data, initial, named)
    return config, data


def setup(config: TrainConfig, data: Data, fabric: Fabric, initial: InitialWeights | None = None) -> Setup:
    """Build networks, optimiser, views and loader for a resolved configuration.

    `initial` are the weights that `config.init` names, unless a checkpoint's take their place.

    Raises:
        UsageError: the pieces do not fit: batch larger than the data, unknown backbone, wrong image size.
    """
    views = _views(config, data, fabric.device)
    if fabric.device.type != "cpu":
        data = replace(data, train=_on(data.train, fabric.device), held_out=_on(data.held_out, fabric.device))
    batches = Batches(
        data.train,
        config.batch_size,
        config.seed,
        rank=fabric.global_rank,
        world_size=fabric.world_size,
        workers=config.workers,
        crop=CropViews(Views(views.recipe, views.image_size), config.seed),
        order=data_order(config, len(data.train), data.train.groups),
    )
    if len(batches) < config.accumulate:
        raise UsageError(
            f"--accumulate {config.accumulate} batches of {config.batch_size} are more than the "
            f"{len(data.train)} training images"
        )
    torch.manual_seed(config.seed)
    backbone, method, notes = build_networks(config, initial)
    if config.batch_size // fabric.world_size < 2 and any(
        isinstance(m, nn.BatchNorm1d) for m in method.modules()
    ):
        raise UsageError(
            f"{config.method} has BatchNorm, which a batch of one image leaves nothing to compare with: take "
            f"--batch-size 2 or more a process, of at least 2 training images"
        )
    method.roles = _roles(views, config)
    # widths that follow the backbone are numbers now, and the stem has a name
    config = replace(config, options=asdict(method.config), stem=backbone.stem)
    if config.checkpoint_activations:
        checkpoint_blocks(method.backbone, config.backbone)
    _synchronise(method, config, fabric)
    channels_last, fault = _layout(backbone.network, views, config, fabric.device)
    sharded = config.strategy == "fsdp" and fabric.world_size > 1
    if channels_last and not sharded:  # FSDP2 takes contiguous weights alone
        method = method.to(memory_format=torch.channels_last)
    if fabric.device.type != "cpu":
        method = method.to(fabric.device)
    if config.compile != "none":
        compile_networks(method, fabric.device, config.compile)
    if sharded:
        shard(method, fabric, config)
    factors = rate_factors(method.backbone, config.lr_backbone, config.layer_decay)
    optimizer = build_optimizer(method.param_groups(), config, factors)
    if config.predictor_warmup_steps and "predictor" not in {g["name"] for g in optimizer.param_groups}:
        raise UsageError(f"--predictor-warmup-steps needs a trained predictor, which {config.method} has not")
    wrapped, wrapped_optimizer = fabric.setup(method, optimizer, move_to_device=False)
    launched = launch_line(fabric)
    notes = (*([launched] if launched else []), *notes, *fault)
    return Setup(
        config,
        fabric,
        data,
        batches,
        views,
        backbone,
        method,
        wrapped,
        wrapped_optimizer,
        channels_last,
        notes,
        sharded,
    )


def _layout(
    network: nn.Module, views: Views, config: TrainConfig, device: torch.device
) -> tuple[bool, tuple[str, ...]]:
    """Whether convolutions run in channels_last, and a line where they cannot."""
    if config.channels_last == "no" or device.type != "cpu":
        return config.channels_last != "no", ()
    dtype = torch.bfloat16 if config.precision == "bf16" else torch.float32
    fault = channels_last_fault(network, {config.image_size, *views.sizes}, dtype)
    if fault and config.channels_last == "yes":
        raise UsageError(f"--channels-last yes: PyTorch {torch.__version__} {fault}; take auto or no")
    note = f"convolutions run contiguous: in channels_last PyTorch {torch.__version__} {fault}"
    return not fault, (note,) if fault else ()


def _views(config: TrainConfig, data: Data, device: torch.device) -> Views:
    """Choose masked views on a GPU where the step is compiled or batches small."""
    mean, std = config.mean or data.train.mean, config.std or data.train.std
    plain = Views(config.views, config.image_size, mean, std)
    compiled = config.compile != "none"
    small = config.batch_size * config.image_size**2 <= FEW_PIXELS
    if device.type == "cpu" or not (compiled or small) or any(view.randaugment for view in plain.recipe):
        return plain
    return DenseViews(plain, config.compile if compiled else None)


def _roles(views: Views, config: TrainConfig) -> tuple[str, ...]:
    """Branch that sees each view; only methods with two branches can tell them apart."""
    if set(views.roles) != {"both"} and not METHODS[config.method].two_branches:
        raise UsageError(
            f"--views {config.views} are made for two branches, a source and a target, which {config.method} "
            f"does not have; `fullrank list methods` tells which methods do"
        )
    return views.roles


def _synchronise(method: Method, config: TrainConfig, fabric: Fabric) -> None:
    """Make BatchNorms of the chosen branches use the statistics of all processes."""
    target = getattr(method, "target", None)
    if config.sync_bn in ("source", "target") and target is None:
        raise UsageError(f"--sync-bn {config.sync_bn} needs a target network, which {config.method} has not")
    if fabric.world_size == 1 or config.sync_bn == "none":
        return
    for name, part in method.named_children():
        if config.sync_bn == "both" or (part is target) == (config.sync_bn == "target"):
            setattr(method, name, synchronise_batch_norm(part, fabric.device))


def _on(source: Source, device: torch.device) -> Source:
    """Move images in memory to the device where they leave room."""
    if device.type == "cuda" and source.nbytes > ROOM * torch.cuda.mem_get_info(device)[0]:
        return source
    return source.to(device)


def compile_networks(method: Method, device: torch.device, mode: str = "default") -> None:
    """Run backbone and heads of both branches through `torch.compile`, one by one.

    Views pass one after the other as before, so BatchNorm statistics stay those of a view; parameters, their
    names and the weights that are saved stay as they are. Numbers agree with those of a run without to
    rounding, not to the last bit.

    Raises:
        UsageError: PyTorch cannot compile on this machine.
    """
    try:
        torch.compile(torch.neg)(torch.ones(2, device=device))
    except Exception as error:  # whatever a compiler that is missing or broken may say
        last = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise UsageError(
            "--compile needs what PyTorch compiles with, a C++ compiler on a CPU and Triton on a GPU; "
            f"leave it out, or mend this: {last}"
        ) from error
    target = getattr(method, "target", None)
    for network in (*method.children(), *(target.children() if target is not None else ())):
        if network is not target and any(True for _ in network.parameters()):
            network.compile(mode=mode)
