"""Step time on many devices: what networks send, and the prediction of `scale_model` checked on this machine.

Usage: python benchmarks/scale.py --check [--processes 1,2,4] [--steps 8] [--json benchmarks/scale.json]
       python benchmarks/scale.py --networks          # counts of docs/scale.md, on tensors without contents

The check trains SimSiam with a CIFAR ResNet-18 under PyTorch's DDP and gloo, as many images in each process
whatever their number. Parts are measured first: a step of all processes at once without any message (they
share cores and memory), and all-reduces of 1 kB to 32 MB. The prediction is made from these alone, and then
the step with messages is measured, with and without synchronised BatchNorm. Turns alternate; medians count.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from measuring import machine, versions
from scale_model import Step, fit_links, predict
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.flop_counter import FlopCounterMode

from fullrank.images.sources import Data, MemorySource
from fullrank.methods import build_method
from fullrank.methods.simsiam import simsiam_loss
from fullrank.networks.backbones import build_backbone
from fullrank.networks.processes import synchronise_batch_norm
from fullrank.training.config import TrainConfig
from fullrank.training.footprint import STATES, estimate_footprint

HERE = Path(__file__).parent
SIZES = tuple(2.0**k for k in range(10, 26, 3))  # bytes of all-reduces
BATCH, SIDE, BACKBONE = 8, 32, "resnet18"
CASES: dict[str, dict[str, Any]] = {
    "ResNet-50, SimSiam": {"backbone": "resnet50", "method": "simsiam", "views": "simsiam", "batch_size": 64,
                           "optimizer": "sgd"},
    "ViT-B/16, MoCo v3": {"backbone": "vit_base_patch16_224", "method": "mocov3", "views": "byol",
                          "batch_size": 64, "optimizer": "adamw"},
    "ViT-L/16, DINO, two views": {"backbone": "vit_large_patch16_224", "method": "dino", "views": "byol",
                       "batch_size": 32, "optimizer": "adamw", "options": {"num_prototypes": 65_536}},
}  # fmt: skip


class _Trained(nn.Module):
    """SimSiam whose forward pass is its loss, as DDP wants it."""

    def __init__(self, synchronised: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        found = build_backbone(BACKBONE, SIDE)
        self.method: Any = build_method("simsiam", found.network, found.feature_dim, {}).train()
        if synchronised:
            synchronise_batch_norm(self.method, torch.device("cpu"))

    def forward(self, views: Tensor) -> Tensor:
        z = [self.method.projector(self.method.backbone(view)) for view in views]
        return simsiam_loss([self.method.predictor(each) for each in z], z)


def _timed_step(module: nn.Module) -> Callable[[], tuple[float, float]]:
    """One step; seconds of its forward and of its backward pass with the optimiser."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9)
    views = torch.randn(2, BATCH, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        loss = module(views)
        middle = time.perf_counter()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return middle - start, time.perf_counter() - middle

    return step


def _median(work: Callable[[], Any], steps: int) -> list[float]:
    """Medians over steps that all processes begin together; the first does not count."""
    found = []
    for _ in range(steps + 1):
        if dist.is_initialized():
            dist.barrier()
        found.append(work())
    return [statistics.median(part) for part in zip(*found[1:], strict=True)]


def _part(rank: int, world: int, meeting: str, steps: int, out: str) -> None:
    """Measure everything in one process of a group; the first one writes it."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", f"file://{meeting}", rank=rank, world_size=world)
    found: dict[str, Any] = {}
    alone = _Trained(synchronised=False)
    found["compute"] = _median(_timed_step(alone), steps)
    found["gradients"] = sum(p.nbytes for p in alone.parameters() if p.requires_grad)
    if world > 1:
        sent = []
        for size in SIZES:
            message = torch.zeros(int(size) // 4)

            def once(message: Tensor = message) -> tuple[float]:
                start = time.perf_counter()
                dist.all_reduce(message)
                return (time.perf_counter() - start,)

            sent += _median(once, 2 * steps)
        found["messages"] = sent
        found["channels"] = []
        for synchronised in (False, True):
            trained = _Trained(synchronised)
            if synchronised:
                found["channels"] = _channels(trained)
            wrapped = DistributedDataParallel(trained)
            found["synchronised" if synchronised else "plain"] = _median(_timed_step(wrapped), steps)
        slowest = [torch.tensor([sum(found["compute"]), *found["messages"], *found["plain"]])]
        dist.all_reduce(slowest[0], dist.ReduceOp.MAX)
        found["slowest"] = slowest[0].tolist()
        dist.destroy_process_group()
    if rank == 0:
        Path(out).write_text(json.dumps(found))


def _channels(module: nn.Module) -> list[int]:
    """Channels of every pass through a BatchNorm in a step's forward passes."""
    found: list[int] = []
    hooks = [
        each.register_forward_hook(lambda norm, *_: found.append(norm.num_features))
        for each in module.modules()
        if isinstance(each, nn.modules.batchnorm._BatchNorm)
    ]
    module(torch.randn(2, BATCH, 3, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    return found


def checked(processes: int, steps: int) -> dict[str, Any]:
    """Parts, prediction and measured step of so many processes on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "found.json"
        arguments = (processes, str(Path(folder) / "meeting"), steps, str(out))
        mp.start_processes(_part, arguments, nprocs=processes, start_method="spawn")  # type: ignore[attr-defined, no-untyped-call]
        found = json.loads(out.read_text())
    row: dict[str, Any] = {"processes": processes, "forward": found["compute"][0]}
    row["backward"] = found["compute"][1]
    if processes == 1:
        return row
    links = fit_links(SIZES, found["messages"], processes)
    row |= {"latency": links.latency, "bandwidth": links.bandwidth, "messages": found["messages"]}
    # sums of statistics forth, and of their gradients back: two of each a BatchNorm
    small = tuple(4.0 * c for c in found["channels"] for _ in range(4))
    forward, backward = found["compute"]
    plain = Step(forward, backward, gradients=found["gradients"], busy=1.0)
    for name, step in (("plain", plain), ("synchronised", Step(**{**vars(plain), "reduced": small}))):
        predicted, measured = predict(step, links, processes).seconds, sum(found[name])
        row[name] = {"predicted": predicted, "measured": measured, "error": predicted / measured - 1}
    return row


def networks() -> dict[str, dict[str, Any]]:
    """What the networks of docs/scale.md hold, compute and send, counted on tensors without contents."""
    found = {}
    for name, case in CASES.items():
        config = TrainConfig(image_size=224, precision="bf16", **case)
        images = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
        source = MemorySource(name="none", images=images, labels=None)
        footprint = estimate_footprint(config, Data("none", source, source), gpu=True)
        with torch.device("meta"):
            built = build_backbone(config.backbone, 224)
            method = build_method(config.method, built.network, built.feature_dim, config.options)
            with FlopCounterMode(display=False) as counter:
                built.network(torch.empty(2, 3, 224, 224))
            norms: list[int] = []
            for each in method.modules():
                if isinstance(each, nn.modules.batchnorm._BatchNorm):
                    each.register_forward_hook(lambda norm, *_, to=norms: to.append(norm.num_features))
            method.eval().embed(torch.empty(2, 3, 224, 224))
        trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
        found[name] = {
            "backbone": sum(p.numel() for p in built.network.parameters()),
            "trained": trained,
            "held": sum(x.numel() for x in (*method.parameters(), *method.buffers())),
            "states": STATES[config.optimizer],
            "flop": counter.get_total_flops() / 2,  # of a forward pass of one image
            "norms": norms,  # channels of those that one view passes, target network and all
            "width": built.feature_dim,
            "batch": config.batch_size,
            "step_bytes": footprint.step,
            "weights_bytes": footprint.weights,
        }
    return found


def main() -> None:
    """Measure or count what is asked for, and keep the rest of the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--networks", action="store_true")
    parser.add_argument("--processes", default="1,2,4")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--json", type=Path, default=HERE / "scale.json")
    args = parser.parse_args()
    written = json.loads(args.json.read_text()) if args.json.exists() else {}
    if args.networks:
        written["networks"] = networks()
    if args.check:
        rows = [checked(int(count), args.steps) for count in args.processes.split(",")]
        written["check"] = {
            "date": date.today().isoformat(),
            "command": f"benchmarks/scale.py --check --processes {args.processes} --steps {args.steps}",
            "machine": machine(),
            "load": os.getloadavg()[0],
            "versions": versions(),
            "batch": BATCH,
            "backbone": BACKBONE,
            "rows": rows,
        }
        for row in rows:
            print(json.dumps({key: value for key, value in row.items() if key != "messages"}))
    args.json.write_text(json.dumps(written, indent=1) + "\n")


if __name__ == "__main__":
    main()
