"""Commands that train a recipe: on one machine, on four, and by SLURM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

GPUS, NODES = 8, 4
LEAST_ROWS = 32  # images of a GPU below which more GPUs only add communication
ON_CLUSTERS = ("imagenet", "imagenet100")
"""Data whose recipes take days on one GPU."""


def recipe_commands(name: str, settings: Mapping[str, Any]) -> dict[str, str]:
    """Commands by where they run.

    GPUs are at most 8 a node, and so few that each has 32 images of a step or more. The batch is that of all
    of them together, and BatchNorm's statistics too, so that every command trains the same.

    Example:
        >>> for where, command in recipe_commands("imagenet/simsiam-256", {"batch_size": 256}).items():
        ...     print(where, command, sep=": ")  # doctest: +ELLIPSIS
        one node: torchrun --nproc-per-node 8 -m fullrank train imagenet/simsiam-256 ...
        four nodes: torchrun --nnodes 4 --nproc-per-node 2 --rdzv-backend c10d ...
        SLURM: fullrank train imagenet/simsiam-256 --out runs/simsiam-256 --slurm-nodes 4 ...
    """
    if name.split("/")[0] not in ON_CLUSTERS:
        return {"one machine": f"fullrank train {name}"}
    batch = int(settings["batch_size"])
    one, four = (max(1, min(GPUS, batch // (nodes * LEAST_ROWS))) for nodes in (1, NODES))
    run = name.split("/")[1]
    train = f"train {name} --out runs/{run} --resume auto"
    meeting = f"--rdzv-backend c10d --rdzv-endpoint HOST:29500 --rdzv-id {run}"
    slurm = (
        f"--slurm-nodes {NODES} --slurm-gpus-per-node {four} --slurm-cpus-per-task 12 --slurm-time 24:00:00"
    )
    return {
        "one node": f"torchrun --nproc-per-node {one} -m fullrank {train}",
        "four nodes": f"torchrun --nnodes {NODES} --nproc-per-node {four} {meeting} -m fullrank {train}",
        "SLURM": f"fullrank train {name} --out runs/{run} {slurm}",
    }
