"""Whether a long run stays as it began: memory, open files, threads and the time of a step.

    python benchmarks/long_run.py [--steps 100000] [--out DIR] [--minutes 0] [--json FILE]
    python benchmarks/long_run.py --lines 10000000 [--out DIR] [--json FILE]

The first trains a very small network for that many steps through the command line, and looks at the process
every few seconds from outside, through /proc (Linux). With --minutes it is asked to stop after so long, and
the same command goes on through `fullrank resume`; every process counts by itself, after its first tenth.
With --steps 0 what was seen so far is summed up.
The second writes a `metrics.jsonl` of so many lines, as a run would, and measures how long `fullrank report`
takes to read and draw it, and how much memory that needs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine

from fullrank.training.record_files import has_ended, last_step
from fullrank.training.records import EndRecord, EpochRecord, RunRecord, StepRecord

EPOCH = 1000  # steps
TRAIN = (
    "vicreg", "--data", "digits", "--limit", "64", "--backbone", "resnet8-w4", "--image-size", "8",
    "--views", "none", "--batch-size", "16", "--steps-per-epoch", str(EPOCH), "--optimizer", "sgd",
    "--options.proj-hidden-dim", "16", "--options.proj-output-dim", "16", "--probe", "off",
    "--knn-every", "0", "--watch-images", "64", "--watch-every", "10", "--level-every", "50",
    "--workers", "0",
)  # fmt: skip
EVERY = 5.0  # seconds between two looks
TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Look:
    """What was seen of a training process at one moment.

    Attributes:
        process: which one it is; a run that was resumed has several.
        step: optimiser steps that its records tell of.
        seconds: since the process began.
        cpu_seconds: of the processor that it has used.
        memory_mb: resident, in 2^20 bytes.
        own_mb: the part of it that is mapped from no file.
        handles: open file descriptors.
        threads: of the process.
    """

    process: int
    step: int
    seconds: float
    cpu_seconds: float
    memory_mb: float
    own_mb: float
    handles: int
    threads: int


def measure_process(pid: int, number: int, began: float, log: Path) -> Look | None:
    """Look at a process; None once it has ended."""
    folder = Path("/proc") / str(pid)
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        times = (folder / "stat").read_text().rsplit(")", 1)[1].split()
        return Look(
            process=number,
            step=last_step(log),
            seconds=time.perf_counter() - began,
            cpu_seconds=(int(times[11]) + int(times[12])) / TICK,
            memory_mb=int(status["VmRSS"].split()[0]) / 1024,
            own_mb=int(status["RssAnon"].split()[0]) / 1024,
            handles=sum(1 for _ in (folder / "fd").iterdir()),
            threads=int(status["Threads"]),
        )
    except (OSError, KeyError):
        return None


def train(out: Path, steps: int, minutes: float) -> None:
    """Train, or go on, until the end or for so many minutes; append what was seen to `looks.jsonl`."""
    run, seen = out / "run", out / "looks.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    words = ["train", *TRAIN, "--epochs", str(-(-steps // EPOCH)), "--out", str(run)]
    if (run / "config.yaml").exists():
        words = ["resume", str(run)]
    number = max((found.process for found in looks_of(out)), default=0) + 1
    with (out / "output.txt").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "fullrank", *words, "--quiet"], stdout=output, stderr=output
        )
    began, first = time.perf_counter(), last_step(run / "metrics.jsonl")
    while process.poll() is None:
        time.sleep(EVERY)
        if minutes and time.perf_counter() - began > 60 * minutes:
            process.send_signal(signal.SIGTERM)
            process.wait()
            break
        found = measure_process(process.pid, number, began, run / "metrics.jsonl")
        if found and found.step > first and not has_ended(run / "metrics.jsonl"):  # it draws no page yet
            with seen.open("a") as file:
                file.write(json.dumps(asdict(found)) + "\n")
    if process.returncode not in (0, 3, 128 + signal.SIGTERM):
        raise SystemExit(f"training failed: {(out / 'output.txt').read_text()[-2000:]}")


def looks_of(out: Path) -> list[Look]:
    """Everything that was seen of a run, in order."""
    file = out / "looks.jsonl"
    return [Look(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []


def summary(looks: Sequence[Look]) -> dict[str, Any]:
    """How the quantities of one process went after its first tenth, and which of them are flat.

    Flat are handles and threads whose median in the last tenth is not above that in the second (a checkpoint
    opens files for a moment), memory whose straight line rises by less than 2 % of it, and a time of a step
    whose last tenth is at most a tenth above its second.
    """
    first, last = looks[0].step, looks[-1].step
    tenth = (last - first) / 10
    later = [one for one in looks if one.step >= first + tenth]
    steps = np.array([one.step for one in later], dtype=np.float64)
    found: dict[str, Any] = {"first_step": first, "last_step": last, "looks": len(looks)}
    for name in ("memory_mb", "own_mb"):
        values = np.array([getattr(one, name) for one in later])
        slope = float(np.polyfit(steps, values, 1)[0])
        found[name] = {
            "first": float(values[0]),
            "last": float(values[-1]),
            "largest": float(values.max()),
            "per_1000_steps": 1000 * slope,
            "flat": bool(slope * (last - later[0].step) < 0.02 * statistics.median(values)),
        }
    for name in ("handles", "threads"):
        numbers = [getattr(one, name) for one in later]
        early = [getattr(one, name) for one in later if one.step < first + 2 * tenth]
        closing = [getattr(one, name) for one in later if one.step > last - tenth]
        before, after = statistics.median(early), statistics.median(closing)
        found[name] = {"first": before, "last": after, "largest": max(numbers), "flat": after <= before}
    for name in ("seconds", "cpu_seconds"):
        second, tenths = (_per_step(later, name, first + k * tenth, first + (k + 1) * tenth) for k in (1, 9))
        ratio = tenths / second
        found[f"{name}_per_step"] = {
            "second_tenth": second, "last_tenth": tenths, "ratio": ratio, "flat": ratio <= 1.1
        }  # fmt: skip
    return found


def _per_step(looks: Sequence[Look], name: str, start: float, stop: float) -> float:
    """Seconds of a step between two steps of a process."""
    inside = [one for one in looks if start <= one.step <= stop]
    spent = getattr(inside[-1], name) - getattr(inside[0], name)
    return float(spent / (inside[-1].step - inside[0].step))


READ = """
import json, resource, sys, time
from pathlib import Path
from fullrank.report.run import page
from fullrank.training.record_files import has_ended, last_step, size_without_end
import numpy, rich
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
run, found = Path(sys.argv[1]), dict()
log, before = run / "metrics.jsonl", peak()
def timed(name, block):
    start, used = time.perf_counter(), time.process_time()
    block()
    found[name] = dict(seconds=time.perf_counter() - start, cpu_seconds=time.process_time() - used)
    found[name]["peak_mb_above_imports"] = peak() - before
timed("end", lambda: (has_ended(log), last_step(log), size_without_end(log, log.stat().st_size)))
timed("report", lambda: page.write_page(run, found.setdefault("notes", []).append))
print(json.dumps(found))
"""


def write_records(log: Path, lines: int, steps_per_epoch: int = 10_000) -> None:
    """Write a file of so many lines as a run with three taps does, about 0.3 GB for a million."""
    taps = ("backbone", "projector", "predictor")
    measures = {f"measure_{k}": {"value": 0.5 + 0.01 * k, "null": 0.9, "n": 1280} for k in range(30)}
    panels = {tap: {"tap": tap, "n": 1280, "d": 128, "measures": measures} for tap in taps}
    rng, written, step = np.random.default_rng(0), 0, 0
    with log.open("wb") as file:
        while written < lines - 1:
            epoch = step // steps_per_epoch
            number = min(steps_per_epoch, lines - 2 - written)
            verdict = {"kind": "healthy", "tap": "projector", "why": "the level holds", "evidence": []}
            record = EpochRecord(epoch=epoch, step=step, loss=0.5, verdict=verdict, panels=panels)
            rows = [_line(record)]
            for loss in (1 / (1 + epoch) + 0.01 * rng.standard_normal(number)).tolist():
                step += 1
                level = dict.fromkeys(taps, 0.8765432109876543 + loss / 100)
                spent = {"elapsed": 0.0456789012345678 * step, "images_per_second": 5432.109876543210 + loss}
                made = StepRecord(epoch=epoch, step=step, loss=loss, lr=0.03, level=level, time=spent)
                rows.append(_line(made))
            file.write(b"".join(rows))
            written += len(rows)
        file.write(_line(EndRecord(epoch=step // steps_per_epoch, step=step, reason="finished")))


def _line(record: RunRecord) -> bytes:
    return json.dumps(record.as_dict()).encode() + b"\n"


def reading(run: Path, lines: int, repeats: int) -> dict[str, Any]:
    """Seconds and memory of the page of a run with so many lines, without imports; made where not there."""
    log = run / "metrics.jsonl"
    if not log.exists():
        run.mkdir(parents=True, exist_ok=True)
        free, needed = shutil.disk_usage(run).free, 350 * lines
        if free < needed:
            raise SystemExit(f"{run} has room for {free / 1e9:.1f} GB, and the file takes {needed / 1e9:.1f}")
        write_records(log, lines)
    turns = []
    for _ in range(repeats):
        done = subprocess.run([sys.executable, "-c", READ, str(run)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stderr)
        turns.append(json.loads(done.stdout.splitlines()[-1]))
    return {"lines": lines, "gigabytes": log.stat().st_size / 1e9, "turns": turns}


def training(out: Path, steps: int, minutes: float) -> dict[str, Any]:
    """What was seen of a run, each of its processes by itself."""
    if steps:
        train(out, steps, minutes)
    processes: dict[int, list[Look]] = {}
    for one in looks_of(out):
        processes.setdefault(one.process, []).append(one)
    log = out / "run" / "metrics.jsonl"
    return {
        "command": " ".join(TRAIN),
        "steps_asked": steps,
        "steps_done": last_step(log),
        "metrics_mb": log.stat().st_size / 2**20,
        "processes": [summary(looks) for looks in processes.values() if len(looks) > 20],
    }


def main() -> None:
    """Train and look, or write and read; print and keep what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=100_000)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--lines", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/long"))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    if args.lines:
        found = {"reading": reading(args.out / f"{args.lines}-lines", args.lines, args.repeats)}
    else:
        found = {"training": training(args.out, args.steps, args.minutes)}
    (about,) = found.values()
    about |= {"date": date.today().isoformat(), "machine": machine(), "load": os.getloadavg()}
    print(json.dumps(found, indent=1))
    if args.json:
        known = json.loads(args.json.read_text()) if args.json.exists() else {}
        args.json.write_text(json.dumps({**known, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
