"""The page of an adaptation: its sentence with the evidence, and the way there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from fullrank.adaptation.decision import Finding
from fullrank.adaptation.result import PAGE, Adaptation, is_adaptation, read_result
from fullrank.adaptation.sentence import NAMES
from fullrank.figures import Lines, Series, curve
from fullrank.figures.style import BLUE, GREEN, GREY, ORANGE, PURPLE, count, duration, number, percent
from fullrank.report.evidence import Tile
from fullrank.report.render import Section, pairs, render, section, write
from fullrank.report.run.page import write_page as write_run_page
from fullrank.training.record_files import read_records
from fullrank.training.records import AdaptationRecord


class Row(NamedTuple):
    """A finding as a row of the table: words and numbers as they are shown."""

    name: str
    before: str
    after: str
    interval: str
    border: str
    side: str
    glyph: str
    colour: str
    says: str


def write_pages(run_dir: Path, on_note: Callable[[str], None] | None = None) -> list[Path]:
    """Write the page of a run, and of an adaptation that has ended its own.

    Raises:
        UsageError: it is no run directory.
        DataError: the result is damaged.
    """
    pages = [write_run_page(run_dir, on_note)]
    result = read_result(run_dir) if is_adaptation(run_dir) else None
    return pages if result is None else [*pages, write_adaptation_page(result)]


def write_adaptation_page(result: Adaptation) -> Path:
    """Write `adaptation.html` into the run directory of an adaptation."""
    records = read_records(result.path / "metrics.jsonl").records
    history = [record for record in records if isinstance(record, AdaptationRecord)]
    name = Path(result.settings.model).name
    text = render(
        "adaptation.html.j2",
        title=f"{name} {'adapted to' if result.adapted else 'on'} {result.data}",
        state=_state(result),
        kind="Adapted" if result.adapted else "Do not adapt",
        glyph="●" if result.adapted else "○",
        colour=GREEN if result.adapted else ORANGE,
        why=result.sentence.partition(": ")[2],
        rows=[_row(finding) for finding in result.findings],
        tiles=_tiles(result),
        sections=_sections(history, result),
        untested=result.untested,
        settings=pairs(vars(result.settings) | {f"images.{k}": v for k, v in result.images.items()}),
    )
    return write(result.path / PAGE, text)


def _state(result: Adaptation) -> str:
    which = (
        f"the encoder after epoch {result.epoch}" if result.adapted else "the encoder that it started from"
    )
    took = duration(result.seconds).replace(" ", "\u00a0")
    return f"encoder.safetensors is {which}. Training ended because {result.why_stopped}; it took {took}."


def _row(finding: Finding) -> Row:
    side, glyph, colour = {
        True: ("for", "●", GREEN),
        False: ("against", "▼", ORANGE),
        None: ("not decisive", "○", GREY),
    }[finding.passed]
    shown = number if finding.name in ("similarity", "collapse") else percent
    interval = "–" if finding.low is None else f"{percent(finding.low)} to {percent(finding.high)}"
    least = "not below" if finding.name == "knn" else "above"
    border = "–" if finding.border is None else f"{least} {percent(finding.border)}"
    return Row(
        NAMES[finding.name][0].upper() + NAMES[finding.name][1:], shown(finding.before), shown(finding.after),
        interval, border, side, glyph, colour, finding.says,
    )  # fmt: skip


def _tiles(result: Adaptation) -> list[Tile]:
    gain, kept, knn = (result.finding(name) for name in ("gain", "kept", "knn"))
    tiles = []
    if gain is not None:
        tiles.append(Tile("Views agree", f"{percent(gain.before)} → {percent(gain.after)}", "of neighbours"))
    if kept is not None:
        tiles.append(Tile("Old neighbours kept", percent(kept.after), f"at least {percent(kept.border)}"))
    if knn is not None:
        tiles.append(
            Tile("k-NN top-1", f"{percent(knn.before)} → {percent(knn.after)}", f"{count(knn.images)} images")
        )
    judged = result.images.get("judge", 0)
    return [
        *tiles,
        Tile("Best checkpoint", f"epoch {result.best_epoch}", "0 is the start"),
        Tile("Images", count(result.images.get("train")), f"to train on; {count(judged)} to judge by"),
    ]


def _sections(history: Sequence[AdaptationRecord], result: Adaptation) -> list[Section]:
    marks = {"best": float(result.best_epoch)} if result.best_epoch else {}

    def values(name: str) -> Iterator[tuple[float, float | None]]:
        yield from ((float(record.epoch), record.values.get(name)) for record in history)

    def line(name: str, label: str, colour: str) -> Series:
        x, y = zip(*values(name), strict=True) if history else ((), ())
        return curve(label, x, y, colour)

    gain = Lines(
        "Gain", "Neighbours of an image that two views of it share, beyond chance, of images that choose.",
        "epoch", "share of neighbours", [line("coherence", "views agree", BLUE)], marks=marks, percent=True,
    )  # fmt: skip
    kept = Lines(
        "Forgetting", "Neighbours of the start that images still have, and linear CKA with the start.",
        "epoch", "share, or CKA", [line("kept", "old neighbours kept", PURPLE), line("cka", "CKA", GREY)],
        {"least": result.settings.keep}, marks=marks, percent=True, y_range=(0, 1),
    )  # fmt: skip
    rank = Lines(
        "Rank", "Effective rank of the features, centred. Falling fast is a collapse in the making.",
        "epoch", "directions", [line("rank", "effective rank", GREEN)], marks=marks,
        y_range=(0, None),
    )  # fmt: skip
    knn = Lines(
        "k-NN accuracy", "With the labels of the folder, which chose nothing.",
        "epoch", "k-NN top-1", [line("knn", "k-NN", ORANGE)], marks=marks, percent=True,
    )  # fmt: skip
    found = section("On the way", gain, kept, rank, knn)
    layout = "three" if len(found.cards) % 2 else "two"
    return [replace(found, layout=layout)] if found.cards else []
