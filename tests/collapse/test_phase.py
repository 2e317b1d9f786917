"""A collapse that runs leave by themselves is named, and called a passing phase."""

from __future__ import annotations

import pytest

from fullrank.collapse.phase import with_phase
from fullrank.collapse.verdict import Kind, Verdict

COLLAPSED = Verdict("dimensional", "projector", "3 directions", probability=0.9)


def test_what_has_not_collapsed_has_no_phase() -> None:
    assert with_phase(Verdict("healthy", "z", "why", probability=0.1), 1, 0.01).phase == ""


@pytest.mark.parametrize(
    ("panels", "progress", "dip", "phase"),
    [
        (1, 0.05, 0.0, "transient"),
        (2, 0.10, 0.0, "transient"),
        (3, 0.15, 0.0, "lasting"),
        (3, 0.15, 0.15, "transient"),  # a momentum target dips for longer
        (1, 0.50, 0.0, "lasting"),  # half of a training of two epochs
        (9, 0.50, 0.9, "lasting"),
        (2, None, 0.0, "transient"),
        (3, None, 0.0, "lasting"),
    ],
)
def test_the_first_epochs_are_no_reason_to_stop(
    panels: int, progress: float | None, dip: float, phase: str
) -> None:
    assert with_phase(COLLAPSED, panels, progress, dip).phase == phase


@pytest.mark.parametrize(
    ("accuracy", "best", "phase"), [(0.7, 0.6, "transient"), (0.602, 0.6, "lasting"), (0.5, 0.6, "lasting")]
)
def test_a_rank_that_falls_while_accuracy_rises_is_passing(accuracy: float, best: float, phase: str) -> None:
    assert with_phase(COLLAPSED, 50, 0.9, accuracy=accuracy, best_accuracy=best).phase == phase


@pytest.mark.parametrize(
    ("accuracy", "best", "untrained", "phase"),
    [
        (0.6, 0.6, 0.4, "transient"),
        (0.595, 0.6, 0.4, "transient"),
        (0.585, 0.6, 0.4, "lasting"),  # it falls
        (0.41, 0.41, 0.4, "lasting"),  # nothing was learnt
        (0.4, 0.6, 0.4, "lasting"),
        (0.6, 0.6, None, "lasting"),  # nothing is known of before
        (None, 0.6, 0.4, "lasting"),
    ],
)
def test_few_directions_that_serve_are_no_reason_to_stop(
    accuracy: float | None, best: float, untrained: float | None, phase: str
) -> None:
    found = with_phase(COLLAPSED, 50, 0.9, accuracy=accuracy, best_accuracy=best, untrained=untrained)
    assert found.phase == phase
    assert found.kind == "dimensional"


@pytest.mark.parametrize(
    ("images", "right", "best", "untrained", "phase"),
    [
        (60, 32, 34, 29, "lasting"),  # three images above the untrained network: within the error of sixty
        (60, 40, 41, 29, "transient"),
        (1000, 550, 567, 480, "lasting"),
        (1000, 553, 567, 480, "transient"),
        (60, 35, 34, None, "lasting"),  # one image more is no rise
        (60, 36, 34, None, "transient"),
        (1000, 345, 340, None, "lasting"),
        (1000, 346, 340, None, "transient"),
    ],
)
def test_few_images_tell_no_small_difference(
    images: int, right: int, best: int, untrained: int | None, phase: str
) -> None:
    accuracies = {"accuracy": right / images, "best_accuracy": best / images}
    before = None if untrained is None else untrained / images
    assert with_phase(COLLAPSED, 50, 0.9, **accuracies, untrained=before, images=images).phase == phase


@pytest.mark.parametrize("kind", ["complete", "cluster", "intra-cluster", "uniform-assignment"])
def test_points_are_a_reason_to_stop_whatever_the_backbone_serves(kind: Kind) -> None:
    collapsed = Verdict(kind, "projector", "", probability=0.9)
    assert with_phase(collapsed, 50, 0.9, accuracy=0.6, best_accuracy=0.6, untrained=0.4).phase == "lasting"


def test_a_collapse_that_is_being_left_is_passing() -> None:
    assert with_phase(COLLAPSED, 50, 0.9, before=0.99).phase == "transient"
    assert with_phase(COLLAPSED, 50, 0.9, before=0.91).phase == "lasting"


def test_the_reason_is_said() -> None:
    assert with_phase(COLLAPSED, 1, 0.05).why == "3 directions; transient: ranks dip in the first epochs"
