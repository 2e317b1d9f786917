"""Whether `fullrank adapt` never ends worse than it began, on small encoders of another domain.

    python benchmarks/adapt.py --cifar FOLDER --folder /tmp/adapt

Encoders are pretrained on one of three domains and adapted to another, by defaults but for their size: three
pairs, two backbones, three seeds. Then pairs that are made so that adaptation harms. Labels do not decide,
but with `--labels veto`, which is the command's default; k-NN is measured on images that no adaptation saw.
Resumable: cases in the JSON are not repeated. `--table` prints the tables of docs/adapt.md.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

import fullrank
from fullrank.adaptation.result import Adaptation
from fullrank.encoders.opening import open_encoder
from fullrank.features.extraction import embed_whole
from fullrank.images.opening import open_data
from fullrank.images.sources import MemorySource, Source
from fullrank.probes import knn_predict
from fullrank.training.record_files import has_ended

FILE = Path(__file__).with_name("adapt.json")
SIZE, SEEDS = 16, 3
PRETRAINED, HELD_OUT, UNSEEN = 800, 400, (900, 1400)  # images of a domain
PAIRS = (("shapes", "cifar10"), ("digits", "shapes"), ("cifar10", "digits"))
BACKBONES = {
    "ResNet-8, width 16": "resnet8-w16",
    "small ViT": "vit_tiny_patch16_224(patch_size=4, embed_dim=48, depth=2, num_heads=3)",
}
SMALL: dict[str, Any] = {"limit": 512, "batch_size": 64, "epochs": 12, "image_size": SIZE}
VIEWS = {"shapes": "shapes", "digits": "digits", "cifar10": "simsiam-cifar", "noise": "simsiam-cifar"}
PANELS = ("watch_every=4", f"watch_images={HELD_OUT}", "knn_bank=512", "thaw_epochs=1")
HARM: dict[str, tuple[str, dict[str, Any]]] = {
    "32 images": ("cifar10", {"limit": 32, "batch_size": 16}),
    "unrelated images (noise)": ("noise", {}),
    "no stop-gradient": (
        "cifar10",
        {
            "method": "simsiam",
            "settings": (*PANELS, "options.stop_gradient=false", "options.output_bn=false"),
        },
    ),
    "rate x 100": ("cifar10", {"lr": 0.05}),
}


class Case(NamedTuple):
    """One adaptation: from where to where, and what is done wrong on purpose."""

    source: str
    target: str
    backbone: str
    seed: int
    harm: str = ""

    def __str__(self) -> str:
        made = f", {self.harm}" if self.harm else ""
        return f"{self.source} to {self.target}, {self.backbone}, seed {self.seed}{made}"


def cases(first_seed: int = 0) -> Iterator[Case]:
    """All cases: of each seed those that may help, then those that should harm."""
    for seed in range(first_seed, first_seed + SEEDS):
        for (source, target), backbone in product(PAIRS, BACKBONES):
            yield Case(source, target, backbone, seed)
        for harm, (target, _) in HARM.items():
            yield Case("shapes", target, "small ViT", seed, harm)


class Domain(NamedTuple):
    """Images of a domain: the folder that encoders see, and images that none of them does."""

    folder: Path
    bank: Source
    unseen: Source


@cache
def domain(name: str, cifar: str, folder: Path) -> Domain:
    """Make or open the images of a domain, 16 pixels wide."""
    if name == "noise":
        return _noise(folder / name)
    data = open_data(cifar if name == "cifar10" else name, image_size=SIZE, limit=UNSEEN[1], seed=0)
    train = data.train.subset(np.arange(PRETRAINED))
    if not (folder / name).exists():
        draft = folder / f"{name}.draft"
        shutil.rmtree(draft, ignore_errors=True)
        _save(train, draft / "train")
        _save(data.held_out.subset(np.arange(min(HELD_OUT, len(data.held_out)))), draft / "val")
        draft.rename(folder / name)
    return Domain(folder / name, train, data.train.subset(np.arange(*UNSEEN)))


def _save(source: Source, folder: Path) -> None:
    assert isinstance(source, MemorySource) and source.labels is not None
    for index, (image, label) in enumerate(zip(source.images, source.labels, strict=True)):
        file = folder / str(label) / f"{index:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(file)


def _noise(folder: Path) -> Domain:
    """Images with nothing in them; they have no labels."""
    generator = np.random.default_rng(0)
    images = generator.integers(0, 256, (PRETRAINED + HELD_OUT, SIZE, SIZE, 3), np.uint8)
    for index, image in enumerate(images):
        file = folder / ("train" if index < PRETRAINED else "val") / f"{index:05d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            Image.fromarray(image).save(file)
    none = MemorySource(name="none", images=torch.zeros(0, 3, SIZE, SIZE, dtype=torch.uint8))
    return Domain(folder, none, none)


def pretrained(case: Case, cifar: str, folder: Path) -> Path:
    """An encoder of the source domain, trained once for a seed."""
    short = BACKBONES[case.backbone].partition("(")[0]
    run = folder / "pretrained" / f"{case.source}-{short}-{case.seed}"
    data = str(domain(case.source, cifar, folder).folder)
    if run.exists():
        if not has_ended(run / "metrics.jsonl"):
            fullrank.resume(run)
        return run
    fullrank.train(
        "vicreg", out=run, data=data, image_size=SIZE, backbone=BACKBONES[case.backbone], epochs=8,
        batch_size=64, seed=case.seed, views=VIEWS[case.source], watch_every=8, watch_images=128,
        knn_every=0, probe="off", accelerator="cpu",
    )  # fmt: skip
    return run


def right(encoder: Path, images: Domain) -> Tensor:
    """Which unseen images k-NN names right."""
    model = open_encoder(encoder)
    queries, labels = embed_whole(model, images.unseen)
    bank, bank_labels = embed_whole(model, images.bank)
    assert labels is not None and bank_labels is not None
    return knn_predict(queries, bank, bank_labels) == labels


def measured(case: Case, cifar: str, folder: Path, labels: str) -> dict[str, Any]:
    """Adapt, and compare the exported encoder with the start on images that none has seen."""
    start, images = pretrained(case, cifar, folder), domain(case.target, cifar, folder)
    place = folder / ("adapted" if labels == "report" else f"adapted-{labels}")
    out = place / str(case).replace(", ", "-").replace(" ", "-")
    options = {**SMALL, **(HARM[case.harm][1] if case.harm else {}), "seed": case.seed, "labels": labels}
    options["settings"] = (f"views={VIEWS[case.target]}", *options.get("settings", PANELS))
    began = time.process_time()
    result = fullrank.adapt(start, out=out, data=str(images.folder), **options)
    seconds = time.process_time() - began
    judged = domain(case.source, cifar, folder) if case.target == "noise" else images
    before, after = right(start, judged).double(), right(result.path, judged).double()
    best = _best_right(result, judged)
    shutil.rmtree(out / "checkpoints", ignore_errors=True)
    return _row(case, result, seconds) | {
        "judged on": case.source if case.target == "noise" else case.target,
        "unseen": len(before),
        "knn start": float(before.mean()),
        "knn exported": float(after.mean()),
        "knn best": best,
        "standard error": float((after - before).std()) / math.sqrt(len(before)),
    }


def _best_right(result: Adaptation, images: Domain) -> float:
    """k-NN of the best checkpoint, taken or not."""
    if result.adapted or not result.best_epoch:
        return float(right(result.path, images).double().mean())
    return float(right(result.path / "checkpoints" / "best.pt", images).double().mean())


def _row(case: Case, result: Adaptation, seconds: float) -> dict[str, Any]:
    gain, kept, knn = (result.finding(name) for name in ("gain", "kept", "knn"))
    return {
        **case._asdict(),
        "adapted": result.adapted,
        "sentence": result.sentence,
        "best epoch": result.best_epoch,
        "gain": gain and [gain.before, gain.after, gain.low, gain.high],  # none where images are too few
        "kept": kept and [kept.after, kept.low],
        "knn held out": None if knn is None else [knn.before, knn.after],
        "seconds": round(seconds, 1),
    }


def main() -> None:
    """Measures the cases that are left, each written as it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cifar", default="", help="CIFAR-10 as a folder")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/adapt"))
    parser.add_argument("--labels", choices=("report", "veto"), default="report")
    parser.add_argument("--json", type=Path, default=FILE)
    parser.add_argument("--first-seed", type=int, default=0, help="other seeds are other encoders")
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    rows: dict[str, dict[str, Any]] = json.loads(args.json.read_text()) if args.json.exists() else {}
    if args.table:
        print(tables(rows))
        return
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    for case in cases(args.first_seed):
        if str(case) in rows or args.only not in str(case):
            continue
        rows[str(case)] = measured(case, args.cifar, args.folder, args.labels)
        args.json.write_text(json.dumps(rows, indent=1) + "\n")
        print(f"{case}: {rows[str(case)]['sentence']}", flush=True)


def tables(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Markdown of what was measured."""
    lines = ["| case | seed | ended | k-NN start | exported | change ± standard error | CPU |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in rows.values():
        change = row["knn exported"] - row["knn start"]
        name = f"{row['source']} to {row['target']}, {row['backbone']}" + (
            f", {row['harm']}" if row["harm"] else ""
        )
        lines.append(
            f"| {name} | {row['seed']} | {'adapted' if row['adapted'] else 'do not adapt'} "
            f"| {100 * row['knn start']:.1f} % | {100 * row['knn exported']:.1f} % "
            f"| {100 * change:+.1f} ± {100 * row['standard error']:.1f} | {row['seconds']:.0f} s |"
        )
    return "\n".join([*lines, "", summary(list(rows.values()))])


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """What the cases come to, in sentences."""
    helpful, harmful = [row for row in rows if not row["harm"]], [row for row in rows if row["harm"]]
    better = sum(row["knn exported"] > row["knn start"] for row in helpful)
    fell = sum(row["knn start"] - row["knn exported"] > row["standard error"] for row in rows)
    adapted = sum(row["adapted"] for row in helpful)
    refused = sum(not row["adapted"] for row in harmful)
    return (
        f"Of {len(helpful)} pairs that may help {adapted} were adapted, and k-NN rose on {better}; of "
        f"{len(harmful)} that should harm {refused} ended with “do not adapt”. k-NN fell by more than its "
        f"standard error in {fell} of all {len(rows)}."
    )


if __name__ == "__main__":
    main()
