"""Notes on a run beside its verdict."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fullrank.cures.onset import diagnose
from fullrank.cures.terminal import nothing_words
from fullrank.report.run.learning_rate import rate_note
from fullrank.report.run.notes import encoder_note, fall_note, summary_notes
from fullrank.report.run.reading import Run
from fullrank.report.run.summary import summarise
from fullrank.report.run.terminal import closing_lines
from fullrank.training.records import EndRecord, EpochRecord


def a_run(
    accuracies: list[float], queries: int = 1000, scores: list[float] | None = None, end: str = "finished"
) -> Run:
    """A healthy run with k-NN and label-free scores by epoch, the untrained network first."""
    epochs = [
        EpochRecord(
            epoch=epoch,
            step=10 * epoch,
            verdict={"kind": "healthy", "tap": "projector", "why": "level is 0.9"},
            knn={"top1": accuracy, "queries": queries, "k": 20, "bank": 1000},
            score=None if scores is None else scores[epoch],
        )
        for epoch, accuracy in enumerate(accuracies)
    ]
    return Run(Path("runs/a"), epochs=epochs, end=EndRecord(reason=end, epoch=len(epochs) - 1))


def test_a_healthy_run_whose_neighbours_got_worse_is_told_which_epoch_was_better() -> None:
    assert "from 60.0 % after epoch 2 to 45.0 %" in fall_note(summarise(a_run([0.3, 0.5, 0.6, 0.45])))


@pytest.mark.parametrize("last", [0.6, 0.61, 0.58])
def test_what_rose_or_fell_by_little_needs_no_word(last: float) -> None:
    assert fall_note(summarise(a_run([0.3, 0.5, 0.6, last]))) == ""


def test_a_fall_within_the_error_of_few_images_needs_no_word() -> None:
    assert fall_note(summarise(a_run([0.3, 0.5, 0.6, 0.5], queries=50))) == ""


def test_the_untrained_network_is_no_better_epoch() -> None:
    assert fall_note(summarise(a_run([0.9, 0.3, 0.31]))) == ""


def test_nothing_to_cure_says_that_accuracy_fell() -> None:
    words = nothing_words(diagnose(a_run([0.3, 0.6, 0.45])))
    assert words.startswith("nothing to cure") and "but k-NN fell from 60.0 %" in words


def test_an_early_stopped_run_names_the_epoch_that_it_left() -> None:
    run = a_run([0.3, 0.5, 0.5, 0.5], scores=[0.0, 5.0, 4.0, 3.0], end="stopped early")
    assert "that of epoch 1" in encoder_note({"early_stop": 2}, summarise(run))


@pytest.mark.parametrize(
    ("early_stop", "scores", "end"),
    [(0, [0.0, 5.0, 4.0], "finished"), (2, [0.0, 4.0, 5.0], "finished"), (0, [0.0, 5.0, 4.0], "stopped")],
)
def test_a_run_that_left_its_last_encoder_names_none(early_stop: int, scores: list[float], end: str) -> None:
    run = a_run([0.3, 0.5, 0.5], scores=scores, end=end)
    assert encoder_note({"early_stop": early_stop}, summarise(run)) == ""


def test_a_run_that_was_stopped_for_a_collapse_says_whose_encoder_it_left() -> None:
    run = a_run([0.3, 0.5, 0.5, 0.4], end="collapsed")
    kinds = ("not decidable", "healthy", "healthy", "complete")
    judged = [replace(each, verdict={"kind": kind}) for each, kind in zip(run.epochs, kinds, strict=True)]
    note = encoder_note({}, summarise(replace(run, epochs=judged)))
    assert note == "encoder.safetensors is that of the last healthy checkpoint, of epoch 2 at the latest"
    never = [replace(each, verdict={"kind": "complete"}) for each in run.epochs]
    assert "no panel before was healthy" in encoder_note({}, summarise(replace(run, epochs=never)))


def test_a_rate_is_no_cause_where_few_images_show_no_fall() -> None:
    config = {"method": "simsiam", "optimizer": "sgd", "lr": 2.0, "image_size": 32, "batch_size": 64}
    found = {n: rate_note(config, summarise(a_run([0.5, 0.5, 0.42], queries=n))) for n in (99, 2000)}
    assert found[99] == "" and "likely cause" in found[2000]


def test_terminal_and_page_have_the_same_notes() -> None:
    summary = summarise(a_run([0.3, 0.6, 0.45]))
    (note,) = summary_notes({}, summary)
    assert f"  {note}" in closing_lines(summary, {})
