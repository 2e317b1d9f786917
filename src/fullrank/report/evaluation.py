"""Evaluations on the terminal: one result as a small table, or one row an epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fullrank.collapse.verdict import as_verdict
from fullrank.figures.style import GREY, count, number, percent, style_of
from fullrank.report.accuracies import with_interval
from fullrank.report.tables import plain_table
from fullrank.report.verdicts import in_short

if TYPE_CHECKING:
    from fullrank.evaluation.result import EvaluationResult
    from fullrank.evaluation.table import EncoderRow

TITLES = {"linear": "Linear probe", "knn": "k-NN", "cluster": "Clusters", "finetune": "Fine-tuning"}
SHARES = ("top1", "top5", "best_top1", "train_top1", "held_out_top1", "as_in_training", "accuracy", "purity")
WORDS = {
    "top1": "top-1", "top5": "top-5", "best_top1": "best top-1", "best_epoch": "in epoch", "c": "C",
    "train_top1": "top-1 on training rows", "held_out_top1": "top-1 on the rows it was chosen on",
    "as_in_training": "top-1 by the vote of training and compare (k = 20, T = 0.07)",
    "nmi": "NMI", "ami": "AMI", "ari": "ARI", "at_edge": "C is at the edge",
    "accuracy": "accuracy (clusters matched to classes)", "purity": "purity (each cluster its majority)",
}  # fmt: skip
HIDDEN = ("table", "top1_interval", "tried", "curve", "by_share", "at_edge", "vote")


def _state(result: EvaluationResult) -> str:
    """What is said before the name of a network that has taken no step."""
    from fullrank.encoders.runs import begins_loaded

    if not result.untrained:
        return ""
    return "as loaded, " if begins_loaded(result.subject) else "untrained "


def result_table(result: EvaluationResult) -> RenderableType:
    """One evaluation: heading, numbers, and a row for each share of labels.

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
        f"  {_state(result)}{result.subject}, {result.tap} ({count(result.d)} wide), "
        f"{result.protocol}\n",
        (f"{count(result.n_train)} training and {count(result.n_test)} test rows of {result.data}, "
         f"{result.classes} classes, {result.seconds:.1f} s", GREY),
    )  # fmt: skip
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), pad_edge=False)
    for key, value in result.results.items():
        certain = key == "top5" and result.classes <= 5  # among five guesses every class is
        if key not in HIDDEN and value is not None and not certain:
            shown = with_interval(value, result.n_test) if key == "top1" else _shown(key, value)
            table.add_row(Text(WORDS.get(key, key.replace("_", " ")), GREY), shown)
    by_share = result.results.get("by_share")
    return Group(head, table, *([_shares(by_share)] if by_share is not None else []))


def epochs_table(rows: Sequence[EncoderRow]) -> RenderableType:
    """One line an encoder: what the run logged, and what each probe found."""
    heads = ("Epoch", "Loss", "Level", "Rank", "AUC", "Linear", "k-NN", "NMI", "ARI", "Verdict")
    table = plain_table(heads, left=("Verdict",))
    for row in rows:
        flat = row.as_dict()
        said = {**flat, "kind": flat.get("verdict")}
        style = style_of(str(flat["verdict"])) if flat.get("verdict") else None
        cluster = flat.get("cluster", {})
        table.add_row(
            "–" if row.epoch is None else str(row.epoch),
            number(flat.get("loss"), 4),
            *(number(flat.get(name)) for name in ("level", "rank", "auc")),
            *(percent(flat.get(name, {}).get("top1")) for name in ("linear", "knn")),
            *(number(cluster.get(name)) for name in ("nmi", "ari")),
            Text(f"{style.glyph} {in_short(as_verdict(said))}", style.colour) if style else "–",
        )
    return table


def _shares(by_share: dict[str, Any]) -> Table:
    table = plain_table(("Labels", "Images", "Top-1", "Top-5", "Best top-1"))
    for share, found in by_share.items():
        accuracies = [percent(found[key]) for key in ("top1", "top5", "best_top1")]
        table.add_row(percent(float(share)), count(found["images"]), *accuracies)
    return table


def _shown(key: str, value: Any) -> str:
    if key in SHARES:
        return percent(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return number(value) if isinstance(value, float) else str(value)
