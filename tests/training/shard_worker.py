"""One process of `test_sharding`: a ViT by DDP and by FSDP, step by step and as runs, as tensors in a file.

Usage: shard_worker.py RANK WORLD PORT FOLDER
"""

import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from fullrank.methods import METHODS, Method, StepInfo, build_method
from fullrank.networks.backbones import build_backbone
from fullrank.networks.checkpointing import checkpoint_blocks
from fullrank.networks.depth import rate_factors
from fullrank.networks.processes import synchronise_batch_norm
from fullrank.networks.sharded import whole_tensor
from fullrank.training.config import TrainConfig
from fullrank.training.optim import build_optimizer, clip_each, clip_together
from fullrank.training.run import resume, train
from fullrank.training.sharding import ShardSyncControl, average_gradients, gathered, shard
from methods.shrunk import shrunk

VIT = "vit_tiny_patch16_224(depth=2, num_heads=2, embed_dim=24)"
ROWS, STEPS, ACCUMULATE = 24, 4, 2
STEPPED: dict[str, dict[str, Any]] = {
    **{name: {"method": name} for name in METHODS},
    "adamw": {"method": "byol", "optimizer": "adamw", "layer_decay": 0.7, "exclude_1d_decay": True},
    "lars": {"method": "byol", "optimizer": "lars", "lars_clip": True, "lars_exclude_1d": True},
    "lars-moco": {"method": "mocov3", "optimizer": "lars", "lars_variant": "moco", "nesterov": True},
    "clipped": {"method": "simsiam", "clip_grad": 0.05},
    "clipped-each": {"method": "dino", "clip_grad": 0.01, "clip_grad_of": "tensor"},
    "before-target": {"method": "byol", "options": {"target_update": "before-target"}},
    "two-trained": {"method": "teacher_student", "options": {"teacher": "trained"}},
    "activations": {"method": "vicreg", "checkpoint_activations": True},
}
RUN: dict[str, Any] = {
    "data": "shapes", "limit": 48, "backbone": VIT, "image_size": 32, "batch_size": 24, "epochs": 1,
    "schedule": "constant", "warmup_epochs": 0.0, "level_every": 1, "accelerator": "cpu", "workers": 0,
    "knn_every": 0, "watch_images": 33, "optimizer": "adamw", "lr": 1e-3, "method": "byol",
    "options": {"proj_hidden_dim": 16, "proj_output_dim": 16, "pred_hidden_dim": 8},
}  # fmt: skip


def new_method(config: TrainConfig) -> Method:
    torch.manual_seed(0)
    backbone = build_backbone(VIT, 32)
    options = shrunk(config.method) | dict(config.options)
    method = build_method(config.method, backbone.network, backbone.feature_dim, options).double()
    if config.checkpoint_activations:
        checkpoint_blocks(method.backbone, VIT)
    synchronise_batch_norm(method, torch.device("cpu"))
    return method


def steps(config: TrainConfig, rank: int, world: int) -> dict[str, Tensor]:
    """Weights after four steps of two batches each, in double precision."""
    method = new_method(config)
    if sharded := config.strategy == "fsdp":
        shard(method, SimpleNamespace(device=torch.device("cpu"), world_size=world), config)  # type: ignore[arg-type]
    factors = rate_factors(method.backbone, config.lr_backbone, config.layer_decay)
    optimizer = build_optimizer(method.param_groups(), config, factors)
    wrapped: Any = method if sharded or world == 1 else DistributedDataParallel(method)
    for step in range(STEPS):
        torch.manual_seed(100 * step + rank)
        info = StepInfo(step, STEPS, 2)
        method.before_step(info)
        for batch in range(ACCUMULATE):
            generator = torch.Generator().manual_seed(10 * step + batch)
            whole = torch.randn(2, ROWS, 3, 32, 32, generator=generator, dtype=torch.float64)
            waits = batch + 1 < ACCUMULATE
            if sharded:
                exchange: Any = ShardSyncControl().no_backward_sync(method, waits)
            else:
                exchange = wrapped.no_sync() if waits and world > 1 else torch.enable_grad()
            with exchange:
                (wrapped(list(whole.chunk(world, dim=1)[rank])).loss / ACCUMULATE).backward()
        if sharded:
            average_gradients(list(method.parameters()))
        method.after_backward()
        if config.clip_grad:
            clip = clip_each if config.clip_grad_of == "tensor" else clip_together
            clip(method.parameters(), config.clip_grad)
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(info)
        with gathered(method.eval()), torch.no_grad():
            for _ in range(1 + rank):  # evaluation of another number of batches in each process
                method.embed(whole[0, :3])
        method.train()
    return {name: whole_tensor(value.detach()) for name, value in method.state_dict().items()}


def runs(folder: Path) -> None:
    """Runs of either kind, and either taken up as the other."""
    config = TrainConfig(**RUN)
    for first, then in (("ddp", "fsdp"), ("fsdp", "ddp"), ("ddp", "ddp"), ("fsdp", "fsdp")):
        run = folder / f"{first}-{then}"
        train(TrainConfig(**{**RUN, "strategy": first}), run)
        resume(run, changes={"epochs": 2, "strategy": then})
    train(TrainConfig(**{**RUN, "strategy": "fsdp"}), folder / "fsdp")
    assert config.epochs == 1


def main(rank: int, world: int, port: str, folder: str) -> None:
    torch.set_num_threads(1)
    places = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "GROUP_RANK": 0,
        "WORLD_SIZE": world,
        "LOCAL_WORLD_SIZE": world,
    }
    os.environ |= {name: str(value) for name, value in places.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    dist.init_process_group("gloo", rank=rank, world_size=world)
    results = {
        name: {
            strategy: steps(TrainConfig(**settings, strategy=strategy), rank, world)
            for strategy in ("ddp", "fsdp")
        }
        for name, settings in STEPPED.items()
    }
    if rank == 0:
        torch.save(results, Path(folder) / "steps.pt")
    runs(Path(folder))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
