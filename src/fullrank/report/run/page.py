"""The page of one run: its verdict with evidence, then what led to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from fullrank.collapse.advice import ADVICE
from fullrank.errors import UsageError
from fullrank.figures.style import count, duration, number, percent, typographic
from fullrank.report.curves import spectrum_over_time
from fullrank.report.evidence import COLUMNS, OF_NOISE, OF_RUN, Other, Tile, logged_row
from fullrank.report.render import Choice, Section, data_uri, pairs, render, section, write
from fullrank.report.run import figures
from fullrank.report.run.learning_rate import rate_note
from fullrank.report.run.reading import Run, read_run
from fullrank.report.run.summary import Summary, summarise, what
from fullrank.report.verdicts import as_sentence, as_verdict, certainty, remarks
from fullrank.views import VIEWS

FORMS = (("centred", "centred"), ("unit", "unit rows, uncentred"))
DIAGNOSTICS = (
    ("local_dimension", "Local dimension", "Around every image, by its nearest neighbours. Dashed: noise."),
    ("lidar", "LiDAR", "What tells images apart, against how two views of one differ. Dashed: noise."),
)
ENDED = {
    "finished": "Finished",
    "collapsed": "Stopped because it collapsed",
    "interrupted": "Interrupted",
}


def write_page(run_dir: Path | str) -> Path:
    """Write `report.html` into a run's directory, finished or not; return its path.

    Raises:
        UsageError: if it is no run directory.
    """
    run = read_run(run_dir)
    summary = summarise(run)
    kinds = {summary.style.word} - {"not decidable"}
    picture = run.path / "figures" / "views.png"
    text = render(
        "run.html.j2",
        title=what(run.config) if run.config else run.name,
        state=_state(run, summary),
        notes=_notes(run, summary),
        style=summary.style,
        place=summary.verdict.get("tap") or "",
        certainty=certainty(summary.judgement),
        remarks=remarks(summary.judgement),
        reasons=[as_sentence(summary.why)],
        evidence=[logged_row(row) for row in summary.verdict.get("evidence") or []],
        columns=[(name, COLUMNS[name]) for name in OF_RUN],
        others=_others(run, summary),
        warnings=[typographic(warning) for warning in summary.warnings],
        advice=[item for kind, found in ADVICE.items() if kind in kinds for item in found],
        tiles=_tiles(run, summary),
        sections=_sections(run, summary),
        picture=data_uri(picture) if picture.is_file() else "",
        config=pairs(run.config),
        environment=pairs(run.environment),
    )
    return write(run.path / "report.html", text)


def choices(runs: Sequence[Run], tap: str) -> list[Choice]:
    """The buttons for what runs hold; none for a question with one answer."""
    panels = {name for run in runs for row in run.epochs for name in row.panels}
    taps = [name for name in dict.fromkeys(tap for run in runs for tap in run.taps) if name in panels]
    forms = [pair for pair in FORMS if any(run.spectra(name, pair[0]) for run in runs for name in taps)]
    chosen = tap if tap in taps else (taps or [""])[0]
    found = [
        Choice("tap", "Tap", [(name, name) for name in taps], chosen),
        Choice("form", "Spectrum", forms, "centred"),
    ]
    return [choice for choice in found if len(choice.options) > 1]


def _state(run: Run, summary: Summary) -> str:
    planned = run.config.get("epochs")
    length = f"{count(summary.epoch)}{f' of {count(planned)}' if planned else ''} epochs"
    ended = ENDED.get(run.end.reason if run.end else "", "Open")
    took = ", " + duration(summary.elapsed).replace(" ", "\u00a0") if summary.elapsed is not None else ""
    return f"{ended} after {length}, {count(summary.step)} steps{took}. Run directory: {run.name}"


def _notes(run: Run, summary: Summary) -> list[str]:
    notes = []
    if run.end is None:
        notes.append("No closing record: the run is going on, or was killed. This is what it had written.")
    if run.damaged:
        notes.append(f"{run.damaged} damaged line(s) in metrics.jsonl were left out.")
    rate = rate_note(run.config, summary)
    return [*notes, *([as_sentence(rate)] if rate else []), *loss_notes(run)]


def loss_notes(run: Run, last: int = 3, tolerance: float = 0.01) -> list[str]:
    """What the loss means where its last epochs sit at a fixed point of the method's."""
    from fullrank.methods import METHODS, explain_loss

    losses = [record.loss for record in run.epochs if record.epoch and record.loss is not None][-last:]
    method, preset = str(run.config.get("method")), str(run.config.get("views"))
    if len(losses) < last or method not in METHODS or not METHODS[method].fixed_points:
        return []
    views = VIEWS[preset].views if preset in VIEWS else ()
    size, count = int(run.config.get("batch_size") or 256), max(len(views), METHODS[method].views_needed)
    try:
        found = [
            explain_loss(
                loss, method, run.config.get("options"), batch_size=size, views=count, tolerance=tolerance
            )
            for loss in losses
        ]
    except UsageError:  # no fixed point with these options, or a configuration of another version
        return []
    always = set.intersection(*({point["state"] for point in one.at} for one in found))
    words = [
        line for line, point in zip(found[-1].lines, found[-1].at, strict=False) if point["state"] in always
    ]
    return [f"The last {last} epochs: {line}" for line in words]


def _others(run: Run, summary: Summary) -> list[Other]:
    """Verdicts at the taps that the card does not speak of."""
    verdicts = run.last("verdicts") or {}
    return [
        Other.of(replace(as_verdict(found), tap=tap)) for tap, found in verdicts.items() if tap != summary.tap
    ]


def _tiles(run: Run, summary: Summary) -> list[Tile]:
    n, d = run.size(summary.tap)
    planned = run.config.get("epochs")
    knn = run.last("knn") or {}
    losses = f"{number(next(iter(summary.losses), None))} → {number(summary.loss)}"
    null = number(summary.measure("erank_centred", "null"))
    noise = f"{summary.tap}{', of noise' * summary.constant}; isotropic {null}"
    noise += f" at n = {count(n)}" if n else ""
    accuracies = f"{percent(summary.knn_untrained)} → {percent(summary.knn)}" if knn else "–"
    of, linear = f"of {count(planned)} planned" if planned else f"{count(summary.step)} steps", summary.linear
    return [
        Tile("Epochs", count(summary.epoch), of),
        Tile("Loss", typographic(losses) if summary.losses else "–", "first step → last"),
        Tile("Normalized std (level)", number(summary.level), f"{summary.tap}; 1 is isotropic"),
        Tile("Effective rank", f"{number(summary.rank)} / {count(d)}", noise),
        Tile("k-NN top-1", accuracies, f"untrained → last; k = {knn.get('k')}" if knn else "no labels"),
        *[Tile("Linear top-1", percent(linear), "online probe, held-out images")] * (linear is not None),
        Tile("Speed", count(summary.images_per_second), "images per second"),
        Tile("Watching", percent(summary.share_watching), "of the time spent"),
    ]


def _sections(run: Run, summary: Summary) -> list[Section]:
    sections = [
        section(
            "Does it learn, and is it alive?",
            figures.loss(run),
            figures.level(run),
            figures.knn(run),
            figures.alignment_uniformity(run),
        ),
        section(
            "How many directions are in use?",
            figures.by_tap(run, figures.ranks),
            figures.by_form(run, spectrum_over_time),
            figures.by_form(run, figures.log_spectra),
            layout="lead",
            caution=OF_NOISE if summary.constant else "",
            choices=choices([run], summary.tap),
        ),
        section(
            "What only this method has",
            figures.codes(run),
            figures.rank_difference(run),
            *figures.predictor(run),
        ),
        section("Diagnostics", *(figures.over_epochs(run, *words) for words in DIAGNOSTICS)),
    ]
    return [found for found in sections if found.cards]
