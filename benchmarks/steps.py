"""A training step on the CPU: all of `fullrank train` beside a bare loop, lightly and stable-pretraining.

SimSiam in bf16 on images of 32 pixels, the same network for all: the same backbone, three layers of
projector, two of predictor. Ours is the loop of `fullrank train` itself: batches, views, forward and backward
pass, online probe, optimiser, level and log. The bare loop has the same network, loss and optimiser on views
that are ready; it is shown with freed memory kept, as ours keeps it, and as shipped. The peers make their
views in as many loader processes as is best for them here, and are used as they ship, without channels_last,
and without what they log and watch.

solo-learn has no row: what the registry holds is of 2021 and wants torch 1.9.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from measuring import Row, as_shipped, beside, in_turns
from step_cases import CASES, Case
from step_peers import lightly_block, stable_pretraining_block
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fullrank.images.sources import Data, MemorySource
from fullrank.methods import Step, build_method
from fullrank.networks.backbones import build_backbone
from fullrank.training.config import TrainConfig
from fullrank.training.launch import launch_fabric
from fullrank.training.loop import Loop
from fullrank.training.profile import reachable_rate
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import resolve, setup

IMAGES, SIZE, WORKERS = 20_000, 32, (0, 1, 2)
AS_SHIPPED = "bare loop, memory as shipped"


class _Enough(Exception):
    """The steps of the block are done."""


def training_loop(config: TrainConfig, images: Tensor, folder: Path) -> Loop:
    """The loop of `fullrank train` on these images, at its first step."""
    labels = torch.arange(len(images)).remainder(10).numpy()
    source = MemorySource(name="noise", images=images, labels=labels)
    data = Data("noise", source, source)
    config = resolve(config, data)
    loop = Loop(setup(config, data, launch_fabric(config)), RunDir.create(folder, config), ())
    loop.s.method.train()
    return loop


def training_block(loop: Loop, steps: int) -> Callable[[], float]:
    """Trains on for so many steps, everything included but the panel between epochs; seconds a step."""
    gpu = loop.fabric.device.type == "cuda"

    def block() -> float:
        left = steps

        def log(step: Step, lr: float) -> None:
            nonlocal left
            Loop.log(loop, step, lr)
            left -= 1
            if not left:
                raise _Enough

        vars(loop)["log"] = log  # before the class's own
        start = time.perf_counter()
        try:
            while True:
                loop.train_epoch()
                loop.state.epoch += 1
        except _Enough:
            if gpu:
                torch.cuda.synchronize()
            return (time.perf_counter() - start) / steps

    return block


def config_of(case: Case) -> TrainConfig:
    """What `fullrank train` is told."""
    return TrainConfig(
        method="simsiam",
        backbone=case.backbone,
        batch_size=case.batch,
        epochs=1000,
        views="simsiam-cifar",
        precision="bf16",
        accelerator="cpu",
        level_every=min(10, case.steps),  # each block has its share of levels and logs
        options=_widths(case),
    )


def _widths(case: Case) -> dict[str, int]:
    hidden, bottleneck = case.hidden, case.bottleneck
    return {"proj_hidden_dim": hidden, "proj_output_dim": hidden, "pred_hidden_dim": bottleneck}


def bare_block(case: Case) -> tuple[Callable[[], float], float]:
    """The least that trains this network: seconds a step, and the operations of one."""
    torch.manual_seed(0)
    backbone = build_backbone(case.backbone, SIZE)
    method = build_method("simsiam", backbone.network, backbone.feature_dim, _widths(case))
    network: Any = method.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    shape = (case.batch, 3, SIZE, SIZE)
    ready = [torch.randn(shape).contiguous(memory_format=torch.channels_last) for _ in range(4)]

    def step(a: Tensor, b: Tensor) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = [network.projector(network.backbone(view)) for view in (a, b)]
            p = [network.predictor(view) for view in z]
            pairs = ((p[0], z[1]), (p[1], z[0]))
            losses = [F.cosine_similarity(p.float(), z.detach().float()).mean() for p, z in pairs]
            loss = -(losses[0] + losses[1]) / 2
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def block() -> float:
        start = time.perf_counter()
        for k in range(case.steps):
            step(ready[k % 4], ready[(k + 1) % 4])
        return (time.perf_counter() - start) / case.steps

    with FlopCounterMode(display=False) as counter:
        step(ready[0], ready[1])
    return block, float(counter.get_total_flops())


def _seconds(blocks: Mapping[int, Callable[[], float]], workers: int) -> float:
    """The seconds of a step with so many loader processes."""
    return blocks[workers]()


def measured(case: Case, repeats: int) -> list[Row]:
    """All rows of one network."""
    torch.manual_seed(0)
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        bare, flops = bare_block(case)
        ours = training_block(training_loop(config_of(case), images, Path(folder) / "run"), case.steps)
        ways = {"ours": ours, "bare loop": bare, AS_SHIPPED: as_shipped(bare)}
        workers = {}
        for name, make in (("lightly", lightly_block), ("stable-pretraining", stable_pretraining_block)):
            tried = {n: make(case, images, n) for n in WORKERS}
            workers[name] = min(WORKERS, key=partial(_seconds, tried))
            ways[name] = as_shipped(tried[workers[name]])
        in_turns(1, {name: ways[name] for name in ("ours", "bare loop")})
        if case.peak:
            ways["peak"] = lambda: reachable_rate(torch.device("cpu"), "bf16")
        _, seconds = in_turns(repeats, ways)
    row = partial(beside, f"step, {case.backbone}", seconds, work=case.batch, measure="images/s")
    rows = [row("bare loop", case.bare), row(AS_SHIPPED)]
    for name, n in workers.items():
        rows.append(row(name, case.peers, note=f"{n} loader processes"))
    if case.best_peer:
        seconds["best peer"] = [min(pair) for pair in zip(*(seconds[name] for name in workers), strict=True)]
        rows.append(row("best peer", case.best_peer))
    if case.peak:
        turns = tuple(flops / s / rate for s, rate in zip(seconds["ours"], seconds["peak"], strict=True))
        found = (
            f"{flops / 1e9:.0f} GFLOP a step, peak {sorted(seconds['peak'])[repeats // 2] / 1e9:.0f} GFLOP/s"
        )
        rows.append(Row(f"step, {case.backbone}", "convolution peak", turns, case.peak, note=found))
    return rows


def rows(repeats: int) -> list[Row]:
    """Both networks."""
    return [row for case in CASES for row in measured(case, repeats)]
