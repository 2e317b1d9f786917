"""What the panel after every epoch costs of a run: CIFAR recipes with a ResNet-18, 50,000 images an epoch.

A panel measures every tap on held-out images; every tenth computes the diagnostics too, a tenth of which is
counted. k-NN and the online probe are other measurements and are not in it.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from measuring import Row, in_turns
from steps import training_block, training_loop

from fullrank.training.config import make_train_config
from fullrank.training.recipes import load_recipe

IMAGES, SIZE, STEPS = 50_000, 32, 2
RECIPES = {"cifar10/byol": "four taps, 512 and 256 wide", "cifar10/simsiam": "three taps, 512 and 2048 wide"}


def _share(recipe: str, note: str, repeats: int) -> Row:
    settings = load_recipe(recipe).settings
    config = make_train_config(settings["method"], settings)
    config = replace(config, accelerator="cpu", precision="bf16", knn_every=0)
    images = torch.randint(0, 256, (IMAGES, 3, SIZE, SIZE), dtype=torch.uint8)
    with tempfile.TemporaryDirectory() as folder:
        loop = training_loop(config, images, Path(folder) / "run")
        monitor, closer_every = loop.evaluator.held_out.monitor, loop.config.diagnostics_every
        block = training_block(loop, STEPS)

        def panel(diagnostics_every: int) -> float:
            monitor.diagnostics_every = diagnostics_every
            start = time.perf_counter()
            loop.evaluator.held_out.panel(trained=True)
            return time.perf_counter() - start

        panel(1)  # what is computed once in a run
        _, found = in_turns(repeats, {"step": block, "plain": lambda: panel(0), "closer": lambda: panel(1)})
        steps = loop.s.steps_per_epoch
    shares, panels, epochs = [], [], []
    for step, plain, closer in zip(found["step"], found["plain"], found["closer"], strict=True):
        panels.append(plain + (closer - plain) / closer_every)
        epochs.append(steps * step)
        shares.append(panels[-1] / (panels[-1] + epochs[-1]))
    middle = repeats // 2
    return Row(
        f"panel every epoch, {recipe}", "the whole epoch", tuple(shares), 0.01, True, "",
        sorted(panels)[middle], sorted(epochs)[middle], "s", note,
    )  # fmt: skip


def rows(repeats: int) -> list[Row]:
    """A recipe with four taps, and one with wide ones."""
    return [_share(recipe, note, repeats) for recipe, note in RECIPES.items()]
