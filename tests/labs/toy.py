"""A lab that takes a moment, and jobs that misbehave: of a module, so that other processes find them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar

from fullrank.errors import DataError
from fullrank.figures import Dots, Heat, Lines, Series, Table
from fullrank.jobs.job import Job, Settings
from fullrank.jobs.once import run_once
from fullrank.labs._common.findings import Chapter, Findings, above
from fullrank.labs._common.lab import Lab
from fullrank.labs._common.results import Results

TINY = {
    "recipe": "shapes/simsiam", "limit": 128, "batch_size": 64, "epochs": 2, "warmup_epochs": 0,
    "options": {"proj_hidden_dim": 16, "proj_output_dim": 16, "pred_hidden_dim": 8},
}  # fmt: skip


def noted(path: str, value: float) -> dict[str, float]:
    """Leaves a line each time that it is called."""
    with Path(path).open("a") as file:
        file.write("called\n")
    return {"value": value}


def refused(**_: Any) -> dict[str, float]:
    raise DataError("there is no such thing")


def killed_once(path: str) -> dict[str, float]:
    """Kills its process the first time."""
    if not Path(path).exists():
        Path(path).write_text("once")
        os.kill(os.getpid(), signal.SIGKILL)
    return {"value": 1.0}


def sleeps(path: str) -> dict[str, float]:
    """Tells its process, then waits far longer than any test."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(600)
    return {}


def run_sleepers(folder: str) -> None:
    """What a process is killed amid: two jobs side by side that do not end."""
    out = Path(folder)
    jobs = [Job(a, 0, measure=sleeps, arguments={"path": str(out / a)}) for a in ("a", "b")]
    run_once(jobs, out / "out", at_once=2)


def epochs_of(run: Path) -> dict[str, float]:
    return {"lines": float(len((run / "metrics.jsonl").read_text().splitlines()))}


def number(arm: str, seed: int, bad: str) -> dict[str, float]:
    if arm == bad:
        raise DataError("this arm is broken")
    return {"value": seed + (10.0 if arm == "high" else 0.0)}


class Toy(Lab):
    """Two arms, one higher than the other."""

    title = "Is high higher than low?"
    paper = "Nobody (2025)"
    says = "High is higher."
    presets: ClassVar = {"laptop": {"bad": ""}, "broken": {"bad": "low"}, "all-broken": {"bad": "both"}}
    parts: ClassVar = {"one": "the first", "two": "the second"}

    def jobs(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        for arm in ("high", "low"):
            bad = arm if preset["bad"] == "both" else preset["bad"]
            yield Job(arm, seed, measure=number, arguments={"arm": arm, "seed": seed, "bad": bad}, part=part)

    def analyse(self, results: Results, preset: Settings) -> Findings:
        values = results.by_arm("value")
        claim = above("High is higher.", values.get("high", []), values.get("low", []), "high", "low")
        items: list[Any] = [
            Dots("Values", "One dot a seed.", "value", values, {"five": 5.0}),
            Lines("Curve", "Up.", "x", "y", [Series("high", [1, 2], [[1.0, None], [float("nan"), 4.0]])]),
            Heat("Image", "Of two rows.", "column", "row", [[1.0, 0.0], [0.0, None]]),
            Table("Table", "All.", ("Arm", "Value"), [[arm, found] for arm, found in values.items()]),
        ]
        return Findings([Chapter("Everything", items)], [claim], f"Here {claim.evidence}.", ["A note."])
