"""Writes `metrics.md` beside itself: the table of all collapse metrics, made from their definitions."""

from __future__ import annotations

from pathlib import Path

from fullrank.collapse.metrics import COLLAPSES, METRICS, NEEDS, Metric, class_name

HEAD = """# Collapse metrics

Made from the definitions (`fullrank.collapse.metrics`) by `docs/make_metrics_table.py`; do not edit.

`METRICS[name](...)` computes a value from what it needs, and `fullrank.collapse.streaming` has the
torchmetrics class of the name in the second line. A value that is not defined is None, never NaN. No metric
sees every collapse: read them as a panel, and beside the value of an isotropic cloud of the same n and d.

"""


def collapses() -> str:
    """What the letters mean."""
    lines = [f"- **{letter}** {words}" for letter, words in COLLAPSES.items()]
    return "The letters of *sees*:\n\n" + "\n".join(lines) + "\n\n"


def row(entry: Metric) -> str:
    """One line of a table."""
    low, high = ("-∞" if entry.low == "-inf" else entry.low, "∞" if entry.high == "inf" else entry.high)
    cells = (
        f"`{entry.name}`<br>`{class_name(entry.name)}`",
        entry.variant,
        f"{low} … {high}",
        entry.better,
        " ".join(entry.sees) or "none",
        entry.blind,
        entry.cost,
        ", ".join(sorted(entry.invariances)),
        entry.reference,
    )
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |\n"


def page() -> str:
    """The whole page."""
    titles = (
        "metric, class",
        "variant",
        "range",
        "better",
        "sees",
        "blind to",
        "cost",
        "unchanged by",
        "reference",
    )
    text = (
        HEAD + collapses() + "n rows, d their width, K clusters or codes, C classes, q views of an image.\n"
    )
    for source, words in NEEDS.items():
        text += f"\n## From {words}\n\n| {' | '.join(titles)} |\n|{'---|' * len(titles)}\n"
        text += "".join(row(entry) for entry in METRICS.values() if entry.needs == source)
    return text


if __name__ == "__main__":
    Path(__file__).with_name("metrics.md").write_text(page(), encoding="utf-8")
