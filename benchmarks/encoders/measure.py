"""Measure what train.py kept, into one table: panels, exponents and accuracy, no embeddings.

Usage: python benchmarks/encoders/measure.py --kept DIR [--out benchmarks/encoders/encoders.parquet]
       python benchmarks/encoders/measure.py --again    # judge the table's own panels with today's judge

A row is a tap of an encoder after an epoch. What was measured already is passed over. `kind` and
`probability` are of the run's verdict, which knows its panels before, `kind_alone` and `probability_alone`
of an audit's, which knows no other panel.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse import CodeUsage, Panel, judge, judge_codes
from fullrank.collapse.decay import VIEWS, decay_of
from fullrank.collapse.metrics import METRICS, Spectra
from fullrank.collapse.monitor import CODES
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.errors import UsageError

BESIDE = ("rankme_published", "rankme_spt", "erank_eigenvalues", "alpha_req")
"""What others hold a threshold against, beside the panel's own measures."""

RUN = ("data", "method", "arm", "seed", "tap")


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
    return {
        **own,
        **measured,
        **exponents,
        **beside,
        **facts,
        **judged(panel),
        "panel": json.dumps(panel.as_dict()),
    }


def judged(panel: Panel, past: Sequence[Panel] = ()) -> dict[str, Any]:
    """What the verdict on a panel is today, after others and alone."""
    after, alone = judge(panel, past), judge(panel)
    return {
        "kind": after.kind,
        "probability": after.probability,
        "kind_alone": alone.kind,
        "probability_alone": alone.probability,
    }


def judged_again(rows: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Rows, those of a run in the order of its epochs, with the verdicts of today."""
    past: dict[tuple[Any, ...], list[Panel]] = {}
    for row in rows:
        if not row.get("panel"):  # of codes, whose verdict knows no past, or diverged
            yield row | {f"{name}_alone": row[name] for name in ("kind", "probability") if row.get(name)}
            continue
        panel = Panel.from_dict(json.loads(row["panel"]))
        before = past.setdefault(tuple(row[name] for name in RUN), [])
        yield row | judged(panel, before)
        if row["epoch"]:  # an untrained network's is no best to fall from
            before.append(panel)


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
    source.add_argument("--kept", type=Path)
    source.add_argument("--again", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("encoders.parquet"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.again:
        table = pd.read_parquet(args.out).replace({float("nan"): None})
        again = pd.DataFrame(judged_again(table.to_dict("records")))
        again.to_parquet(args.out, index=False, compression="zstd")
        return
    rows: list[dict[str, Any]] = []
    for file in sorted(args.kept.glob("*.pt")):
        done = file.with_suffix(".json")
        if not done.exists():
            done.write_text(json.dumps(list(measured(file))))
        rows += judged_again(json.loads(done.read_text()))
    pd.DataFrame(rows).to_parquet(args.out, index=False, compression="zstd")
    print(f"{len(rows)} rows of {len(list(args.kept.glob('*.pt')))} encoders in {args.out}")


if __name__ == "__main__":
    main()
