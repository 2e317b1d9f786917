"""Comparison of subjects: measured on the same images, gathered into arms."""

from __future__ import annotations

from collections.abc import Sequence

from fullrank.errors import UsageError
from fullrank.options import CompareOptions, OnProgress, split_names
from fullrank.report.compare.arms import Comparison, gather
from fullrank.report.compare.measures import Images, choose_images, measure, shared_data
from fullrank.report.compare.subjects import Subject, open_subject

__all__ = ["compare_subjects"]


def compare_subjects(
    words: Sequence[str], options: CompareOptions, on_progress: OnProgress | None = None
) -> Comparison:
    """Open and measure what was named; see `fullrank.compare`."""
    subjects = [open_subject(word, download=options.download, measure=options.measure) for word in words]
    names = list(split_names(options.names)) or None
    gather(subjects, names)  # names are refused before anything is measured
    notes = [note for subject in subjects for note in subject.notes]
    images, note = _images(subjects, options)
    about = []
    if images is not None:
        about = [f"{images.data}: {line}" for line in images.notes]
        subjects = [measure(subject, images, on_progress) for subject in subjects]
    lines = [*([note] if note else []), *about, *dict.fromkeys(notes)]
    return Comparison(gather(subjects, names), images, lines)


def _images(subjects: Sequence[Subject], options: CompareOptions) -> tuple[Images | None, str]:
    """The images that every encoder sees, if any, and a line about them."""
    encoders = [subject for subject in subjects if subject.kind == "encoder"]
    if encoders and not options.measure:
        raise UsageError(f"{encoders[0].word} is an encoder: nothing is known of it without --measure")
    if not any(subject.model for subject in subjects):
        return None, ""
    shared = shared_data(subjects)
    if options.data and options.data != shared.get("data"):
        shared = {"data": options.data}
    if not shared and encoders:
        runs = any(subject.run for subject in subjects)
        which = "the runs were trained on different ones" if runs else "no run brings any"
        raise UsageError(f"{encoders[0].word} needs images, and {which}: add --data")
    if not shared:
        return None, "No k-NN on the same images: the runs were trained on different ones. Add --data."
    images = choose_images(
        **shared, bank=options.bank, queries=options.queries, k=options.k, download=options.download
    )
    source = f"Images: {images.data}, which all runs were trained on; --data takes others."
    return images, "" if options.data else source
