"""Evaluations on the terminal: one result as a small table, or one row an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fullrank.report.style import GREY, count, look_of, number, percent

if TYPE_CHECKING:
    from fullrank.evaluation.result import EvaluationResult
    from fullrank.evaluation.table import EncoderRow

__all__ = ["epochs_table", "result_table"]

TITLES = {"linear": "Linear probe", "knn": "k-NN", "cluster": "Clusters", "finetune": "Fine-tuning"}
SHARES = ("top1", "top5", "best_top1", "train_top1", "held_out_top1", "accuracy", "purity")
WORDS = {
    "top1": "top-1", "top5": "top-5", "best_top1": "best top-1", "best_epoch": "in epoch", "c": "C",
    "train_top1": "top-1 on training rows", "held_out_top1": "top-1 on the rows it was chosen on",
    "nmi": "NMI", "ami": "AMI", "ari": "ARI", "at_edge": "C is at the edge",
    "accuracy": "accuracy (clusters matched to classes)", "purity": "purity (each cluster its majority)",
}  # fmt: skip
HIDDEN = ("table", "tried", "curve", "by_share", "at_edge", "vote")


def result_table(result: EvaluationResult) -> RenderableType:
    """One evaluation: a heading, its numbers, and a row for each share of labels.

    Example:
        >>> from fullrank.evaluation.result import EvaluationResult
        >>> from rich.console import Console
        >>> names = ("knn", "runs/a", "features", "shapes", "vote")
        >>> result = EvaluationResult(*names, {"top1": 0.5}, {}, 9, 4, 2, 8, 0.1)
        >>> Console(width=60).print(result_table(result))  # doctest: +ELLIPSIS
        k-NN  runs/a, features (8 wide)...
    """
    head = Text.assemble(
        (TITLES[result.probe], "bold"),
        f"  {result.subject}, {result.tap} ({count(result.d)} wide), {result.protocol}\n",
        (f"{count(result.n_train)} training and {count(result.n_test)} test rows of {result.data}, "
         f"{result.classes} classes, {result.seconds:.1f} s", GREY),
    )  # fmt: skip
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for key, value in result.results.items():
        if key not in HIDDEN and value is not None:
            table.add_row(Text(_words(key), GREY), _shown(key, value))
    parts: list[RenderableType] = [head, table]
    if "by_share" in result.results:
        parts.append(_shares(result.results["by_share"]))
    return Group(*parts)


def epochs_table(rows: Sequence[EncoderRow]) -> RenderableType:
    """One line an encoder: the run's log and the result of each probe."""
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=GREY, pad_edge=False)
    for name in ("Epoch", "Loss", "Level", "Rank", "AUC", "Linear", "k-NN", "NMI", "ARI", "Verdict"):
        table.add_column(name, justify="left" if name == "Verdict" else "right", no_wrap=True)
    for row in rows:
        flat = row.as_dict()
        kind = flat.get("verdict")
        look = look_of(str(kind)) if kind else None
        cluster = flat.get("cluster", {})
        table.add_row(
            "–" if row.epoch is None else str(row.epoch),
            number(flat.get("loss"), 4),
            number(flat.get("level")),
            number(flat.get("rank")),
            number(flat.get("auc")),
            percent(flat.get("linear", {}).get("top1")),
            percent(flat.get("knn", {}).get("top1")),
            number(cluster.get("nmi")),
            number(cluster.get("ari")),
            Text(f"{look.glyph} {kind}", look.colour) if look else "–",
        )
    return table


def _shares(by_share: dict[str, Any]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style=GREY, pad_edge=False)
    for name in ("Labels", "Images", "Top-1", "Top-5", "Best top-1"):
        table.add_column(name, justify="right")
    for share, found in by_share.items():
        accuracies = [percent(found[key]) for key in ("top1", "top5", "best_top1")]
        table.add_row(percent(float(share)), count(found["images"]), *accuracies)
    return table


def _words(key: str) -> str:
    return WORDS.get(key, key.replace("_", " "))


def _shown(key: str, value: Any) -> str:
    if key in SHARES:
        return percent(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)
