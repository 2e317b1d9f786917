"""Two processes on this machine with as many images each as one has: `fullrank train` beside lightly.

Weak-scaling efficiency is the time of a step in one process over that in two, one thread each. SimSiam with
a ResNet-18 in bf16 on images of 32 pixels, without synchronised BatchNorm, which PyTorch has not on a CPU.
Ours is the loop of `fullrank train` under DDP; lightly has its transform, heads and loss in a
LightningModule as in its own example, under Lightning's DDP. Each figure is of fresh processes that
torchrun starts, all in turns. On two cores that also share memory and caches the most that can be had is
below 1, for both.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import Row, in_turns

WAYS = ("ours", "lightly")
PROCESSES = (1, 2)
WORKER = Path(__file__).with_name("weak_scaling_step.py")


def seconds(way: str, processes: int) -> float:
    """Seconds of a step of so many processes, by the first of them.

    Raises:
        SystemExit: they failed; with what they said.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "seconds.json"
        words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
        words += [str(processes), str(WORKER), way, str(out)]
        done = subprocess.run(
            words, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True
        )
        if done.returncode or not out.exists():
            raise SystemExit(f"{done.stdout}{done.stderr}\n{way} in {processes} processes failed, see above")
        return float(json.loads(out.read_text()))


def rows(repeats: int) -> list[Row]:
    """Efficiency of both, and ours over theirs, by turns."""
    ways = {f"{way} {n}": (lambda way=way, n=n: seconds(way, n)) for way in WAYS for n in PROCESSES}
    _, found = in_turns(repeats, ways)
    efficiency = {
        way: [one / two for one, two in zip(found[f"{way} 1"], found[f"{way} 2"], strict=True)]
        for way in WAYS
    }
    what = "weak scaling, resnet18, 2 processes"
    median = {way: sorted(values)[len(values) // 2] for way, values in efficiency.items()}
    over = tuple(own / other for own, other in zip(efficiency["ours"], efficiency["lightly"], strict=True))
    return [
        Row(what, "one process", tuple(efficiency["ours"]), note="seconds of a step, one over two"),
        Row(what, "lightly, Lightning DDP", over, 1.0, ours=median["ours"], theirs=median["lightly"],
            measure="of one"),
    ]  # fmt: skip
