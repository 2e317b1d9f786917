"""Steps on a GPU: CIFAR-10's recipes beside a bare loop, lightly's loss, and the matrix rate of the device.

Usage: python benchmarks/gpu.py [--methods simsiam,cplearn] [--batch 64,256,512]
                                [--compile none,reduce-overhead] [--repeats 5] [--json FILE]

Every method is trained by its recipe `cifar10/METHOD` on 50,000 images of noise with 32 pixels: all of
`fullrank train` but the panels, once for every mode of `--compile`. The bare loop is the same method and
optimiser on views that are ready; where the method is SimSiam, a third way has lightly's heads and loss in
that bare loop. They take turns. The last line is what 1,000 epochs of CPLearn would take at its published
batch, from as many steps as 20 epochs have.

To try it without a GPU: --device cpu --backbone resnet8-w16 --batch 16 --steps 2 --repeats 2 --extrapolate 2
--compile none
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import torch
from measuring import Row, beside, in_turns, machine, table, versions
from steps import training_block, training_loop
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fullrank.methods import StepInfo, build_method
from fullrank.networks.backbones import build_backbone
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.optim import build_optimizer
from fullrank.training.profile import reachable_rate
from fullrank.training.recipes import load_recipe

METHODS = ("simsiam", "byol", "cplearn", "directpred", "rdm_simsiam")
IMAGES, SIZE, EPOCHS = 50_000, 32, 1000


def bare_block(
    config: TrainConfig, device: torch.device, steps: int, lightly: bool = False
) -> tuple[Callable[[], float], float]:
    """The method, or lightly's SimSiam, on ready views: seconds a step, and the operations of one."""
    torch.manual_seed(0)
    found = build_backbone(
        config.backbone, SIZE, stem=config.stem, zero_init_residual=config.zero_init_residual
    )
    network: Any
    optimizer: torch.optim.Optimizer
    if lightly:
        network = _Lightly(found.network, found.feature_dim, config)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-5)
    else:
        network = method = build_method(config.method, found.network, found.feature_dim, config.options)
        optimizer = build_optimizer(method.param_groups(), config)
    network = network.to(device).to(memory_format=torch.channels_last).train()
    views = [
        torch.randn(config.batch_size, 3, SIZE, SIZE, device=device).contiguous(
            memory_format=torch.channels_last
        )
        for _ in range(2)
    ]
    info = StepInfo(0, 1000, 100)

    def step() -> None:
        if not lightly:
            network.before_step(info)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            loss = network(views).loss if not lightly else network(views)
        loss.backward()
        if not lightly:
            network.after_backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if not lightly:
            network.after_step(info)

    def block() -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / steps

    with FlopCounterMode(display=False) as counter:
        step()
    return block, float(counter.get_total_flops())


class _Lightly(torch.nn.Module):
    """lightly's heads and loss on a backbone, as wide as ours."""

    def __init__(self, backbone: torch.nn.Module, feature_dim: int, config: TrainConfig) -> None:
        super().__init__()
        from lightly.loss import NegativeCosineSimilarity
        from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead

        wide = int(config.options["proj_output_dim"])
        self.backbone, self.criterion = backbone, NegativeCosineSimilarity()
        self.projector = SimSiamProjectionHead(feature_dim, int(config.options["proj_hidden_dim"]), wide)
        self.predictor = SimSiamPredictionHead(wide, int(config.options["pred_hidden_dim"]), wide)

    def forward(self, views: Sequence[Tensor]) -> Tensor:
        z = [self.projector(self.backbone(view)) for view in views]
        p = [self.predictor(view) for view in z]
        loss: Tensor = self.criterion(p[0], z[1].detach()) + self.criterion(p[1], z[0].detach())
        return 0.5 * loss


def config_of(method: str, batch: int, backbone: str, accelerator: str) -> TrainConfig:
    """The recipe, at another batch size and perhaps with another backbone."""
    config = make_train_config(method, load_recipe(f"cifar10/{method}").settings)
    if backbone:
        config = replace(config, backbone=backbone, stem="auto")
    return replace(config, batch_size=batch, epochs=EPOCHS, accelerator=accelerator, devices=1)  # type: ignore[arg-type]


def measured(
    config: TrainConfig, images: Tensor, device: torch.device, steps: int, repeats: int
) -> list[Row]:
    """The rows of one method at one batch size, compiled or not."""
    with tempfile.TemporaryDirectory() as folder:
        bare, flops = bare_block(config, device, steps)
        ours = training_block(training_loop(config, images, Path(folder) / "run"), steps)
        ways = {"ours": ours, "bare loop": bare}
        if config.method == "simsiam":
            ways["lightly's loss"] = bare_block(config, device, steps, lightly=True)[0]
        in_turns(1, ways)
        ways["rate"] = lambda: reachable_rate(device, "bf16")
        _, seconds = in_turns(repeats, ways)
    what, batch = f"{config.method}, batch {config.batch_size}", config.batch_size
    if config.compile != "none":
        what += f", --compile {config.compile}"
    rows = [
        beside(what, seconds, name, work=batch, measure="images/s")
        for name in ways
        if name not in ("ours", "rate")
    ]
    shares = tuple(flops / s / rate for s, rate in zip(seconds["ours"], seconds["rate"], strict=True))
    bar = 0.4 if (config.method, batch, device.type) == ("simsiam", 512, "cuda") else None
    return [*rows, Row(what, "matrix rate", shares, bar, note=f"{flops / 1e9:.0f} GFLOP a step")]


def extrapolated(config: TrainConfig, images: Tensor, steps: int) -> Row:
    """Minutes of a whole run of CPLearn from a part of it."""
    with tempfile.TemporaryDirectory() as folder:
        training_block(training_loop(config, images, Path(folder) / "warm"), 10)()
        seconds = training_block(training_loop(config, images, Path(folder) / "run"), steps)()
    minutes = EPOCHS * (IMAGES // config.batch_size) * seconds / 60
    what = f"{config.method}, batch {config.batch_size}, {EPOCHS:,} epochs, --compile {config.compile}"
    return Row(what, "", (minutes,), 45.0, at_most=True, unit="min", note=f"from {steps:,} steps")


def main() -> None:
    """Measures and prints a table, as it goes into gpu.md."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--batch", default="64,256,512")
    parser.add_argument("--backbone", default="", help="another than the recipe's ResNet-18")
    parser.add_argument("--steps", type=int, default=50, help="in a turn")
    parser.add_argument("--compile", default="none,reduce-overhead", help="modes of fullrank train")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--extrapolate", type=int, default=20 * (IMAGES // 64), help="steps of CPLearn")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    device, accelerator = torch.device(args.device), "cpu" if args.device == "cpu" else "gpu"
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
    batches, found = [int(batch) for batch in args.batch.split(",")], []
    modes = args.compile.split(",")
    for method, batch, mode in itertools.product(args.methods.split(","), batches, modes):
        config = replace(config_of(method, batch, args.backbone, accelerator), compile=mode)
        found += measured(config, images, device, args.steps, args.repeats)
    if "cplearn" in args.methods.split(","):
        config = replace(config_of("cplearn", min(batches), args.backbone, accelerator), compile=modes[-1])
        found.append(extrapolated(config, images, args.extrapolate))
    name = torch.cuda.get_device_name() if device.type == "cuda" else machine()["cpu"]
    print(f"{date.today().isoformat()}, {name}, torch {torch.__version__}\n\n```\n{table(found)}\n```")
    if args.json:
        about = {"date": date.today().isoformat(), "device": name, "machine": machine()}
        lines = [row.as_dict() for row in found]
        args.json.write_text(json.dumps({**about, "versions": versions(), "rows": lines}, indent=1) + "\n")


if __name__ == "__main__":
    main()
