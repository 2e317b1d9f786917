"""The page of one run: its verdict with evidence, then what led to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fullrank.collapse.verdict import as_verdict
from fullrank.figures.style import count, duration, number, percent, typographic
from fullrank.probes.intervals import wilson_interval
from fullrank.report.curves import spectrum_over_time
from fullrank.report.evidence import COLUMNS, OF_NOISE, OF_RUN, Other, Tile, logged_row
from fullrank.report.render import Choice, LiveBar, Section, data_uri, pairs, render, section, write
from fullrank.report.run import figures
from fullrank.report.run.notes import loss_notes, summary_notes
from fullrank.report.run.reading import Run, read_run
from fullrank.report.run.summary import Summary, start_of, summarise, what
from fullrank.report.verdicts import advice_sentences, as_sentence, beside_kind, remarks
from fullrank.training.treatments import advice_for

FORMS = (("centred", "centred"), ("unit", "unit rows, uncentred"))
DIAGNOSTICS = (
    ("local_dimension", "Local dimension", "Around every image, by its nearest neighbours. Dashed: noise."),
    ("lidar", "LiDAR", "What tells images apart, against how two views of one differ. Dashed: noise."),
)
ENDED = {
    "finished": "Finished",
    "collapsed": "Stopped because it collapsed",
    "stopped early": "Stopped early, for its score rose no more,",
    "interrupted": "Interrupted",
    "adapted": "Adaptation ended, with an adapted encoder",
    "not adapted": "Adaptation ended, with the encoder that it started from",
}


def write_page(run_dir: Path | str, on_note: Callable[[str], None] | None = None) -> Path:
    """Write `report.html` into a run's directory, finished or not; return its path.

    `on_note` is called with each line on what could not be read; the page has them, too.

    Raises:
        UsageError: if it is no run directory.
    """
    run = read_run(run_dir)
    if on_note is not None:
        for note in _unread(run):
            on_note(note)
    return write(run.path / "report.html", page_of(run))


def page_of(run: Run, live: LiveBar | None = None) -> str:
    """The page of a run as text; `live` is its bar while it is served."""
    summary = summarise(run)
    kinds = {summary.style.word} - {"not decidable"}
    picture = run.path / "figures" / "views.png"
    is_own = picture.is_file() and not picture.is_symlink()  # a link could show any file of the reader's
    return render(
        "run.html.j2",
        live=live,
        title=what(run.config) if run.config else run.name,
        state=_state(run, summary),
        notes=_notes(run, summary, live),
        style=summary.style,
        place=summary.verdict.get("tap") or "",
        certainty=beside_kind(summary.judgement),
        remarks=remarks(summary.judgement),
        reasons=[as_sentence(summary.why)],
        evidence=[logged_row(row) for row in summary.verdict.get("evidence") or []],
        columns=[(name, COLUMNS[name]) for name in OF_RUN],
        others=_others(run, summary),
        warnings=[typographic(warning) for warning in summary.warnings],
        advice=advice_sentences(advice_for(run.config, kinds)) if summary.judgement.collapsed else [],
        tiles=_tiles(run, summary),
        sections=_sections(run, summary),
        picture=data_uri(picture) if is_own else "",
        config=pairs(run.config),
        environment=pairs(run.environment),
    )


def _unread(run: Run) -> list[str]:
    """What of a run's files could not be read, in sentences."""
    damaged = [f"{run.damaged} damaged line(s) in metrics.jsonl were left out."] if run.damaged else []
    return damaged + [as_sentence(note) for note in run.notes]


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


def _notes(run: Run, summary: Summary, live: LiveBar | None) -> list[str]:
    notes = []
    if run.end is None and not (live and live.phase == "running"):  # which the bar says
        notes.append("No closing record: the run is going on, or was killed. This is what it had written.")
    notes += _unread(run)
    return [*notes, *map(as_sentence, summary_notes(run.config, summary)), *loss_notes(run)]


def _others(run: Run, summary: Summary) -> list[Other]:
    """Verdicts at the taps that the card does not speak of."""
    verdicts = run.last("verdicts") or {}
    return [
        Other.of(replace(as_verdict(found), tap=tap)) for tap, found in verdicts.items() if tap != summary.tap
    ]


def _asked(knn: Mapping[str, Any], start: str) -> str:
    """What a run's k-NN was measured on; empty of what earlier logs do not tell."""
    if not knn:
        return "no labels"
    text = f"{start} → last; k = {knn.get('k')}"
    if knn.get("queries") and knn.get("bank"):
        low, high = wilson_interval(float(knn["top1"]), int(knn["queries"]))
        text += f", {count(knn['queries'])} images, bank {count(knn['bank'])}"
        text += f"; 95 % interval {100 * low:.1f} to {percent(high)}"
    return text


def _tiles(run: Run, summary: Summary) -> list[Tile]:
    n, d = run.size(summary.tap)
    planned = run.config.get("epochs")
    knn = run.last("knn") or {}
    losses = f"{number(next(iter(summary.losses), None))} → {number(summary.loss)}"
    ceiling = summary.ceiling
    noise = f"{summary.tap}{', of noise' * summary.constant}; isotropic {number(ceiling.baseline)}"
    noise += f" at n = {count(n)}" if n else ""
    noise += f"; {ceiling.says}" if ceiling.possible != d else ""
    if (judged := summary.judged_rank) is not None:
        noise += f"; judged: {number(judged)}"
    accuracies = f"{percent(summary.knn_untrained)} → {percent(summary.knn)}" if knn else "–"
    last = "mean of the last epoch" if summary.loss_of_epoch else "last logged step"
    of, linear = f"of {count(planned)} planned" if planned else f"{count(summary.step)} steps", summary.linear
    return [
        Tile("Epochs", count(summary.epoch), of),
        Tile("Loss", typographic(losses) if summary.losses else "–", f"first step → {last}"),
        Tile("Normalized std (level)", number(summary.level), f"{summary.tap}; 1 is isotropic"),
        Tile("Effective rank", f"{number(summary.rank)} / {count(ceiling.possible)}", noise),
        Tile("k-NN top-1", accuracies, _asked(knn, start_of(run.config))),
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
            figures.by_form(run, partial(figures.log_spectra, start=start_of(run.config))),
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
