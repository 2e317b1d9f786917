"""How often the verdict is right on cases whose state is known, beside two single-number checks.

Usage: python benchmarks/verdicts.py [--trained] [--cifar FOLDER] [--json FILE] [--kept FILE]

`--trained` adds encoders trained into each state on the digits that come along (two minutes on two cores);
`--cifar` does the same on 4,096 images of CIFAR-10 (ten minutes more). `--kept` holds what was judged so far,
a line a case, so that a call that was killed goes on; delete it after a change of the verdict.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import date
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from verdict_cases import Made, code_scores, embeddings, in_the_wild

from fullrank.collapse import CodeUsage, Panel, judge, judge_codes
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.training.config import make_train_config
from fullrank.training.recipes import load_recipe
from fullrank.training.run import train

STD_HEALTHY = 0.5  # half of the ideal of 1/sqrt(d), as in tutorials
RANK_HEALTHY = 0.1  # of d, RankMe as published: singular values, not centred

ARMS: dict[str, tuple[tuple[str, ...], Mapping[str, Any]]] = {
    "SimSiam": (("healthy",), {}),
    "no predictor": (("dimensional",), {"predictor": "none"}),
    "no stop-gradient": (("dimensional",), {"stop_gradient": False}),
    "no stop-gradient, no output BN": (("complete",), {"stop_gradient": False, "output_bn": False}),
}
Judged = tuple[str, tuple[str, ...], str, str, str]  # name, right, ours, by std, by rank


def simple_checks(level: float | None, rank: float | None, d: int) -> tuple[str, str]:
    """What a check of the std and a threshold on RankMe can say: healthy or collapsed."""
    by_std = "healthy" if (level or 0.0) > STD_HEALTHY else "collapsed"
    by_rank = "healthy" if (rank or 0.0) > RANK_HEALTHY * d else "collapsed"
    return by_std, by_rank


def made(case: Made) -> Judged:
    """A made case, judged."""
    if case.scores:
        usage = CodeUsage(case.rows.shape[1])
        usage.update(case.rows)
        return case.name, case.right, judge_codes(usage.result()).kind, "", ""
    seen = EmbeddingStatistics(case.rows.shape[1])
    seen.update(case.rows)
    seen.finish()
    panel = Panel.from_statistics("rows", seen)
    checks = simple_checks(panel.value("level"), panel.value("rankme_uncentred"), panel.d)
    return case.name, case.right, judge(panel).kind, *checks


def judged_once(cases: Iterable[Made], kept: str) -> Iterator[Judged]:
    """The cases in their order, each judged or read from the file where one is given."""
    file = Path(kept) if kept else None
    known: dict[str, Judged] = {}
    if file is not None and file.exists():
        for line in file.read_text().splitlines():
            name, right, *rest = json.loads(line)
            known[name] = (name, tuple(right), *rest)
    for case in cases:
        if case.name not in known:
            known[case.name] = made(case)
            if file is not None:
                with file.open("a") as lines:
                    lines.write(json.dumps(known[case.name]) + "\n")
        yield known[case.name]


def trained(data: str, recipe: str, settings: Mapping[str, Any], seeds: int) -> Iterator[Judged]:
    """Encoders trained into a state, judged as their runs judged them."""
    base = load_recipe(recipe).settings
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for arm, (right, options) in ARMS.items():
                changes = {"data": data, "seed": seed, "options": options, **settings}
                outcome = train(make_train_config("simsiam", base, changes), Path(folder) / f"{seed}-{arm}")
                panel = outcome.record.panels["projector"]
                level, rank = (panel["measures"][m]["value"] for m in ("level", "rankme_uncentred"))
                name = f"{arm}, trained on {Path(data).name}, seed {seed}"
                checks = simple_checks(level, rank, panel["d"])
                yield name, right, outcome.record.verdict["kind"], *checks


def main() -> None:
    """Judges all cases and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--trained", action="store_true")
    parser.add_argument("--cifar", default="")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", default="")
    parser.add_argument("--kept", default="")
    args = parser.parse_args()
    judged = list(judged_once(chain(embeddings(), in_the_wild(), code_scores()), args.kept))
    if args.trained:
        judged += trained("digits", "digits/simsiam", {}, args.seeds)
    if args.cifar:
        small = {"limit": 4096, "knn_every": 0, "backbone": "resnet8-w32"}
        judged += trained(args.cifar, "cifar10/simsiam-cpu", small, 1)
    confusion = Counter((right[0], ours) for _, right, ours, _, _ in judged)
    wrong = [row for row in judged if row[2] not in row[1]]
    print(f"{'state':<22}{'verdict':<22}{'cases':>6}")
    for (state, verdict), count in sorted(confusion.items()):
        print(f"{state:<22}{verdict:<22}{count:>6}")
    plain = [row for row in judged if row[3]]

    def agrees(row: Judged, column: int) -> bool:
        return (row[column] == "healthy") == ("healthy" in row[1])

    ours = sum((row[2] == "healthy") == ("healthy" in row[1]) or row[2] in row[1] for row in plain)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "cases": len(judged),
        "named right": 1 - len(wrong) / len(judged),
        "healthy called collapsed": sum(
            "healthy" in right and verdict not in ("healthy", *right) for _, right, verdict, _, _ in judged
        ),
        "collapsed or not, ours": ours / len(plain),
        "collapsed or not, std": sum(agrees(row, 3) for row in plain) / len(plain),
        "collapsed or not, RankMe": sum(agrees(row, 4) for row in plain) / len(plain),
        "wrong": [{"case": row[0], "right": row[1], "verdict": row[2]} for row in wrong],
    }
    for key, value in result.items():
        print(f"{key:<28}{value:.1%}" if isinstance(value, float) else f"{key:<28}{value}")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
