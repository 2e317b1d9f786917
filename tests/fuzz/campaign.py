"""Fuzz every reader: `make fuzz`, or `python -m fuzz --minutes 10 --targets npy,hdf5` in `tests/`.

A target runs in a process of its own, so that a crash of a library is counted, and the target goes on. With
atheris the inputs follow the coverage of fullrank's own lines; without it, those that led to a new outcome.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from fuzz.damage import damaged
from fuzz.targets import TARGETS
from fuzz.trial import Trial

PATIENCE = 30.0  # seconds without an input, after which a process is taken to hang in a library
BAD = ("tracebacks", "hang", "memory over 2 GB", "crashes", "silent in spite of a checksum")


def main() -> int:
    parser = argparse.ArgumentParser(prog="fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="for each target")
    parser.add_argument("--targets", default="", help=f"with commas between; all: {', '.join(TARGETS)}")
    parser.add_argument(
        "--corpus", type=Path, default=Path(".fuzz"), help="folder of kept inputs and results"
    )
    parser.add_argument("--engine", choices=("auto", "atheris", "mutation"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rows = []
    for name in args.targets.split(",") if args.targets else TARGETS:
        if all(find_spec(package) for package in TARGETS[name].needs):
            rows.append(fuzz(name, 60 * args.minutes, args.corpus, args.engine, args.seed))
            print(_line(rows[-1]), flush=True)
            _write(args.corpus / "results.json", rows[-1])
    return 1 if any(row["tracebacks"] or row["hang"] or row["crashes"] for row in rows) else 0


def fuzz(name: str, seconds: float, corpus: Path, engine: str, seed: int) -> dict[str, Any]:
    """Fuzz one target for some seconds; the counts and the faults by their place."""
    if engine == "auto":
        engine = "atheris" if find_spec("atheris") else "mutation"
    counts, faults, begin = Counter[str](), dict[str, str](), time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        while (left := seconds - (time.monotonic() - begin)) > 1:
            state = Path(folder, "state.json")
            state.unlink(missing_ok=True)
            context = multiprocessing.get_context("spawn")
            arguments = (name, left, Path(folder), corpus / name, engine, seed)
            process = context.Process(target=_work, args=arguments)
            process.start()
            hung = _watch(process, state)
            found = json.loads(state.read_text()) if state.exists() else {"counts": {}, "faults": {}}
            counts, faults, seed = counts + Counter(found["counts"]), {**faults, **found["faults"]}, seed + 1
            if process.exitcode not in (0, 77):
                what = "hang" if hung else "crashes"
                counts[what] += 1
                faults[f"{what} {counts[what]}"] = f"ended with {process.exitcode}"
                _keep_crash(Path(folder, "input.bin"), corpus / name)
                if counts["crashes"] > 3 and not counts["inputs"]:
                    break  # it cannot even begin
    return {
        "target": name,
        "engine": engine,
        "seconds": round(time.monotonic() - begin),
        **{key: counts[key] for key in ("inputs", "refused", "as before", *BAD)},
        **{key: counts[key] for key in ("changed and said so", "other values, no checksum")},
        "faults": faults,
    }


def _watch(process: Any, state: Path) -> bool:
    """Wait for a process; whether it had to be killed, as nothing came of it any more."""
    hung = False
    while process.is_alive():
        process.join(1)
        if state.exists() and time.time() - state.stat().st_mtime > PATIENCE and not hung:
            process.kill()
            hung = True
    return hung


def _keep_crash(last: Path, kept: Path) -> None:
    if last.exists():
        (kept / f"crash-{random.Random(last.read_bytes()).getrandbits(32):08x}.bin").write_bytes(
            last.read_bytes()
        )


def _work(name: str, seconds: float, folder: Path, kept: Path, engine: str, seed: int) -> None:
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["fullrank"]):
            trial = Trial(TARGETS[name], folder / "files", kept)
    else:
        trial = Trial(TARGETS[name], folder / "files", kept)
    saved = [0.0]

    def one(data: bytes) -> bool:
        if len(data) < 2:
            return False
        (folder / "input.bin").write_bytes(data)
        new = trial.one(data)
        if new or time.monotonic() - saved[0] > 1:
            saved[0] = time.monotonic()
            state = {"counts": trial.counts, "faults": trial.faults}
            (folder / "state.part").write_text(json.dumps(state))
            (folder / "state.part").replace(folder / "state.json")
        return new

    (_by_coverage if engine == "atheris" else _by_outcome)(trial, one, seconds, seed, folder)
    (folder / "state.json").write_text(json.dumps({"counts": trial.counts, "faults": trial.faults}))


def _by_outcome(trial: Trial, one: Any, seconds: float, seed: int, folder: Path) -> None:
    rng, inputs, end = random.Random(seed), trial.seeds(), time.monotonic() + seconds
    whole = inputs[: len(trial.places)]
    for data in inputs:
        one(data)
    while time.monotonic() < end:
        data = rng.choice(whole if rng.random() < 0.5 else inputs)  # most of what was kept is refused early
        data = data[:2] + damaged(data[2:], rng)
        if one(data):
            inputs.append(data)


def _by_coverage(trial: Trial, one: Any, seconds: float, seed: int, folder: Path) -> None:
    import atheris

    def mutated(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        if len(data) < 2 or rng.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return (data[:2] + damaged(data[2:], rng))[:most]

    seeds = folder / "seeds"
    seeds.mkdir(exist_ok=True)
    for number, data in enumerate(trial.seeds()):
        (seeds / f"{number}.bin").write_bytes(data)
    options = [f"-max_total_time={int(seconds)}", f"-seed={seed + 1}", "-rss_limit_mb=0", "-timeout=60"]
    silent = ["-verbosity=0", "-print_final_stats=0", f"-artifact_prefix={folder}/", "-max_len=1048576"]

    def read(data: bytes) -> None:
        one(data)

    atheris.Setup([sys.argv[0], str(seeds), *options, *silent], read, custom_mutator=mutated)
    atheris.Fuzz()


def _line(row: dict[str, Any]) -> str:
    bad = ", ".join(f"{row[key]} {key}" for key in BAD if row[key]) or "nothing bad"
    return f"{row['target']:<15} {row['inputs']:>8,} inputs in {row['seconds']} s ({row['engine']}): {bad}"


def _write(path: Path, row: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(path.read_text()) if path.exists() else {}
    rows[row["target"]] = row
    path.write_text(json.dumps(rows, indent=1) + "\n")
