"""Measure what train.py kept, into one table: panels, exponents and accuracy, no embeddings.

Usage: python benchmarks/encoders/measure.py --kept DIR ... [--out benchmarks/encoders/encoders.parquet]
       python benchmarks/encoders/measure.py --again    # judge the table's own panels with today's judge

A row is a tap of an encoder after an epoch. What was measured already is passed over, and encoders of the
table whose files are not there stay in it. `kind` and `probability` are of the run's verdict, which knows its
panels before, `phase` is whether that run would call a collapse transient, by its k-NN of the backbone, too;
`kind_alone` and `probability_alone` are of an audit's verdict, which knows no other panel.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse import CodeUsage, Panel, judge, judge_codes
from fullrank.collapse.decay import VIEWS, decay_of
from fullrank.collapse.metrics import METRICS, Spectra
from fullrank.collapse.monitor import CODES
from fullrank.collapse.phase import with_phase
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.errors import UsageError

BESIDE = ("rankme_published", "rankme_spt", "erank_eigenvalues", "alpha_req")
"""What others hold a threshold against, beside the panel's own measures."""

ENCODER = ("data", "method", "arm", "seed")
RUN = (*ENCODER, "tap")


def of_rows(tap: str, z: Tensor) -> dict[str, Any]:
    """What a panel and the simple checks read."""
    if tap == CODES:
        usage = CodeUsage(z.shape[1])
        usage.update(z)
        verdict = judge_codes(usage.result())
        found = {"kind": verdict.kind, "probability": verdict.probability}
        alone = {f"{name}_alone": value for name, value in found.items()}
        return {**found, **alone, **usage.result().as_dict()}
    seen = EmbeddingStatistics(z.shape[1])
    seen.update(z)
    seen.finish()
    spectra = Spectra(seen.moments)
    panel = Panel.from_statistics(tap, seen, spectra=spectra)
    decay = decay_of({name: panel.value(name) for name in VIEWS}, panel.n, panel.possible)
    exponents = {f"exponent_{name}": value for name, value in (decay.exponents if decay else {}).items()}
    beside = {name: METRICS[name](spectra) for name in BESIDE}
    measured = {name: measure.value for name, measure in panel.measures.items()}
    own = {
        "n": panel.n,
        "d": panel.d,
        "jump": panel.clusters.jump if panel.clusters else None,
        "narrowest": panel.narrowest,
    }
    facts = {"outliers": seen.facts.outliers, "distinct": seen.facts.distinct}
    # whole, so that another judge needs no other training
    return {**own, **measured, **exponents, **beside, **facts, "panel": json.dumps(panel.as_dict())}


@dataclass
class Past:
    """What a run knows of itself at a panel."""

    panels: list[Panel] = field(default_factory=list)
    accuracy: float = 0.0  # the best, the untrained network's among them
    untrained: float | None = None
    probability: float | None = None  # of a collapse, at the panel before

    def judge(self, panel: Panel, row: Mapping[str, Any]) -> dict[str, Any]:
        """What the verdict on the next panel is today, after the others and alone."""
        progress, accuracy = row["epoch"] / row["epochs"], row["now_knn_backbone"]
        verdict, alone = judge(panel, self.panels), judge(panel)
        phase = with_phase(
            *(verdict, len(self.panels) + 1, progress),
            accuracy=accuracy,
            best_accuracy=self.accuracy,
            before=self.probability,
            untrained=self.untrained,
            images=row["n"],
        ).phase
        self.accuracy = max(self.accuracy, accuracy)
        if not row["epoch"]:
            self.untrained = accuracy
        else:  # an untrained network's is no best to fall from
            self.panels.append(panel)
            self.probability = verdict.probability
        found = {"kind": verdict.kind, "probability": verdict.probability, "phase": phase}
        return {**found, "kind_alone": alone.kind, "probability_alone": alone.probability}


def judged_again(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows, those of a run in the order of its epochs, with the verdicts of today."""
    past: dict[tuple[Any, ...], Past] = {}
    for row in rows:
        if not row.get("panel"):  # of codes, whose verdict knows no past, or diverged
            yield row | {f"{name}_alone": row[name] for name in ("kind", "probability") if row.get(name)}
            continue
        panel = Panel.from_dict(json.loads(row["panel"]))
        yield row | past.setdefault(tuple(row[name] for name in RUN), Past()).judge(panel, row)


def measured(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of one encoder."""
    kept: Mapping[str, Any] = torch.load(file, weights_only=False)  # our own
    encoder, first = kept["encoder"], kept["at"][0]
    about = {name: encoder[name] for name in ("data", "method", "arm", "group", "seed")}
    about |= {"kinds": ",".join(encoder["kinds"]), "pixels": kept["pixels"]}
    about |= {
        "diverged": bool(kept["diverged"]),
        "backbone": kept["config"]["backbone"],
        "epochs": kept["config"]["epochs"],
    }
    for at in kept["at"]:
        for tap, z in at["rows"].items():
            accuracy = {f"{how}_{name}": value for how, value in (("now", at), ("untrained", first))
                     for name, value in value["accuracy"][tap].items()}  # fmt: skip
            backbone = {"now_knn_backbone": at["accuracy"]["backbone"]["knn"]}
            row = {**about, "tap": tap, "epoch": at["epoch"], **accuracy, **backbone}
            try:
                yield row | of_rows(tap, z.float())
            except UsageError as error:
                yield row | {"kind": "diverged", "why": str(error)[:80]}


def main() -> None:
    """Measure what is new, and write the table of all."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--kept", type=Path, nargs="+")
    source.add_argument("--again", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("encoders.parquet"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    before: list[dict[str, Any]] = []
    if args.out.exists():
        before = pd.read_parquet(args.out).replace({float("nan"): None}).to_dict("records")
    if args.again:
        again = pd.DataFrame(judged_again(before))
        again.to_parquet(args.out, index=False, compression="zstd", compression_level=19)
        return
    rows: list[dict[str, Any]] = []
    # an encoder that two folders hold is one
    files = list({file.stem: file for kept in args.kept for file in sorted(kept.glob("*.pt"))}.values())
    for file in files:
        done = file.with_suffix(".json")
        if not done.exists():
            done.write_text(json.dumps(list(measured(file))))
        rows += judged_again(json.loads(done.read_text()))
    here = {tuple(row[name] for name in ENCODER) for row in rows}
    rows = [*judged_again(row for row in before if tuple(row[name] for name in ENCODER) not in here), *rows]
    pd.DataFrame(rows).to_parquet(args.out, index=False, compression="zstd", compression_level=19)
    print(f"{len(rows)} rows in {args.out}, {len(files)} encoders of which were here")


if __name__ == "__main__":
    main()
