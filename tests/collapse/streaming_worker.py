"""One process of `test_streaming`: every streaming metric on its part of the rows; prints the values as JSON.

Usage: streaming_worker.py RANK WORLD RENDEZVOUS-FILE
"""

import json
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from collapse.inputs import example, rows_of
from collapse.test_streaming import built
from fullrank.collapse.metrics import METRICS


def rows_gathered(rank: int, world: int) -> int:
    """Rows that all processes together have when a sample of 24 is made one."""
    metric = built(
        "uniformity", (rows := torch.randn(900, 4, generator=torch.Generator().manual_seed(1)),), capacity=24
    )
    metric.update(rows[rank::world])
    with metric.sync_context(should_unsync=False):
        return len(torch.as_tensor(metric.keys))


def main(rank: int, world: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    values: dict[str, float | None] = {"rows gathered": rows_gathered(rank, world)}
    for name, entry in METRICS.items():
        for case in ("split", "one-sided", "sampled"):
            inputs = example(entry, 60, 6, 0)
            metric = built(name, inputs, **({"capacity": 24} if case == "sampled" else {}))
            parts = inputs[: rows_of(entry)]
            if case != "one-sided":
                parts = tuple(part[rank::world] for part in parts)
            if case != "one-sided" or rank == 0:  # there the other process has seen nothing
                for chunk in zip(*(part.split(7) for part in parts), strict=True):
                    metric.update(*chunk)
            value = metric.compute()
            values[f"{name}, {case}"] = None if value is None else float(value)
    print(json.dumps(values))
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
