"""The memory that is estimated before a run is the memory that it takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

RUN = """
import json, os, resource, sys
from pathlib import Path
from fullrank.training import fitting
from fullrank.training.run import train
from fullrank.training.planning import plan_run

fitting._is_small = lambda *_: False
plain = fitting.estimate_footprint

def estimate(*args):
    resident = os.sysconf("SC_PAGE_SIZE") * int(Path("/proc/self/statm").read_text().split()[1])
    found = plain(*args)
    print("estimate", resident + found.total)
    return found

fitting.estimate_footprint = estimate
plan = plan_run(sys.argv[1], json.loads(sys.argv[2]))
train(plan.config, Path(sys.argv[3]), data=plan.data, named=plan.named)
print("peak", 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "backbone", "size", "batch"),
    [
        ("simsiam", "resnet18", 64, 64),
        ("byol", "vit_tiny_patch16_224", 96, 64),
        ("vicreg", "resnet8-w32", 64, 64),
    ],
)
def test_the_estimate_is_within_a_quarter_of_the_peak(
    tmp_path: Path, method: str, backbone: str, size: int, batch: int
) -> None:
    asked = {"data": "shapes", "limit": 2 * batch, "epochs": 1, "batch_size": batch, "image_size": size}
    quick = {"backbone": backbone, "watch_images": 64, "knn_every": 0, "probe": "off", "channels_last": "no"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, method, json.dumps(asked | quick), str(tmp_path / "run")],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    estimate, peak = (int(re.findall(rf"{word} (\d+)", done.stdout)[-1]) for word in ("estimate", "peak"))
    assert 0.75 < estimate / peak < 1.25
