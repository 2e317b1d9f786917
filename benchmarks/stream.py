"""Whether memory stays flat while images stream from tar shards.

    python benchmarks/stream.py [--images 2000000] [--shards 200] [--workers 2] [--window 10000]
        [--minutes 0] [--out DIR] [--json FILE]

Writes that many tiny images as tar shards (those that are there are kept), then reads an epoch of them
through the batches of a training run, and looks at the process and its workers every few seconds through
/proc (Linux): anonymous memory, where a page that n of them share counts as an nth for each, and open
files. Pages of files are left out: how many count depends on what else runs on the machine and maps the
same libraries. With --minutes it ends after so long, and the same command goes on from the step at which
it stopped: the order follows from seed and epoch. The JSON has every look, and the slope of memory after
the first tenth of each process, with and without the largest rise between two looks: the first full
collection of garbage in each worker writes to pages that it shared with its parent, once.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tarfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import machine

from fullrank.images.data_order import DataOrder
from fullrank.images.loader import Batches
from fullrank.images.opening import open_data

LOOK = 2.0  # seconds between two looks
SIDE = 8


def main() -> None:
    """Write shards, stream an epoch of them, and tell what memory did."""
    options = _options()
    out = Path(options.out)
    os.environ["FULLRANK_INDEX"] = str(out / "indexes")
    write_shards(out / "shards", options.images, options.shards)
    done = _read(out / "progress.json")
    started = time.process_time()
    data = open_data(f"shards:{out / 'shards'}", seed=0)
    opened = time.process_time() - started
    train, n = data.train, options.batch_size
    order = DataOrder(len(train), n, 1, window=options.window, groups=train.groups)
    loader = Batches(train, n, 0, workers=options.workers, order=order)
    looks, step, until = list(done.get("looks", [])), int(done.get("step", 0)), options.minutes * 60 or np.inf
    process, seen, begun, last = len({look["process"] for look in looks}), 0, time.monotonic(), 0.0
    batches = loader.epoch(0, step)
    for step, (_, images) in batches:
        assert isinstance(images, torch.Tensor)
        seen += len(images)
        now = time.monotonic()
        if now - last > LOOK:
            memory = [_memory(pid) for pid in _tree(os.getpid())]
            looks.append(
                {
                    "process": process,
                    "images": (step + 1) * n,
                    "mb": sum(memory),
                    "files": _files(os.getpid()),
                }
            )
            last = now
        if now - begun > until:
            break
    rate = seen / (time.monotonic() - begun)
    finished = step + 1 >= len(loader)
    (out / "progress.json").write_text(json.dumps({"step": step + 1, "looks": looks}))
    summary = {
        "date": date.today().isoformat(),
        "command": f"python benchmarks/stream.py --images {options.images} --shards {options.shards} "
        f"--workers {options.workers} --window {options.window}",
        "machine": machine(),
        "load": os.getloadavg()[0],
        "images_asked_for": options.images,
        "images_of_the_epoch": len(loader) * n,
        "images_streamed": (step + 1) * n,
        "finished": finished,
        "workers": options.workers,
        "processor_seconds_to_open": round(opened, 2),
        "images_per_second": round(rate, 1),
        **flatness(looks),
        "looks": looks,
    }
    if options.json:
        Path(options.json).write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps({key: value for key, value in summary.items() if key != "looks"}, indent=1))


def flatness(looks: list[dict[str, Any]]) -> dict[str, float]:
    """Memory after the first tenth of each process: least, most and slope.

    Example:
        >>> looks = [{"process": 0, "images": 1000 * k, "mb": 100.0 + (k == 0)} for k in range(20)]
        >>> flatness(looks)["mb_per_100000_images"]
        0.0
    """
    slopes, without, kept, weights = list[float](), list[float](), list[float](), list[int]()
    largest = 0.0
    for process in sorted({look["process"] for look in looks}):
        own = [look for look in looks if look["process"] == process]
        own = own[len(own) // 10 :]
        if len(own) < 3:
            continue
        images, memory = (np.array([look[key] for look in own], float) for key in ("images", "mb"))
        slopes.append(float(np.polyfit(images, memory, 1)[0]) * 100_000)
        rises = np.diff(memory)
        step = int(rises.argmax())
        smooth = memory - rises[step] * (np.arange(len(memory)) > step)
        without.append(float(np.polyfit(images, smooth, 1)[0]) * 100_000)
        largest = max(largest, float(rises[step]))
        kept += memory.tolist()
        weights.append(len(own))
    if not kept:
        return {}
    return {
        "mb_least": round(min(kept), 1),
        "mb_most": round(max(kept), 1),
        "mb_per_100000_images": round(float(np.average(slopes, weights=weights)), 3) + 0.0,
        "largest_rise_mb": round(largest, 1),
        "mb_per_100000_images_without_it": round(float(np.average(without, weights=weights)), 3) + 0.0,
    }


def write_shards(folder: Path, images: int, shards: int) -> None:
    """Write shards of tiny images that are not there yet; each appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard, numbers in enumerate(np.array_split(np.arange(images), shards)):
        path = folder / f"part-{shard:05}.tar"
        if path.exists():
            continue
        draft = path.with_suffix(".partial")
        with tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, content in _members(numbers):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
                tar.members.clear()  # type: ignore[attr-defined]
        draft.replace(path)


def _members(numbers: np.ndarray) -> Iterator[tuple[str, bytes]]:
    for number in numbers.tolist():
        colour = bytes((number % 256, number // 256 % 256, number // 65536))
        yield f"{number:08}.ppm", b"P6 %d %d 255\n" % (SIDE, SIDE) + colour * SIDE**2


def _memory(process: int) -> float:
    """Megabytes of a process's own; pages that n processes share count as an nth."""
    try:
        lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    except OSError:  # it has ended
        return 0.0
    return next((int(line.split()[1]) / 1000 for line in lines if line.startswith("Pss_Anon:")), 0.0)


def _tree(process: int) -> list[int]:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(each for child in children for each in _tree(int(child)))]


def _files(process: int) -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text())) if path.exists() else {}


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=2_000_000)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--window", type=int, default=10_000)
    parser.add_argument("--batch-size", type=int, default=250)
    parser.add_argument("--minutes", type=float, default=0.0)
    parser.add_argument("--out", default="runs/stream")
    parser.add_argument("--json", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
