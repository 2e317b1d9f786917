"""Measure the checkpoints that encoders/train.py kept, into one table: label-free measures and accuracy.

Usage: python benchmarks/pick/measure.py --kept DIR [DIR ...] [--out benchmarks/pick/checkpoints.parquet]

A row is an encoder after an epoch: `backbone_*` and `projector_*` are what `label_free_measures` says of the
held-out images whose views were kept, `knn` and `linear` what its backbone was worth there. Views are those
that are usual for the data, by which encoders are compared; one that was trained on others has a further row
by its own, by which its checkpoints are compared. What was measured already is passed over.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.label_free import label_free_measures
from fullrank.errors import UsageError

NEIGHBOURS = 20
TAPS = ("backbone", "projector")


def left_one_out(z: Tensor, labels: Tensor, k: int = NEIGHBOURS) -> float:
    """Accuracy of a row's nearest others, by cosine similarity of centred rows; equal votes for all.

    The training images are among them: no label was seen in training, and three times as many rows make the
    accuracy less noisy.
    """
    if not bool(z.isfinite().all()):
        return 0.0
    unit = torch.nn.functional.normalize(z.double() - z.double().mean(0), dim=1)
    classes = torch.nn.functional.one_hot(labels.long()).double()
    similar = (unit @ unit.T).fill_diagonal_(-torch.inf)
    votes = classes[similar.topk(k).indices].sum(1)
    right = votes.argmax(1) == labels
    return right.double().mean().item()


def measured(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of one encoder."""
    kept: Mapping[str, Any] = torch.load(file, weights_only=False)  # our own
    encoder = kept["encoder"]
    about = {name: encoder[name] for name in ("data", "method", "arm", "group", "seed")}
    about |= {"backbone": kept["config"]["backbone"], "epochs": kept["config"]["epochs"]}
    about |= {"diverged": bool(kept["diverged"])}
    labels = torch.cat([kept["labels"], kept["bank_labels"]])
    for at in kept["at"]:
        rows = torch.cat([at["rows"]["backbone"].float(), at["bank"].float()])
        row = {**about, "epoch": at["epoch"], "loss": at["loss"], "images": len(at["views"]["backbone"])}
        row |= {"knn": left_one_out(rows, labels), "linear": at["accuracy"]["backbone"]["linear"]}
        yield row | {"views": "usual"} | seen_by(at.get("usual_views", at["views"]), at["rows"])
        if "usual_views" in at:
            yield row | {"views": "own"} | seen_by(at["views"], at["rows"])


def seen_by(views: Mapping[str, Tensor], rows: Mapping[str, Tensor]) -> dict[str, Any]:
    """Label-free measures of all taps, by views of images."""
    found: dict[str, Any] = {}
    try:
        for tap in TAPS:
            if tap in views:
                measures = label_free_measures(views[tap].float(), rows[tap].float())
                found |= {f"{tap}_{name}": value for name, value in measures.items()}
    except UsageError:
        found["diverged"] = True
    return found


def main() -> None:
    """Measure what is new, and write the table of all."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kept", type=Path, nargs="+", required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("checkpoints.parquet"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    files = sorted(file for folder in args.kept for file in folder.glob("*.pt"))
    rows = []
    for file in files:
        done = file.with_suffix(".pick.json")
        if not done.exists():
            done.write_text(json.dumps(list(measured(file))))
        rows += json.loads(done.read_text())
    pd.DataFrame(rows).to_parquet(args.out, index=False)
    print(f"{len(rows)} checkpoints of {len(files)} encoders in {args.out}")


if __name__ == "__main__":
    main()
