"""Default runs of every method on small sets, against the untrained network.

    python benchmarks/defaults.py --cifar FOLDER_OF_PARQUET

The settings are those that `fullrank train METHOD` chooses for the images; only the backbone is a narrow
ResNet, so that a run takes a CPU minutes, and panels come every tenth epoch. Resumable: runs that stand in
benchmarks/defaults.json are not repeated. `--page` writes the table of them to benchmarks/defaults.md.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from fullrank.methods import METHODS
from fullrank.training import run as training
from fullrank.training.planning import plan_run
from fullrank.training.records import EpochRecord, RunRecord

FILE, PAGE = (Path(__file__).with_name(f"defaults.{kind}") for kind in ("json", "md"))
CHEAP = {"watch_every": 10, "knn_every": 10, "diagnostics_every": 0, "probe": "off", "workers": 0}


@dataclass(frozen=True)
class Case:
    """A set of images and a narrow backbone for them."""

    name: str
    data: str
    limit: int
    backbone: str
    image_size: int = 0

    def settings(self, cifar: str) -> dict[str, Any]:
        """What the run is asked for; all else is chosen."""
        size = {"image_size": self.image_size} if self.image_size else {}
        data = self.data or cifar
        return {"data": data, "limit": self.limit, "backbone": self.backbone, **size, **CHEAP}


CASES = (
    Case("digits, 320", "digits", 320, "resnet8-w8"),
    Case("CIFAR-10, 1,000", "", 1000, "resnet8-w8"),
    Case("CIFAR-10, 3,000", "", 3000, "resnet8-w16"),
    Case("CIFAR-10, 1,000 at 64 pixels", "", 1000, "resnet8-w8", 64),
)


def pending(
    done: Mapping[str, Any], cases: Sequence[str], methods: Sequence[str], seeds: int
) -> Iterator[Any]:
    """Case, method and seed of every run that is not done, seeds last."""
    for seed in range(seeds):
        for case in CASES:
            for method in methods or list(METHODS):
                if (not cases or case.name in cases) and key_of(case.name, method, seed) not in done:
                    yield case, method, seed


def key_of(case: str, method: str, seed: int) -> str:
    """The name of a run in the file."""
    return f"{case} / {method} / {seed}"


def measure(case: Case, method: str, seed: int, cifar: str) -> dict[str, Any]:
    """k-NN before and after a default run, and what was chosen for it."""
    settings = case.settings(cifar) | {"seed": seed}
    plan = plan_run(method, settings)
    if not plan.chosen:  # a recipe, which was tried on the whole set
        plan = plan_run(method, {key: value for key, value in settings.items() if key != "limit"})
    accuracies: list[float] = []

    def listen(record: RunRecord) -> None:
        if isinstance(record, EpochRecord) and (found := record.accuracy("knn")) is not None:
            accuracies.append(found)

    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        outcome = training.train(plan.config, Path(folder) / "run", [listen], plan.data, named=plan.named)
    return {
        "untrained": round(accuracies[0], 4),
        "trained": round(accuracies[-1], 4),
        "verdict": outcome.record.verdict["kind"],
        "chosen": plan.notes[0],
        "seconds": round(time.perf_counter() - started),
    }


def page(done: Mapping[str, Mapping[str, Any]], when: str) -> str:
    """The table: means over seeds, and the runs that ended below the untrained network."""
    cases = [case.name for case in CASES if any(key.startswith(f"{case.name} /") for key in done)]
    lines = [
        "# Default runs against the untrained network",
        "",
        "k-NN (k = 20) on held-out images after `fullrank train METHOD` with the settings that it chooses,",
        "and in brackets that of the untrained network, in percent: means over seeds, whose number stands",
        "behind the slash. Bold is what ended below. CIFAR-10 is a copy whose images were recompressed as",
        "JPEG. SimSiam and BYOL start from their recipes on digits, on all of them. Generated shapes, where",
        "every method starts from its recipe, are in docs/methods.md. Backbones are narrow: resnet8-w8, for",
        "3,000 images resnet8-w16. Measured on two busy CPU cores by",
        f"`python benchmarks/defaults.py --cifar FOLDER`, {when}.",
        "",
        f"| method | {' | '.join(cases)} |",
        f"|---|{'---|' * len(cases)}",
    ]
    for method in METHODS:
        cells = [_cell([r for k, r in done.items() if k.startswith(f"{c} / {method} /")]) for c in cases]
        if any(cells):
            lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(runs: Sequence[Mapping[str, Any]]) -> str:
    if not runs:
        return ""
    trained, untrained = (fmean(run[key] for run in runs) for key in ("trained", "untrained"))
    text = f"{100 * trained:.1f} ({100 * untrained:.1f}) / {len(runs)}"
    return text if trained >= untrained else f"**{text}**"


def main() -> None:
    """Run what is pending, one after the other, and write each result at once."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cifar", default="", help="folder of CIFAR-10 as parquet")
    parser.add_argument("--cases", default=[], nargs="*", help="names of cases; all of them else")
    parser.add_argument("--methods", default=[], nargs="*", help="names of methods; all of them else")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--file", type=Path, default=FILE)
    parser.add_argument("--page", action="store_true", help="write the table and train nothing")
    args = parser.parse_args()
    done = json.loads(args.file.read_text()) if args.file.is_file() else {}
    if args.page:
        PAGE.write_text(page(done, time.strftime("%Y-%m-%d")))
        return
    for case, method, seed in pending(done, args.cases, args.methods, args.seeds):
        if not case.data and not args.cifar:
            continue
        try:
            found = measure(case, method, seed, args.cifar)
        except Exception as error:  # the others go on; what failed is shown and tried again next time
            print(f"{key_of(case.name, method, seed)}: {type(error).__name__}: {error}", flush=True)
            continue
        done[key_of(case.name, method, seed)] = found
        args.file.write_text(json.dumps(done, indent=1) + "\n")
        print(
            key_of(case.name, method, seed),
            found["untrained"],
            found["trained"],
            found["seconds"],
            flush=True,
        )


if __name__ == "__main__":
    main()
