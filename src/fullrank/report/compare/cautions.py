"""Cautions of a comparison: losses, ranks and probes that do not compare."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fullrank.encoders.hooks import FEATURES
from fullrank.figures.style import count
from fullrank.report.compare.arms import Arm, Comparison


def cautions(comparison: Comparison) -> list[str]:
    """One line for each thing that does not compare, in the order of the columns."""
    arms = comparison.arms
    rules = (_losses, _taps, _widths, _rows)
    found = [line for rule in rules for line in rule(arms)]
    of_images = (_images, _split, _neighbours)
    found += [line for rule in of_images for line in rule(comparison)]
    return [*found, *_probes(arms), *_seeds(arms)]


def hints(comparison: Comparison) -> list[str]:
    """Commands for the probes that no column shows."""
    runs = [subject for subject in comparison.subjects if subject.run and not subject.untrained]
    columns = {"linear_top1": "linear", "cluster_nmi": "cluster"}
    missing = [probe for name, probe in columns.items() if any(run.values.get(name) is None for run in runs)]
    if not missing:
        return []
    probe = missing[0] if len(missing) == 1 else "all"
    return [
        f"More probes: `fullrank evaluate {probe} {runs[0].word}` leaves its results beside the run, and "
        "another comparison shows them."
    ]


def _losses(arms: Sequence[Arm]) -> Iterator[str]:
    methods = list(dict.fromkeys(arm.subjects[0].method for arm in arms if arm.loss is not None))
    if len(methods) > 1:
        yield f"Losses of {_and(methods)} have different scales: they compare within a method only."


def _taps(arms: Sequence[Arm]) -> Iterator[str]:
    judged = list(dict.fromkeys(arm.tap for arm in arms if arm.tap != "–"))
    if len(judged) > 1:
        yield (
            f"Verdicts, levels and ranks of the first table are of different embeddings ({_and(judged)}): a "
            f"projector is meant to lose what a backbone keeps. Compare rows of one embedding in the second."
        )


def _widths(arms: Sequence[Arm]) -> Iterator[str]:
    widths = sorted({d for arm in arms for tap in _compared(arm) if (d := arm.size(tap)[1])})
    if len(widths) > 1:
        listed = _and([count(d) for d in widths])
        yield f"Widths differ (d = {listed}): compare ranks as shares of what isotropic rows read."


def _rows(arms: Sequence[Arm]) -> Iterator[str]:
    sizes = [(arm, *arm.size(tap)) for arm in arms for tap in _compared(arm)]
    rows = sorted({n for _, n, _ in sizes if n})
    if len(rows) > 1:
        yield f"Ranks are of {_and([count(n) for n in rows])} rows: more rows show more directions."
    starved = list(dict.fromkeys(arm.name for arm, n, d in sizes if n and d and n <= d))
    if starved:
        yield f"{_and(starved)}: no more rows than dimensions, so that ranks are bounded by the rows."


def _images(comparison: Comparison) -> Iterator[str]:
    """Caution on values of other images than those that encoders were given."""
    by_images: dict[str, list[str]] = {}
    for arm in comparison.arms:
        for tap in arm.taps:
            for images in {summary.images for summary in arm.summaries(tap)}:
                by_images.setdefault(images, []).append(f"{arm.name} ({tap})")
    ours = f"held-out {comparison.images.data}" if comparison.images else ""
    if len(by_images) > 1:
        for images, names in by_images.items():
            if images != ours:
                but = ", not of the images that went through the encoders" if ours in by_images else ""
                yield f"{_and(list(dict.fromkeys(names)))}: values of {images or 'unknown images'}{but}."


def _split(comparison: Comparison) -> Iterator[str]:
    """Caution on runs that were trained on what is held out here."""
    images = comparison.images
    if images is None or not any("no val or test split" in note for note in images.notes):
        return
    seen = [
        subject.short
        for subject in comparison.subjects
        if subject.run
        and not subject.untrained
        and subject.run.config.get("data") == images.data
        and subject.seed != images.seed
    ]
    if seen:
        yield (
            f"{images.data} has no test split, and every seed holds out images of its own: {_and(seen)} saw "
            "some of these in training."
        )


def _neighbours(comparison: Comparison) -> Iterator[str]:
    """Caution on runs whose k-NN in training asked other images, or another bank."""
    images = comparison.images
    if images is None or images.bank is None:
        return
    here = {"queries": len(images.queries), "bank": len(images.bank), "k": images.k}
    others: dict[str, list[str]] = {}
    for subject in comparison.subjects:
        logged = (subject.run.last("knn") if subject.run else None) or {}
        there = {key: logged.get(key) for key in here}
        if None not in there.values() and there != here:
            asked = "{queries:,} images, k = {k} in a bank of {bank:,}".format(**there)
            others.setdefault(asked, []).append(subject.short)
    for asked, names in others.items():
        yield f"{_and(names)}: k-NN in training asked {asked}; that on the same images differs."


def _probes(arms: Sequence[Arm]) -> Iterator[str]:
    subjects = [subject for arm in arms for subject in arm.subjects]
    for probe in dict.fromkeys(name for subject in subjects for name in subject.evaluations):
        found = [subject.evaluations[probe] for subject in subjects if probe in subject.evaluations]
        for key in ("data", "tap", "protocol"):
            said = list(dict.fromkeys(str(one[key]) for one in found if one.get(key)))
            if len(said) > 1:
                yield f"The probe {probe!r} was not run alike: its {key} is {_and(said)}."


def _seeds(arms: Sequence[Arm]) -> Iterator[str]:
    for arm in arms:
        seeds = [subject.seed for subject in arm.subjects if subject.seed is not None]
        if len(set(seeds)) < len(seeds):
            yield f"{arm.name}: runs share a seed, so that their interval says nothing of other seeds."
    if any(len(arm.subjects) > 2 for arm in arms):
        yield (
            "± is half the 95 % interval of the mean over seeds (Student's t). Intervals of a few seeds are "
            "wide, and they do not cover the choice of data and settings."
        )


def _compared(arm: Arm) -> list[str]:
    """The features where they are known, else what was judged."""
    return [FEATURES] if FEATURES in arm.taps else arm.taps[:1]


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
