"""A rank that streams an epoch: python stream_worker.py ADDRESS RANK WORLD WORKERS BATCH WINDOW START OUT."""

from __future__ import annotations

import sys
from pathlib import Path

from fullrank.images.data_order import DataOrder
from fullrank.images.loader import Batches
from fullrank.images.opening import open_data
from images.shard_writer import numbers_of


def main() -> None:
    address, out = sys.argv[1], Path(sys.argv[8])
    rank, world, workers, batch, window, start = map(int, sys.argv[2:8])
    train = open_data(address).train
    order = DataOrder(len(train), batch, 1, window=window, groups=train.groups)
    loader = Batches(train, batch, 0, rank, world, workers, order=order)
    with out.open("a") as file:
        for step, (_, images) in loader.epoch(3, start):
            assert not isinstance(images, list)
            file.write(f"{step} {' '.join(map(str, numbers_of(images)))}\n")
            file.flush()


if __name__ == "__main__":
    main()
