"""What decides is conservative: it takes an encoder only where the evidence is beyond chance."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fullrank.adaptation.decision import FEWEST_IMAGES, Finding, bootstrap, decide
from fullrank.adaptation.findings import Judged, findings_of
from fullrank.adaptation.sentence import evidence_lines, sentence, untested
from fullrank.adaptation.watch import Seen, halves
from fullrank.training.config import TrainConfig


def images(n: int = 200, d: int = 8, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def seen(noise: float, rows: Tensor | None = None, seed: int = 0) -> Seen:
    """Images whose views differ by so much."""
    rows = images() if rows is None else rows
    generator = torch.Generator().manual_seed(1000 + seed)
    return Seen(rows, rows[:, None] + noise * torch.randn(len(rows), 4, rows.shape[1], generator=generator))


def judged(
    start: Seen,
    best: Seen,
    *,
    veto: bool = True,
    before: Tensor | None = None,
    right: Tensor | None = None,
) -> dict[str, Finding]:
    judging = torch.arange(0, len(start.rows), 2)
    found = findings_of(Judged(start, before), Judged(best, right), judging, 0.2, veto, seed=0)
    return {finding.name: finding for finding in found}


def test_views_that_agree_more_are_a_gain() -> None:
    found = judged(seen(0.5), seen(0.2))
    assert found["gain"].passed
    assert decide(list(found.values()))


@pytest.mark.parametrize("seed", range(5))
def test_other_noise_of_the_same_size_is_no_gain_beyond_chance(seed: int) -> None:
    found = judged(seen(0.5, seed=seed), seen(0.5, seed=seed + 50))
    assert found["gain"].low is not None
    assert found["gain"].low < 0.02
    assert abs((found["gain"].after or 0) - (found["gain"].before or 0)) < 0.05


def test_the_encoder_itself_is_no_gain() -> None:
    found = judged(seen(0.5), seen(0.5))
    assert not found["gain"].passed
    assert not decide(list(found.values()))


def test_too_few_images_are_no_evidence() -> None:
    rows = images(2 * FEWEST_IMAGES - 2)
    found = judged(seen(0.5, rows), seen(0.1, rows))
    assert not found["gain"].passed
    assert "too few" in found["gain"].says


def test_neighbours_that_are_lost_speak_against_it() -> None:
    found = judged(seen(0.5), seen(0.1, images(seed=9)))
    assert found["gain"].passed
    assert not found["kept"].passed
    assert not decide(list(found.values()))


def collapsed(noise: float) -> Seen:
    """Images of which hardly more than one direction is left."""
    return seen(noise, images() * torch.tensor([1.0, *[1e-4] * 7]))


def test_a_collapse_speaks_against_it() -> None:
    found = judged(seen(0.5), collapsed(1e-5))
    assert not found["collapse"].passed
    assert not decide(list(found.values()))


def test_a_start_that_had_collapsed_need_not_be_healthy_now() -> None:
    found = judged(collapsed(0.5), collapsed(1e-5))
    assert found["collapse"].passed


@pytest.mark.parametrize(("named", "taken"), [(70, False), (79, False), (80, True), (81, True)])
def test_labels_veto_any_fall(named: int, taken: bool) -> None:
    before, now = torch.arange(100) < 80, (torch.arange(100) - 3) % 100 < named  # not all the same ones
    assert judged(seen(0.5), seen(0.2), before=before, right=now)["knn"].passed is taken


def test_labels_that_are_reported_veto_nothing() -> None:
    before, fallen = torch.arange(100) < 80, torch.arange(100) < 70
    assert judged(seen(0.5), seen(0.2), before=before, right=fallen, veto=False)["knn"].passed is None


@given(st.integers(2, 60), st.integers(0, 9))
def test_the_halves_share_no_image(n: int, seed: int) -> None:
    choosing, judging = halves(n, seed)
    assert sorted([*choosing.tolist(), *judging.tolist()]) == list(range(n))


def test_the_bootstrap_covers_what_it_claims() -> None:
    generator = torch.Generator().manual_seed(0)
    within = 0
    for seed in range(200):
        found = bootstrap(torch.randn(80, generator=generator) + 0.3, seed, resamples=400)
        within += found.low <= 0.3 <= found.high
    assert 0.88 <= within / 200 <= 0.99


def test_a_refusal_names_what_speaks_against_it() -> None:
    found = judged(seen(0.5), seen(1e-5, images(seed=9) * torch.tensor([1.0, *[1e-4] * 7])))
    said = sentence(False, list(found.values()), 3, "")
    assert said.startswith("do not adapt: ")
    assert "too many old neighbours are lost" in said
    assert "the features collapse" in said


def test_what_is_only_not_sure_is_not_called_worse() -> None:
    found = judged(seen(0.5), seen(0.5, seed=1))
    found["gain"] = replace(found["gain"], passed=False, low=-0.01, high=0.01)
    said = sentence(False, list(found.values()), 3, "")
    assert said.startswith("do not adapt: nothing is surely better")


def test_the_terminal_tells_the_side_of_each_finding() -> None:
    found = judged(seen(0.5), collapsed(1e-5))
    lines = list(evidence_lines(list(found.values())))
    assert lines[0].lstrip().startswith("for ")
    assert any(line.lstrip().startswith("against ") for line in lines)


def test_without_labels_their_absence_is_among_what_was_not_tested() -> None:
    found = judged(seen(0.5), seen(0.1))
    assert any("no labels" in line for line in untested(list(found.values()), TrainConfig()))
