"""Writes the page of one run: the verdict and its evidence, then what led to it; it opens without network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fullrank.collapse.advice import ADVICE, Advice
from fullrank.collapse.metrics import METRICS
from fullrank.report.render import Section, card, choices, data_uri, pairs, render, typographic, write
from fullrank.report.run import branch_figures, figures
from fullrank.report.run.reading import Record, Run, read_run
from fullrank.report.run.summary import Summary, summarise, what
from fullrank.report.style import count, duration, look_of, number, percent

__all__ = ["TERMS", "write_page"]

TERMS = (
    (
        "Complete collapse",
        "Every image gets the same embedding; the loss is perfect and nothing was learned.",
    ),
    (
        "Dimensional collapse",
        "Embeddings differ, but only along few of their d directions; the rest is wasted.",
    ),
    (
        "Cluster, intra-cluster collapse",
        "Embeddings are a handful of points; or they lie in tight clusters with hardly anything inside.",
    ),
    (
        "Uniform assignment",
        "Every image is assigned to all codes alike; the loss stands at ln K and codes say nothing.",
    ),
    ("Level", "Spread of the unit-length embeddings over images times √d: 1 if isotropic, 0 if constant."),
    (
        "Effective rank",
        "exp of the entropy of the spectrum: how many directions carry the variation, 1 to d.",
    ),
    (
        "Centred, uncentred",
        "With or without the mean removed first; a large mean hides in one, fakes rank 1 in the other.",
    ),
    (
        "Null",
        "What isotropic random noise with the same n and d would measure: the most that n images can show.",
    ),
    ("Threshold", "Where the verdict changes; a convention of this tool, not a law of nature."),
    (
        "Trend",
        "Change from the best epoch before, each value taken relative to its null; −40 % is 40 % below.",
    ),
    (
        "Spectrum",
        "Singular values of the embeddings, largest first; a cliff marks directions that have died.",
    ),
    (
        "Tap",
        "Where embeddings are read: backbone (what you keep), projector and predictor (what the loss sees).",
    ),
    ("Alignment", "Mean squared distance between two views of one image; 0 means views agree exactly."),
    ("Uniformity", "How evenly embeddings cover the sphere; lower is more even, 0 means all in one point."),
    (
        "k-NN",
        "Accuracy of labelling by the nearest neighbours; compare it with the untrained network, not with 0.",
    ),
    (
        "Untrained network",
        "Epoch 0, random weights: a surprisingly good encoder, and the bar that training must pass.",
    ),
)


OF_NOISE = (
    "The embedding is constant but for noise: ranks and shapes below are those of noise, and may look full."
)


def write_page(run_dir: Path | str) -> Path:
    """Writes `report.html` into a run directory.

    Args:
        run_dir: what the training loop writes; the run may be finished, still going on, or cut.

    Returns:
        The path of the page.

    Raises:
        UsageError: if it is no run directory.

    Example:
        >>> write_page("runs/simsiam")  # doctest: +SKIP
        PosixPath('runs/simsiam/report.html')
    """
    run = read_run(run_dir)
    summary = summarise(run)
    text = render(
        "page.html.j2",
        title=what(run.config) if run.config else run.name,
        state=_state(run, summary),
        notes=_notes(run),
        verdict={"tap": summary.verdict.get("tap") or "", "why": summary.why},
        look=summary.look,
        evidence=[_evidence(row) for row in summary.verdict.get("evidence") or []],
        others=_others(run, summary),
        warnings=[typographic(warning) for warning in summary.warnings],
        advice=[advice._asdict() for advice in _advice(summary.look.word)],
        tiles=_tiles(run, summary),
        sections=_sections(run, summary),
        picture=data_uri(run.picture) if run.picture else "",
        terms=TERMS,
        config=pairs(run.config),
        environment=pairs(run.environment),
    )
    return write(run.path / "report.html", text)


def _state(run: Run, summary: Summary) -> str:
    planned = run.config.get("epochs")
    length = (
        f"{count(summary.epoch)} of {count(planned)} epochs" if planned else f"{count(summary.epoch)} epochs"
    )
    ended = {
        "finished": "Finished",
        "collapsed": "Stopped because it collapsed",
        "interrupted": "Interrupted",
    }.get(run.end.reason if run.end else "", "Open")
    took = ", " + duration(summary.elapsed).replace(" ", "\u00a0") if summary.elapsed is not None else ""
    return f"{ended} after {length}, {count(summary.step)} steps{took}. Run directory: {run.name}"


def _notes(run: Run) -> list[str]:
    notes = []
    if run.end is None:
        notes.append(
            "No closing record: the run is still going on, or it was killed. This is what it had written."
        )
    if run.damaged:
        notes.append(f"{run.damaged} damaged line(s) in metrics.jsonl were left out.")
    return notes


def _evidence(row: Record) -> dict[str, Any]:
    metric, says, trend = str(row.get("metric")), str(row.get("says") or "–"), row.get("trend")
    value, threshold = row.get("value"), row.get("threshold")
    return {
        "metric": METRICS[metric].label if metric in METRICS else metric.replace("_", " "),
        "value": typographic(number(value)),
        "null": typographic(number(row.get("null"))),
        "threshold": "–" if threshold is None else f"{threshold:g}",
        "trend": "–" if trend is None else typographic(f"{100 * trend:+.0f} %"),
        "says": says if trend is None else says.split(";")[0],  # the trend has a column of its own
        "judged": threshold is not None,
        "below": threshold is not None and value is not None and value < threshold,
    }


def _advice(kind: str) -> tuple[Advice, ...]:
    return next((found for known, found in ADVICE.items() if known == kind), ())


def _others(run: Run, summary: Summary) -> list[dict[str, Any]]:
    """Verdicts at the taps that the card does not speak of."""
    verdicts: Record = run.last("verdicts") or {}
    return [
        {"tap": tap, "look": look_of(str(found.get("kind"))), "why": found.get("why") or ""}
        for tap, found in verdicts.items()
        if tap != summary.tap
    ]


def _tiles(run: Run, summary: Summary) -> list[dict[str, str]]:
    n, d = run.size(summary.tap)
    planned = run.config.get("epochs")
    knn = run.last("knn")
    arrow = f"{number(summary.loss_first)} → {number(summary.loss)}"
    rows = [
        (
            "Epochs",
            count(summary.epoch),
            f"of {count(planned)} planned" if planned else f"{count(summary.step)} steps",
        ),
        ("Loss", typographic(arrow) if summary.losses else "–", "first step → last"),
        ("Level", number(summary.level), f"{summary.tap}; 1 is isotropic"),
        (
            "Effective rank",
            f"{number(summary.rank)} / {count(d)}",
            f"{summary.tap}{', of noise' * summary.constant}; null {number(summary.rank_null)}"
            + (f" at n = {count(n)}" if n else ""),
        ),
        (
            "k-NN top-1",
            f"{percent(summary.knn_untrained)} → {percent(summary.knn)}" if knn else "–",
            f"untrained → last; k = {knn.get('k')}" if knn else "no labels",
        ),
        *(
            [("Linear top-1", percent(summary.linear), "online probe, held-out images")]
            if summary.linear is not None
            else []
        ),
        ("Speed", count(summary.images_per_second), "images per second"),
        ("Watching", percent(summary.share_watching), "of the time spent"),
    ]
    return [{"label": label, "value": value, "below": below} for label, value, below in rows]


def _sections(run: Run, summary: Summary) -> list[Section]:
    sections = [
        Section(
            "Does it learn, and is it alive?",
            [
                *card(
                    "Loss",
                    "Every logged step, not smoothed. A perfect loss is also what collapse looks like.",
                    figures.loss(run),
                ),
                *card(
                    "Level",
                    "Lines: training batches. Dots: held-out images. Falling to 0 is complete collapse.",
                    figures.level(run),
                ),
                *card(
                    "k-NN and linear accuracy",
                    "What the features are worth. Staying at the dotted line means nothing was learned. "
                    "Dashed: a linear classifier trained beside the method.",
                    figures.knn(run),
                ),
                *card(
                    "Alignment and uniformity",
                    "From the untrained network (diamond) to the last epoch (large dot). Low and left: good.",
                    figures.alignment_uniformity(run),
                ),
            ],
        ),
        Section(
            "How many directions are in use?",
            [
                *card(
                    "Effective ranks",
                    "Solid: measured. Dashed: isotropic noise with the same n and d.",
                    figures.ranks(run),
                ),
                *card(
                    "Spectrum over time",
                    "Each column is an epoch. Bright to the bottom: all directions live. Dark: dead ones.",
                    figures.spectrum_over_time(run),
                ),
                *card(
                    "Spectra, first to last",
                    "Faint is early, strong is late, dotted is untrained. A cliff marks dead directions.",
                    figures.log_spectra(run),
                ),
            ],
            layout="lead",
            caution=OF_NOISE if summary.constant else "",
            choices=choices([run], summary.tap),
        ),
        Section(
            "What only this method has",
            [
                *card(
                    "Use of codes",
                    "Upper line near 1: all codes are in use. Lower line near 1 too: every image uses all.",
                    branch_figures.codes(run),
                ),
                *card(
                    "Rank difference of the branches",
                    "Above 0 the target's rank pulls the online branch up, which holds collapse off.",
                    branch_figures.rank_difference(run),
                ),
                *card(
                    "Predictor and eigenvectors",
                    "1: a direction of the projections is an eigenvector of the predictor. Faint is early.",
                    branch_figures.predictor_alignment(run),
                ),
                *card(
                    "Filter of the predictor",
                    "What passes of each direction. Falling to the right: a low-pass filter. Faint is early.",
                    branch_figures.predictor_filter(run),
                ),
            ],
        ),
        Section(
            "Diagnostics, computed now and then",
            [
                *card(
                    "Local dimension",
                    "Around every image, by its nearest neighbours. Dashed: isotropic noise.",
                    branch_figures.closer(run, "local_dimension", "local dimension"),
                ),
                *card(
                    "LiDAR",
                    "Rank of what tells images apart, against how two views of one differ. Dashed: noise.",
                    branch_figures.closer(run, "lidar", "LiDAR"),
                ),
            ],
        ),
    ]
    return [section for section in sections if section.cards]
