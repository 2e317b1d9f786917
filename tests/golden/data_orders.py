"""What of the data orders answers to the recorded index sequences, to the integer."""

from __future__ import annotations

from fullrank.images.data_order import DataOrder, OrderKind
from golden.case import Case, comparer
from golden.settings import Refused, Settings

KINDS: dict[str, OrderKind] = {"current": "single-pass", "accumulate": "cumulative", "last": "last-fraction"}
OPTIONS = {  # the format's names and ours; the rest has one name
    "rounds": "n_rounds",
    "repeat": "repeat_batch",
    "repeats": "repeat_batch",
    "steps": "steps_per_epoch",
}
OURS = {"epochs", "chunk_size", "batch_size", "n_rounds", "repeat_batch", "steps_per_epoch", "seed"}
SEED = 10  # the default of the reference, whose generators are of seed + epoch


def options(config: Settings, name: str) -> dict[str, int]:
    """Ours from a recorded configuration, all of whose entries have a counterpart."""
    given = {OPTIONS.get(key, key): config[key] for key in config if key != "strategy"}
    for key in given:
        if key not in OURS:
            raise Refused(f"settings.configs.{name}.{key}: nothing of ours takes it")
    return {key: value for key, value in given.items() if value is not None}


@comparer("10_data_order")
def index_sequences(case: Case) -> None:
    ordering = case.tensor("in.incremental_order").numpy()
    case.settings.expect("N", len(ordering))
    common = {"seed": case.settings.get("seed", SEED)}
    for name, config in case.settings["configs"].items():
        if config["strategy"] not in KINDS:
            raise Refused(
                f"settings.configs.{name}.strategy is {config['strategy']}, none of {', '.join(KINDS)}"
            )
        order = DataOrder(
            n=len(ordering),
            kind=KINDS[config["strategy"]],
            ordering=ordering,
            **common | options(config, name),
        )
        for epoch in range(order.epochs):
            case.check(f"out.{name}/epoch_{epoch}", order(epoch))
