"""Train the encoders of grid.yaml and keep what they map held-out images to.

Usage: python benchmarks/encoders/train.py --out DIR [--cifar FOLDER] [--part 0/2]
                                           [--first-seed 3] [--methods byol dino ...]

Other seeds are other encoders: those trained after a judge was fixed are a test that it has not seen.

Every run leaves one file, DIR/<name>.pt: the held-out rows of every tap at several epochs, views of some of
the images, the training loss, and what each tap was worth there. Runs that are there are passed over, so it
can be stopped at any time; parts run beside each other. About 15 s a run on one quiet core.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from fullrank.collapse.monitor import CODES
from fullrank.errors import FullrankError
from fullrank.images.sources import Data, Source
from fullrank.methods import METHODS
from fullrank.probes import knn_predict
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.data import open_run_data
from fullrank.training.launch import launch_fabric
from fullrank.training.loop import Loop
from fullrank.training.recipes import load_recipe
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import resolve, setup
from fullrank.views import Views

GRID: Mapping[str, Any] = yaml.safe_load(Path(__file__).with_name("grid.yaml").read_text("utf-8"))
HELD_OUT, BANK, NEIGHBOURS = 1000, 2000, 20
VIEWED, PAIRS = 400, 3  # images whose views are kept, and twice how many of each: those of `fullrank pick`
HEADS = ("proj_hidden_dim", "proj_output_dim", "pred_hidden_dim", "embedding_dim")  # scaled with the seed


@dataclass(frozen=True)
class Encoder:
    """One run: what it is trained by, and what is known of it beforehand."""

    data: str
    method: str
    arm: str
    group: str  # healthy, broken, halfway
    seed: int
    kinds: tuple[str, ...]
    changes: Mapping[str, Any]

    @property
    def name(self) -> str:
        """A file name."""
        return f"{self.data}-{self.method}-{self.arm}-{self.seed}".replace(" ", "_").replace(",", "")

    def config(self, cifar: str) -> TrainConfig:
        """What `fullrank train` would be told."""
        base = load_recipe(f"shapes/{self.method}").settings
        widths = GRID["widths"][self.seed % len(GRID["widths"])]
        scaled = {
            key: int(value * widths["heads"])
            for key, value in base.get("options", {}).items()
            if key in HEADS
        }
        of_data = {**GRID["data"][self.data], "data": cifar if self.data == "cifar10" else self.data}
        common = {
            "seed": self.seed,
            "backbone": widths["backbone"],
            "options": scaled,
            "watch_images": HELD_OUT,
            "knn_bank": BANK,
            "probe": "off",
            "accelerator": "cpu",
        }
        return make_train_config(self.method, base, of_data, common, self.changes)


def encoders(first_seed: int = 0) -> Iterator[Encoder]:
    """All runs, so that every part of the grid has begun when a tenth is done."""
    found = []
    for data in GRID["data"]:
        for method in METHODS:
            seeds = range(first_seed, first_seed + GRID["healthy_seeds"])
            found += [Encoder(data, method, "as it should be", "healthy", k, ("healthy",), {}) for k in seeds]
        for group in ("broken", "halfway"):
            for place, (arm, how) in enumerate(GRID[group].items()):
                changes = {**how.get("settings", {}), "options": how.get("options", {})}
                for k in range(GRID[f"{group}_seeds"]):
                    seed = first_seed + (k if group == "broken" else place % 3)
                    kinds = tuple(how.get("kinds", ()))
                    found.append(Encoder(data, how["method"], arm, group, seed, kinds, changes))
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))
    yield from (found[int(k)] for k in order)


def marks(epochs: int) -> tuple[int, ...]:
    """Epochs after which rows are kept: none, one, two, a half, three quarters, and all."""
    return tuple(sorted({0, 1, 2, epochs // 2, 3 * epochs // 4, epochs}))


class Kept:
    """Rows of a run and their accuracy, mark by mark."""

    def __init__(self, loop: Loop, data: str) -> None:
        self.loop, self.at = loop, []  # type: ignore[var-annotated]
        own = loop.s.views
        self.usual = Views(GRID["data"][data]["views"], own.image_size, own.mean, own.std)
        self.held_out = loop.evaluator.held_out

    def embed(self, source: Source) -> tuple[dict[str, Tensor], Tensor]:
        """Tap to rows, and labels."""
        rows: dict[str, list[Tensor]] = {}
        seen = []
        with self.held_out._eval_mode():
            for indices, images in self.held_out._chunks(source):
                for tap, z in self.held_out._embed(self.loop.s.views.clean(images)).items():
                    rows.setdefault(tap, []).append(z.clone())
                seen.append(indices)
        assert source.labels is not None
        labels = torch.from_numpy(source.labels)[torch.cat(seen)]
        return {tap: torch.cat(parts) for tap, parts in rows.items()}, labels

    def keep(self, epoch: int) -> None:
        """Take in what the network does now."""
        rows, labels = self.embed(self.held_out.held_out)
        assert self.held_out.bank is not None
        bank, bank_labels = self.embed(self.held_out.bank)
        accuracy = {
            tap: {name: score(z, labels, bank[tap], bank_labels) for name, score in SCORES.items()}
            for tap, z in rows.items()
            if tap != "target"
        }
        kept = {tap: z.half() if tap == CODES else z for tap, z in rows.items() if tap != "target"}
        own = self.loop.s.views
        at = {
            "epoch": epoch,
            "rows": kept,
            "accuracy": accuracy,
            "views": self.views(own),
            "loss": self.loss(),
        }
        if self.usual.recipe != own.recipe:  # encoders are compared by views that all of them see
            at["usual_views"] = self.views(self.usual)
        self.at.append({**at, "bank": bank["backbone"].half()})
        self.labels, self.bank_labels = labels, bank_labels

    def views(self, views: Views) -> dict[str, Tensor]:
        """Tap to [images, views, d]: the same images and views at every epoch."""
        images = torch.cat([images for _, images in self.held_out._chunks(self.held_out.held_out)])[:VIEWED]
        found: dict[str, list[Tensor]] = {}
        generator = torch.Generator().manual_seed(0)
        with self.held_out._eval_mode():
            for _ in range(PAIRS):
                for view in views(images, generator=generator)[:2]:
                    for tap, z in self.held_out._embed(view).items():
                        found.setdefault(tap, []).append(z)
        return {tap: torch.stack(found[tap], 1).half() for tap in ("backbone", "projector") if tap in found}

    def loss(self) -> float | None:
        """Mean loss since it was last asked for; None before the first step."""
        state = self.loop.state
        mean = float(state.loss_sum) / state.loss_count if state.loss_count else None
        state.loss_sum, state.loss_count = torch.zeros((), dtype=torch.float64), 0
        return mean


def knn(z: Tensor, labels: Tensor, bank: Tensor, bank_labels: Tensor) -> float:
    """Accuracy of the nearest neighbours of centred rows, by cosine similarity.

    Centred, so that what is left around a constant counts for what it is worth.
    """
    if not (z.isfinite().all() and bank.isfinite().all()):
        return 0.0
    mean = bank.mean(0)
    right = knn_predict(z - mean, bank - mean, bank_labels, NEIGHBOURS) == labels
    return right.double().mean().item()


def ridge(z: Tensor, labels: Tensor, bank: Tensor, bank_labels: Tensor) -> float:
    """Accuracy of a ridge regression on one-hot labels, of rows standardised as a whole."""
    if not (z.isfinite().all() and bank.isfinite().all()):
        return 0.0
    mean, scale = bank.double().mean(0), bank.double().std().clamp(min=1e-12)
    x, y = (bank.double() - mean) / scale, torch.nn.functional.one_hot(bank_labels.long()).double()
    gram = x.T @ x + 1e-3 * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(gram, x.T @ (y - y.mean(0)))
    scores = (z.double() - mean) / scale @ weight + y.mean(0)
    right: Tensor = scores.argmax(1) == labels
    return right.double().mean().item()


SCORES = {"knn": knn, "linear": ridge}


def pixels(kept: Kept) -> float:
    """k-NN of the images themselves."""

    def flat(source: Source) -> tuple[Tensor, Tensor]:
        images = torch.cat([images for _, images in kept.held_out._chunks(source)])
        assert source.labels is not None
        return images.flatten(1).float(), torch.from_numpy(source.labels)

    assert kept.held_out.bank is not None
    return knn(*flat(kept.held_out.held_out), *flat(kept.held_out.bank))


def train_one(encoder: Encoder, cifar: str, opened: dict[str, Data]) -> dict[str, Any]:
    """Train one encoder; what is kept of it."""
    start = time.perf_counter()
    config = encoder.config(cifar)
    if encoder.data not in opened:
        opened[encoder.data] = open_run_data(config)
    data, fabric = opened[encoder.data], launch_fabric(config)
    config = resolve(config, data)
    with tempfile.TemporaryDirectory() as folder:
        loop = Loop(setup(config, data, fabric), RunDir.create(Path(folder) / "run", config), ())
        kept, wanted, diverged = Kept(loop, encoder.data), marks(config.epochs), ""
        kept.keep(0)
        loop.s.method.train()
        try:
            while loop.state.epoch < config.epochs:
                loop.train_epoch()
                loop.state.epoch += 1
                if loop.state.epoch in wanted:
                    kept.keep(loop.state.epoch)
        except FullrankError as error:
            diverged = str(error)
    return {
        "encoder": vars(encoder),
        "config": config.as_dict(),
        "labels": kept.labels,
        "bank_labels": kept.bank_labels,
        "at": kept.at,
        "pixels": pixels(kept),
        "diverged": diverged,
        "seconds": time.perf_counter() - start,
    }


def main() -> None:
    """Train what is missing of a part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cifar", default="")
    parser.add_argument("--part", default="0/1", help="k/n: the k-th of n parts")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--methods", nargs="*", default=METHODS)
    parser.add_argument("--most", type=int, default=0, help="at most so many runs")
    args = parser.parse_args()
    part, parts = (int(x) for x in args.part.split("/"))
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    opened: dict[str, Data] = {}
    wanted = [e for e in encoders(args.first_seed) if e.data != "cifar10" or args.cifar]
    wanted = [e for e in wanted if e.method in args.methods]
    for k, encoder in enumerate(wanted[: args.most or None]):
        file = args.out / f"{encoder.name}.pt"
        if k % parts != part or file.exists():
            continue
        found = train_one(encoder, args.cifar, opened)
        whole = file.with_suffix(f".{os.getpid()}")
        torch.save(found, whole)
        whole.rename(file)
        last = found["at"][-1]["accuracy"]
        shown = ", ".join(f"{tap} {w['knn']:.2f}" for tap, w in last.items())
        place = f"{k + 1}/{len(wanted)} {encoder.name}"
        print(f"{place}: {shown} ({found['seconds']:.0f} s) {found['diverged']}", flush=True)


if __name__ == "__main__":
    main()
