"""One process of `test_on_nan`'s run on two: only one of them has the image with a NaN.

Usage: torchrun nan_worker.py POLICY RUN-DIRECTORY
"""

import sys
from pathlib import Path

import torch

from fullrank.errors import NotFiniteError
from fullrank.training.run import train
from training.not_finite import NAN, config, noise


def main(policy: str, out: str) -> None:
    """Train, and write what this process says of it beside the run."""
    torch.set_num_threads(1)
    said = "finished"
    try:
        train(config(on_nan=policy, devices=2, watch_every=2), Path(out), data=noise(NAN))
    except NotFiniteError as error:
        said = str(error)
    rank = torch.distributed.get_rank()
    Path(f"{out}.{rank}.txt").write_text(said)


if __name__ == "__main__":
    main(*sys.argv[1:])
