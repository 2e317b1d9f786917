"""Train the runs of the page "What collapse is", and write what its figures show: docs/collapse-runs/*.json.

    python docs/make_collapse_figures.py FOLDER

FOLDER keeps the runs; those that are there are not trained again. Takes four minutes on two CPU cores.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank import train
from fullrank.cli import main as fullrank
from fullrank.collapse.metrics._spectrum import isotropic_singular_values
from fullrank.encoders.runs import own_data
from fullrank.images.sources import Data
from fullrank.methods import Method
from fullrank.networks.backbones import features_and_tokens
from fullrank.training.networks import build_networks
from fullrank.training.run_dir import RunDir

OUT = Path(__file__).parent / "collapse-runs"
ARMS = {
    "SimSiam": "simsiam",
    "no predictor": "no-predictor",
    "no stop-gradient": "no-stop-gradient",
    "no stop-gradient, no output BN": "no-stop-gradient-no-output-bn",
}
KEPT: dict[str, Any] = {"keep_checkpoints": 40, "log": ()}
TUTORIAL: dict[str, Any] = {
    "data": "shapes", "backbone": "vit_tiny_patch16_224(patch_size=4, depth=2, embed_dim=64, num_heads=2)",
    "limit": 1024, "epochs": 8, "batch_size": 128, "optimizer": "adamw", "lr": 1e-3, "lr_scaling": "none",
    "views": "tutorial", "knn_every": 4, "knn_bank": 512, "watch_images": 512,
}  # fmt: skip
HEADS: dict[str, Any] = {"proj_hidden_dim": 128, "proj_output_dim": 64, "dropout": 0.1}
RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "dino": ("shapes/dino", {}),
    "dino-no-centring": ("shapes/dino", {"options": {"centre_momentum": 1.0}}),
    "tokens-trained": ("teacher_student", {**TUTORIAL, "options": {**HEADS, "teacher": "trained"}}),
    "tokens-frozen": ("teacher_student", {**TUTORIAL, "options": {**HEADS, "teacher": "frozen"}}),
}
IMAGES = 160


def main(folder: str) -> None:
    """Train what is missing, and write one file a figure."""
    root = Path(folder)
    if not (root / "demo" / "index.html").is_file():
        fullrank(["demo", "--out", str(root / "demo"), "--quiet"])
    for name, (what, settings) in RUNS.items():
        if not (root / name / "encoder.safetensors").is_file():
            train(what, out=root / name, **settings, **KEPT)
    OUT.mkdir(exist_ok=True)
    _write("spectrum", spectra(root / "demo"))
    _write("clusters", {name: clusters(root / name) for name in ("dino", "dino-no-centring")})
    _write("tokens", {name: tokens(root / name) for name in ("tokens-frozen", "tokens-trained")})


def _write(name: str, value: Any) -> None:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False) + "\n"
    (OUT / f"{name}.json").write_text(text, encoding="utf-8")


def _epochs(run: Path) -> Iterator[dict[str, Any]]:
    lines = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    yield from (record for record in map(json.loads, lines) if record["event"] == "epoch")


def _rounded(values: Any, digits: int = 3) -> list[float]:
    return [round(float(value), digits) for value in values]


def spectra(demo: Path) -> dict[str, Any]:
    """Spectra of the projector, level, loss, rank and k-NN of each arm of `fullrank demo`, epoch by epoch."""
    arms = {}
    for name, folder in ARMS.items():
        arms[name] = []
        for record in _epochs(demo / folder):
            kept = np.load(demo / folder / "spectra" / f"epoch_{record['epoch']:04d}.npz")
            values = kept["projector.unit"].astype(float)
            panel = record["panels"]["projector"]["measures"]
            arms[name].append(
                {
                    "loss": record["loss"] and round(record["loss"], 4),
                    "level": round(panel["level"]["value"], 4),
                    "rank": round(panel["erank_centred"]["value"], 1),
                    "knn": round(record["knn"]["top1"], 3) if record.get("knn") else None,
                    "verdict": record["verdict"]["kind"],
                    "spectrum": _rounded(np.log10(np.maximum(values / values[0], 1e-7)), 2),
                }
            )
    size = len(next(iter(arms.values()))[0]["spectrum"])
    flat = isotropic_singular_values(1280, size, False)
    return {"arms": arms, "baseline": _rounded(np.log10(flat / flat[0]), 2), "width": size}


def _methods(run: Path) -> Iterator[tuple[int, Method, Data]]:
    """The method of a run at each of its checkpoints, first to last, and its images."""
    opened = RunDir.open(run)
    config = opened.config()
    data = own_data(config)
    states = {int(found.state["progress"]["step"]): found.state for found in opened.checkpoints.every()}
    for _, state in sorted(states.items()):
        method = build_networks(config)[1]
        method.load_state_dict(state["method"])
        yield int(state["progress"]["epoch"]), method.eval(), data


def _held_out(data: Data, count: int) -> tuple[Tensor, Tensor]:
    """The first held-out images as a network takes them, and their labels."""
    source = data.held_out
    pixels = torch.stack([source.load(i) for i in range(count)]).float() / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (source.mean, source.std))
    return (pixels - mean) / std, torch.as_tensor(source.labels[:count])


def clusters(run: Path) -> dict[str, Any]:
    """Held-out images in the plane of the two largest principal axes of their shares of the codes."""
    epochs: list[dict[str, Any]] = []
    labels: Sequence[int] = []
    before: np.ndarray | None = None
    for epoch, method, data in _methods(run):
        images, classes = _held_out(data, IMAGES)
        with torch.no_grad():
            taps = method.embed(images)
        shares = torch.softmax(taps["codes"] / method.code_temperature, dim=1)
        before = _plane(shares.double().numpy(), before)
        labels = classes.tolist()
        mean = shares.mean(0)
        entropy = float(-(mean * mean.clamp_min(1e-30).log()).sum())
        epochs.append(
            {
                "epoch": epoch,
                "points": [_rounded(point, 2) for point in before],
                "largest": round(float(mean.max()), 3),
                "codes": round(float(np.exp(entropy)), 1),
                "of": int(mean.numel()),
            }
        )
    return {"labels": labels, "epochs": epochs}


def _plane(rows: np.ndarray, before: np.ndarray | None) -> np.ndarray:
    """Rows [n, d] in their principal plane [n, 2], turned to where they were before."""
    centred = rows - rows.mean(0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    points = centred @ axes[:2].T
    if before is None:
        return points
    left, _, right = np.linalg.svd(points.T @ before)
    return points @ (left @ right)


def tokens(run: Path) -> dict[str, Any]:
    """Cosine of every patch token of the head with the middle one, of one image, and the mean over pairs."""
    epochs = []
    for epoch, method, data in _methods(run):
        images, _ = _held_out(data, 32)
        with torch.no_grad():
            _, found = features_and_tokens(method.backbone, images, method.feature_dim)
            outputs = torch.nn.functional.normalize(method.projector(found), dim=2)
        cosines = outputs @ outputs.transpose(1, 2)
        side = round(outputs.shape[1] ** 0.5)
        middle = (side // 2) * side + side // 2
        flat = outputs.flatten(0, 1)
        pairs = flat @ flat.T
        others = (pairs.sum() - len(flat)) / (len(flat) * (len(flat) - 1))
        epochs.append(
            {"epoch": epoch, "map": _rounded(cosines[0, middle], 3), "mean": round(float(others), 3)}
        )
    return {"side": side, "middle": middle, "epochs": epochs}


if __name__ == "__main__":
    main(*sys.argv[1:])
