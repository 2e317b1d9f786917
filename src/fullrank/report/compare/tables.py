"""The tables of a comparison, once for the terminal and the page: what it comes to, ranks, and training."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from fullrank.report.compare.arms import Arm, Comparison
from fullrank.report.compare.estimates import Estimate, as_number, as_percent
from fullrank.report.compare.subjects import FEATURES, TapSummary
from fullrank.report.style import Look, count, duration, look_of, number, percent

__all__ = ["Grid", "TableCell", "tables"]

NONE = "–"


@dataclass(frozen=True)
class TableCell:
    """One field of a table.

    Attributes:
        text: as it is shown.
        looks: verdicts, each with what is written behind it, such as "2 of 3"; shown in place of the text.
        numeric: set to the right.
    """

    text: str
    looks: Sequence[tuple[Look, str]] = ()
    numeric: bool = True


@dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
        title: its heading; empty for the first.
        columns: their headings; the first is the arm's.
        rows: the arm's place among the arms (None for a baseline), its name, and the other cells.
        note: how to read it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[tuple[int | None, str, Sequence[TableCell]]]
    note: str = ""
    numeric: Sequence[bool] = field(default_factory=tuple)


Column = tuple[str, Callable[[Arm], TableCell]]


def tables(comparison: Comparison) -> list[Grid]:
    """The tables that have something in them; columns without a single value are left out."""
    found = (_main(comparison), _probes(comparison), _ranks(comparison), _training(comparison))
    return [grid for grid in found if grid.rows and len(grid.columns) > 1]


def _main(comparison: Comparison) -> Grid:
    same = comparison.images is not None and comparison.images.bank is not None
    places = {arm.tap for arm in comparison.arms}
    columns: list[Column] = [
        ("Method", lambda arm: TableCell(arm.subjects[0].method, numeric=False)),
        ("Verdict", lambda arm: TableCell("", _verdicts(arm), numeric=False)),
        ("At", lambda arm: TableCell(arm.tap if len(places) > 1 else NONE, numeric=False)),
        ("Loss", lambda arm: _number(arm.value("loss"), 4)),
        ("Level", lambda arm: _number(arm.measure(arm.tap, "level"))),
        ("Rank / d", lambda arm: _rank(arm, arm.tap)),
    ]
    if same:
        columns.append(("k-NN, same images", lambda arm: _percent(arm.value("knn_same"))))
    else:
        columns.append(("k-NN top-1", lambda arm: _percent(arm.value("knn_logged"))))
        columns.append(("untrained", lambda arm: _percent(arm.value("knn_untrained"))))
    grid = _grid("", columns, comparison.arms)
    held = dict(comparison.baselines)
    if comparison.images is not None and comparison.images.raw is not None:
        held["raw pixels"] = comparison.images.raw
    place = next((i for i, name in enumerate(grid.columns) if name.startswith("k-NN")), None)
    if place is None:
        return grid
    empty = [TableCell(NONE, numeric=numeric) for numeric in grid.numeric[1:]]
    baselines = [
        (None, name, [*empty[: place - 1], TableCell(percent(value)), *empty[place:]])
        for name, value in held.items()
    ]
    return Grid(grid.title, grid.columns, [*grid.rows, *baselines], grid.note, grid.numeric)


def _probes(comparison: Comparison) -> Grid:
    """What `fullrank evaluate` left of the subjects."""

    def column(key: str, cell: Callable[[Estimate], TableCell]) -> Callable[[Arm], TableCell]:
        return lambda arm: cell(arm.value(key))

    columns = [
        ("Linear top-1", column("linear_top1", _percent)),
        ("top-5", column("linear_top5", _percent)),
        ("k-NN top-1", column("knn_top1", _percent)),
        ("Fine-tuned top-1", column("finetune_top1", _percent)),
        ("NMI", column("cluster_nmi", _number)),
        ("AMI", column("cluster_ami", _number)),
        ("ARI", column("cluster_ari", _number)),
        ("Accuracy", column("cluster_accuracy", _percent)),
        ("Purity", column("cluster_purity", _percent)),
    ]
    usual = ("linear", "knn", "finetune", "cluster")
    others = {
        name: said for s in comparison.subjects for name, said in s.evaluations.items() if name not in usual
    }
    for name, said in others.items():  # another protocol, or another tap
        result = "nmi" if "nmi" in said["results"] else "top1"
        columns.append((name, column(f"{name}_{result}", _number if result == "nmi" else _percent)))
    note = "As fullrank evaluate left them beside each run; NMI and what follows are of its clusters."
    return _grid("Probes", columns, comparison.arms, note)


def _ranks(comparison: Comparison) -> Grid:
    """One row for each embedding of each arm."""
    columns = (
        "Arm", "Embedding", "Verdict", "n / d", "Rank, centred", "Share", "RankMe, unit rows",
        "Level", "Alignment", "Uniformity",
    )  # fmt: skip
    rows = []
    for place, arm in enumerate(comparison.arms):
        for tap in arm.taps:
            n, d = arm.size(tap)
            constant = _constant(arm.summaries(tap))
            rank, rankme = (arm.measure(tap, name) for name in ("erank_centred", "rankme_unit"))
            null = arm.null(tap, "erank_centred")
            share = None if rank.mean is None or not null or constant else rank.mean / null
            cells = [
                TableCell(tap, numeric=False),
                TableCell("", _counted([summary.kind for summary in arm.summaries(tap)]), numeric=False),
                TableCell(f"{count(n)} / {count(d)}"),
                TableCell("noise") if constant else _of(rank, null),
                TableCell(NONE if share is None else f"{share:.0%}".replace("%", " %")),
                _of(rankme, arm.null(tap, "rankme_unit")),
                *(_number(arm.measure(tap, name)) for name in ("level", "alignment", "uniformity")),
            ]
            rows.append((place, arm.name, cells))
    note = (
        "Behind each rank stands what isotropic Gaussian rows of the same n and d read, the most that n rows "
        "can show; share: the centred rank as a share of that."
    )
    if any(FEATURES in arm.taps for arm in comparison.arms):
        note += " Features are what an encoder puts out, the backbone of a run."
    return _without_empty(Grid("Ranks of every embedding", columns, rows, note))


def _training(comparison: Comparison) -> Grid:
    columns: list[Column] = [
        ("Seeds", lambda arm: TableCell(_seeds(arm))),
        ("Epochs", lambda arm: _whole(arm.value("epochs"))),
        ("k-NN when untrained", lambda arm: _percent(arm.value("knn_untrained"))),
        ("k-NN in training", lambda arm: _percent(arm.value("knn_logged"))),
        ("Linear in training", lambda arm: _percent(arm.value("linear_online"))),
        ("Images a second", lambda arm: _number(arm.value("images_per_second"))),
        ("Time", lambda arm: TableCell(duration(arm.value("seconds").mean))),
        ("Watching", lambda arm: TableCell(percent(arm.value("share_watching").mean))),
    ]
    note = (
        "Accuracies in training are of each run's own choice of images. Times are means over seeds; watching "
        "is its share of the time."
    )
    return _grid("Training", columns, comparison.arms, note, only_runs=True)


def _grid(
    title: str, columns: Sequence[Column], arms: Sequence[Arm], note: str = "", only_runs: bool = False
) -> Grid:
    rows = [
        (place, arm.name, [cell(arm) for _, cell in columns])
        for place, arm in enumerate(arms)
        if arm.runs or not only_runs
    ]
    return _without_empty(Grid(title, ["Arm", *(name for name, _ in columns)], rows, note))


def _without_empty(grid: Grid) -> Grid:
    """The table without columns that hold no value for anybody."""
    kept = [
        place
        for place in range(len(grid.columns) - 1)
        if any(cells[place].looks or cells[place].text not in (NONE, "") for _, _, cells in grid.rows)
    ]
    rows = [(arm, name, [cells[place] for place in kept]) for arm, name, cells in grid.rows]
    numeric = [False, *(grid.rows[0][2][place].numeric for place in kept)] if grid.rows else []
    return Grid(grid.title, [grid.columns[0], *(grid.columns[p + 1] for p in kept)], rows, grid.note, numeric)


def _verdicts(arm: Arm) -> list[tuple[Look, str]]:
    return _counted([s.judged.kind if s.judged else "not decidable" for s in arm.subjects])


def _counted(kinds: Sequence[str]) -> list[tuple[Look, str]]:
    """Each verdict with how many of how many got it; nothing to count for a single one."""
    listed = sorted(dict.fromkeys(kinds), key=lambda kind: -kinds.count(kind))
    return [
        (look_of(kind), f"{kinds.count(kind)} of {len(kinds)}" if len(kinds) > 1 else "") for kind in listed
    ]


def _constant(summaries: Sequence[TapSummary]) -> bool:
    return bool(summaries) and all(summary.kind == "complete" for summary in summaries)


def _rank(arm: Arm, tap: str) -> TableCell:
    if _constant(arm.summaries(tap)):
        return TableCell("noise")
    rank, d = arm.measure(tap, "erank_centred"), arm.size(tap)[1]
    return TableCell(NONE) if rank.mean is None else TableCell(f"{as_number(rank)} / {count(d)}")


def _of(rank: Estimate, null: float | None) -> TableCell:
    text = as_number(rank)
    return TableCell(text if rank.mean is None or null is None else f"{text} of {number(null)}")


def _seeds(arm: Arm) -> str:
    seeds = [subject.seed for subject in arm.subjects]
    return ", ".join(NONE if seed is None else str(seed) for seed in seeds)


def _number(found: Estimate, digits: int = 3) -> TableCell:
    return TableCell(as_number(found, digits))


def _percent(found: Estimate) -> TableCell:
    return TableCell(as_percent(found))


def _whole(found: Estimate) -> TableCell:
    return TableCell(", ".join(dict.fromkeys(count(value) for value in found.values)) or NONE)
