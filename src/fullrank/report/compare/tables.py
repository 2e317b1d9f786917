"""Tables of a comparison: verdicts, probes, ranks, and training."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from fullrank.encoders.hooks import FEATURES
from fullrank.figures.style import VerdictStyle, count, duration, number, percent, style_of
from fullrank.report.compare.arms import Arm, Comparison
from fullrank.report.compare.estimates import Estimate, as_number, as_percent
from fullrank.report.verdicts import NEAR_BORDER, probable

NONE = "–"


@dataclass(frozen=True)
class TableCell:
    """One field of a table.

    Attributes:
        text: as it is shown.
        styles: of verdicts, each with what stands behind it, such as "2 of 3"; shown in place of text.
        numeric: set to the right.
    """

    text: str
    styles: Sequence[tuple[VerdictStyle, str]] = ()
    numeric: bool = True


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: empty for the first.
        columns: their headings; the first is the arm's.
        rows: the arm's place among the arms (None for a baseline), its name, and the other cells.
        note: how to read it.
        numeric: which columns are set to the right.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[int | None, str, Sequence[TableCell]]]
    note: str = ""
    numeric: Sequence[bool] = ()


Column = tuple[str, Callable[[Arm, str], TableCell]]
"""A heading, and the cell of an arm at one of its taps."""


def tables(comparison: Comparison) -> list[Grid]:
    """Tables with something in them; columns without a value are left out."""
    found = (_main(comparison), _probes(comparison), _ranks(comparison.arms), _training(comparison.arms))
    return [grid for grid in found if grid.rows and len(grid.columns) > 1]


def _value(heading: str, name: str, show: Callable[[Estimate], str] = as_number) -> Column:
    return heading, lambda arm, _: TableCell(show(arm.value(name)))


def _measure(heading: str, name: str) -> Column:
    return heading, lambda arm, tap: TableCell(as_number(arm.measure(tap, name)))


def _words(heading: str, text: Callable[[Arm, str], str]) -> Column:
    return heading, lambda arm, tap: TableCell(text(arm, tap), numeric=False)


def _verdicts(kinds: Callable[[Arm, str], Sequence[str]]) -> Column:
    """A column of verdicts, each with how many of how many got it."""

    def cell(arm: Arm, tap: str) -> TableCell:
        listed = kinds(arm, tap)
        of = f" of {len(listed)}" * (len(listed) > 1)
        kept = sorted(dict.fromkeys(listed), key=lambda kind: -listed.count(kind))
        styles = [(style_of(kind), f"{listed.count(kind)}{of}" if of else "") for kind in kept]
        return TableCell("", styles, numeric=False)

    return "Verdict", cell


def _probability(arm: Arm, tap: str) -> TableCell:
    """Mean probability of a collapse, and whether any subject is near the border."""
    mean = arm.probability(tap).mean
    near = any(summary.verdict.near_border for summary in arm.summaries(tap))
    shown = NONE if mean is None else probable(mean)
    return TableCell(f"{shown}, {NEAR_BORDER}" if near else shown)


_JUDGED: tuple[Column, ...] = (
    ("Collapse probable", _probability),
    _words("Blemishes", lambda arm, tap: ", ".join(arm.blemishes(tap)) or NONE),
)


def _main(comparison: Comparison) -> Grid:
    images, several = comparison.images, len({arm.tap for arm in comparison.arms}) > 1
    columns: list[Column] = [
        _words("Method", lambda arm, _: arm.subjects[0].method),
        _verdicts(lambda arm, _: list(arm.kinds.elements())),
        *_JUDGED,
        _words("At", lambda _, tap: tap if several else NONE),
        _value("Loss", "loss", partial(as_number, digits=4)),
        _measure("Level", "level"),
        ("Rank / d", _rank),
    ]
    if images is not None and images.bank is not None:
        columns.append(_value("k-NN, same images", "knn_same", as_percent))
    else:
        columns.append(_value("k-NN top-1", "knn_logged", as_percent))
        columns.append(_value("untrained", "knn_untrained", as_percent))
    grid = _grid("", columns, [(arm, [arm.tap]) for arm in comparison.arms])
    held = dict(comparison.baselines)
    if images is not None and images.raw is not None:
        held["raw pixels"] = images.raw
    place = next((i for i, name in enumerate(grid.columns) if name.startswith("k-NN")), None)
    if place is None:
        return grid
    empty = [TableCell(NONE, numeric=numeric) for numeric in grid.numeric[1:]]
    shown = {name: TableCell(percent(value)) for name, value in held.items()}
    baselines = [(None, name, [*empty[: place - 1], cell, *empty[place:]]) for name, cell in shown.items()]
    return replace(grid, rows=[*grid.rows, *baselines])


def _probes(comparison: Comparison) -> Grid:
    """Results that `fullrank evaluate` left of the subjects."""
    columns = [
        _value("Linear top-1", "linear_top1", as_percent),
        _value("top-5", "linear_top5", as_percent),
        _value("k-NN top-1", "knn_top1", as_percent),
        _value("Fine-tuned top-1", "finetune_top1", as_percent),
        _value("NMI", "cluster_nmi"),
        _value("AMI", "cluster_ami"),
        _value("ARI", "cluster_ari"),
        _value("Accuracy", "cluster_accuracy", as_percent),
        _value("Purity", "cluster_purity", as_percent),
    ]
    evaluations = {name: found for s in comparison.subjects for name, found in s.evaluations.items()}
    for name, found in evaluations.items():
        if name not in ("linear", "knn", "finetune", "cluster"):  # another protocol, or another tap
            what = ("nmi", as_number) if "nmi" in found["results"] else ("top1", as_percent)
            columns.append(_value(name, f"{name}_{what[0]}", what[1]))
    note = "As fullrank evaluate left them beside each run; NMI and what follows are of its clusters."
    return _grid("Probes", columns, [(arm, [arm.tap]) for arm in comparison.arms], note)


def _ranks(arms: Sequence[Arm]) -> Grid:
    """One row for each embedding of each arm."""
    columns: list[Column] = [
        _words("Embedding", lambda _, tap: tap),
        _verdicts(lambda arm, tap: [summary.kind for summary in arm.summaries(tap)]),
        *_JUDGED,
        ("n / d", lambda arm, tap: TableCell(" / ".join(map(count, arm.size(tap))))),
        ("Rank, centred", lambda arm, tap: _of_isotropic(arm, tap, "erank_centred", arm.constant(tap))),
        ("Share", _share),
        ("RankMe, unit rows", lambda arm, tap: _of_isotropic(arm, tap, "rankme_unit")),
        _measure("Level", "level"),
        _measure("Alignment", "alignment"),
        _measure("Uniformity", "uniformity"),
    ]
    note = (
        "Behind each rank stands what isotropic Gaussian rows of the same n and d read, the most that n rows "
        "can show; behind the centred one of as many directions as narrow layers and constant columns leave. "
        "Share: the centred rank as a share of that."
    )
    if any(FEATURES in arm.taps for arm in arms):
        note += " Features are what an encoder puts out, the backbone of a run."
    return _grid("Ranks of every embedding", columns, [(arm, arm.taps) for arm in arms], note)


def _training(arms: Sequence[Arm]) -> Grid:
    columns: list[Column] = [
        ("Seed", lambda arm, _: TableCell(_seeds(arm))),
        ("Epochs", lambda arm, _: _whole(arm.value("epochs"))),
        _value("k-NN when untrained", "knn_untrained", as_percent),
        _value("k-NN in training", "knn_logged", as_percent),
        _value("Linear in training", "linear_online", as_percent),
        _value("Images a second", "images_per_second"),
        _value("Time", "seconds", lambda found: duration(found.mean)),
        _value("Watching", "share_watching", lambda found: percent(found.mean)),
    ]
    note = (
        "Accuracies in training are of each run's own choice of images. Times are means over seeds; watching "
        "is its share of the time."
    )
    return _grid("Training", columns, [(arm, [arm.tap] if arm.runs else []) for arm in arms], note)


def _grid(
    title: str, columns: Sequence[Column], arms: Iterable[tuple[Arm, Sequence[str]]], note: str = ""
) -> Grid:
    """Table of some taps of every arm, without empty columns."""
    rows = [
        (place, arm.name, [cell(arm, tap) for _, cell in columns])
        for place, (arm, taps) in enumerate(arms)
        for tap in taps
    ]
    kept = [
        place
        for place in range(len(columns))
        if any(cells[place].styles or cells[place].text not in (NONE, "") for _, _, cells in rows)
    ]
    numeric = [False, *(rows[0][2][place].numeric for place in kept)] if rows else []
    filled = [(arm, name, [cells[place] for place in kept]) for arm, name, cells in rows]
    return Grid(title, ["Arm", *(columns[place][0] for place in kept)], filled, note, numeric)


def _rank(arm: Arm, tap: str) -> TableCell:
    rank = arm.measure(tap, "erank_centred")
    shown = NONE if rank.mean is None else f"{as_number(rank)} / {count(arm.possible(tap))}"
    return TableCell("noise" if arm.constant(tap) else shown)


def _share(arm: Arm, tap: str) -> TableCell:
    rank, null = arm.measure(tap, "erank_centred").mean, arm.null(tap, "erank_centred")
    known = rank is not None and null and not arm.constant(tap)
    return TableCell(f"{100 * rank / null:.0f} %" if known and rank is not None and null else NONE)


def _of_isotropic(arm: Arm, tap: str, name: str, constant: bool = False) -> TableCell:
    rank, null = arm.measure(tap, name), arm.null(tap, name)
    of = "" if rank.mean is None or null is None else f" of {number(null)}"
    return TableCell("noise" if constant else as_number(rank) + of)


def _seeds(arm: Arm) -> str:
    return ", ".join(NONE if subject.seed is None else str(subject.seed) for subject in arm.subjects)


def _whole(found: Estimate) -> TableCell:
    return TableCell(", ".join(dict.fromkeys(count(value) for value in found.values)) or NONE)
