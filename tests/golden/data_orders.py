"""What of the data orders answers to the recorded index sequences, to the integer."""

from __future__ import annotations

import numpy as np

from fullrank.images.data_order import DataOrder, OrderKind
from golden.harness import Case, comparer

OURS: dict[str, OrderKind] = {"current": "single-pass", "accumulate": "cumulative", "last": "last-fraction"}
SEED = 10  # the default of the reference, whose generators are of seed + epoch


@comparer("10_data_order")
def index_sequences(case: Case) -> None:
    ordering = case.arrays["in.incremental_order"]
    for name, config in case.settings["configs"].items():
        order = DataOrder(
            n=case.settings["N"],
            batch_size=config["batch_size"],
            epochs=config["epochs"],
            kind=OURS[config["strategy"]],
            chunk_size=config["chunk_size"],
            seed=SEED,
            ordering=ordering,
        )
        for epoch in range(config["epochs"]):
            case.check(f"out.{name}/epoch_{epoch}", order(epoch))
            assert np.array_equal(order(epoch), order(epoch))
