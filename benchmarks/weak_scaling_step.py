"""One process of `weak_scaling.py`, as torchrun starts it. Usage: weak_scaling_step.py ours|lightly FILE."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

BATCH, STEPS, IMAGES, SIZE = 32, 6, 4_000, 32  # images a process; steps that are timed


def ours(world: int) -> float:
    """Seconds of a step of `fullrank train`."""
    from step_cases import CASES
    from steps import config_of, training_block, training_loop

    case = replace(CASES[0], batch=BATCH * world)
    config = replace(config_of(case), sync_bn="none", devices=world)
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        loop = training_loop(config, images, Path(folder) / "run")
        training_block(loop, 2)()
        return training_block(loop, STEPS)()


def lightly(world: int) -> float:
    """Seconds of a step of lightly's SimSiam under Lightning."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimSiamTransform
    from lightning import pytorch as pl
    from step_cases import CASES
    from step_peers import MEAN, SGD, STD, VIEW, Pictures
    from torch.utils.data import DataLoader

    from fullrank.networks.backbones import build_backbone

    case = CASES[0]

    class Trained(pl.LightningModule):
        """lightly's example of SimSiam."""

        def __init__(self) -> None:
            super().__init__()
            found = build_backbone(case.backbone, SIZE)
            self.backbone = found.network
            self.projector = SimSiamProjectionHead(found.feature_dim, case.hidden, case.hidden)
            self.predictor = SimSiamPredictionHead(case.hidden, case.bottleneck, case.hidden)
            self.criterion = NegativeCosineSimilarity()

        def training_step(self, batch: Any, index: int) -> torch.Tensor:
            z = [self.projector(self.backbone(view)) for view in batch[0]]
            p = [self.predictor(each) for each in z]
            pairs = ((p[0], z[1]), (p[1], z[0]))
            found: torch.Tensor = sum(self.criterion(p, z.detach()) for p, z in pairs) / 2
            return found

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), **SGD)

    class Clock(pl.Callback):
        """Seconds from the end of the second step to the end of the last."""

        start = end = 0.0

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.end = time.perf_counter()
            if index == 1:
                self.start = self.end

    assert VIEW.crop
    transform = SimSiamTransform(
        input_size=SIZE, cj_prob=VIEW.jitter_p, cj_bright=VIEW.brightness, cj_contrast=VIEW.contrast,
        cj_sat=VIEW.saturation, cj_hue=VIEW.hue, min_scale=VIEW.crop[0], random_gray_scale=VIEW.gray_p,
        gaussian_blur=VIEW.blur_p, hf_prob=VIEW.flip_p, normalize={"mean": MEAN, "std": STD},
    )  # fmt: skip
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
    loader = DataLoader(Pictures(images, transform), BATCH, shuffle=True, drop_last=True)
    clock = Clock()
    trainer = pl.Trainer(
        accelerator="cpu", devices=world, strategy="ddp" if world > 1 else "auto", precision="bf16-mixed",
        max_steps=2 + STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, callbacks=[clock],
    )  # fmt: skip
    trainer.fit(Trained(), loader)
    return (clock.end - clock.start) / STEPS


def main() -> None:
    """Measure in this process; the first one writes."""
    warnings.simplefilter("ignore")
    way, out = sys.argv[1:]
    torch.manual_seed(0)
    found = {"ours": ours, "lightly": lightly}[way](int(os.environ["WORLD_SIZE"]))
    if os.environ["RANK"] == "0":
        Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
