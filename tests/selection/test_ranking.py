"""Ranking of measured candidates: who comes first, who comes last, and what is said."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fullrank.collapse.label_free import LABEL_FREE
from fullrank.collapse.verdict import Kind, Verdict
from fullrank.errors import UsageError
from fullrank.images.sources import MemorySource
from fullrank.selection.candidates import Candidate
from fullrank.selection.measuring import Images, Measured
from fullrank.selection.ranking import Selection, rank
from fullrank.training.config import TrainConfig
from fullrank.training.run_dir import RunDir

BLACK = MemorySource(name="black", images=torch.zeros(9, 3, 4, 4, dtype=torch.uint8))
IMAGES = Images(BLACK, "simsiam", 6, 0, "photographs")


def measured(name: str, retrieval: float, kind: Kind = "healthy", **about: object) -> Measured:
    """A candidate whose views are found again so often."""
    measures = dict.fromkeys(LABEL_FREE, 0.3) | {
        "view_retrieval": retrieval,
        "neighbour_coherence": retrieval,
    }
    candidate = replace(Candidate(name, f"{name}.safetensors"), **about)  # type: ignore[arg-type]
    return Measured(candidate, measures, Verdict(kind, "features", ""))


@pytest.fixture
def run(tmp_path: Path) -> RunDir:
    return RunDir.create(tmp_path / "run", TrainConfig(limit=64))


def of_a_run(run: RunDir, *retrievals: float, seconds: float = 10.0) -> Selection:
    """Checkpoints of every epoch from 1 on."""
    found = [
        measured(f"epoch {k + 1}", share, run=run, epoch=k + 1, seconds=seconds * (k + 1))
        for k, share in enumerate(retrievals)
    ]
    return rank(found, IMAGES)


def test_candidates_come_from_the_best_to_the_worst() -> None:
    found = rank([measured("a", 0.1), measured("b", 0.5), measured("c", 0.3)], IMAGES)
    assert [r.candidate.name for r in found.ranked] == ["b", "c", "a"]
    assert [r.points for r in found.ranked] == sorted((r.points for r in found.ranked), reverse=True)
    assert found.pick.points == 0


@pytest.mark.parametrize("kind", ["complete", "dimensional", "cluster", "intra-cluster"])
def test_one_that_has_collapsed_is_never_picked_over_one_that_has_not(kind: Kind) -> None:
    found = rank([measured("collapsed", 0.9, kind), measured("sound", 0.1)], IMAGES)
    assert [r.candidate.name for r in found.ranked] == ["sound", "collapsed"]
    assert found.ranked[1].best == 0


def test_where_all_have_collapsed_the_best_of_them_comes_first() -> None:
    found = rank([measured("a", 0.1, "complete"), measured("b", 0.3, "dimensional")], IMAGES)
    assert found.pick.candidate.name == "b"


def test_one_that_cannot_be_used_is_listed_with_the_reason() -> None:
    broken = Measured(Candidate("broken", "broken.pt"), why="its features are not finite")
    found = rank([broken, measured("a", 0.1), measured("b", 0.2)], IMAGES)
    assert [m.candidate.name for m in found.unusable] == ["broken"]
    assert found.as_dict()["unusable"] == [{"encoder": "broken.pt", "why": "its features are not finite"}]


def test_none_that_can_be_used_is_an_error_with_the_reason() -> None:
    with pytest.raises(UsageError, match=r"none of the encoders can be used: it is damaged"):
        rank([Measured(Candidate("a", "a.pt"), why="it is damaged")], IMAGES)


def test_checkpoints_of_one_run_are_told_apart_more_surely_than_encoders_of_any_kind(run: RunDir) -> None:
    shares = (0.2, 0.3, 0.25)
    own = of_a_run(run, *shares)
    others = rank([measured(str(k), share) for k, share in enumerate(shares)], IMAGES)
    assert (own.relation, others.relation) == ("run", "any")
    wide = [found.ranked[1].high - found.ranked[1].low for found in (own, others)]
    assert wide[0] < wide[1]


def test_the_sentence_names_the_epoch_how_sure_and_what_came_after(run: RunDir) -> None:
    found = of_a_run(run, 0.1, 0.6, 0.1, 0.05)
    assert found.headline == "epoch 2 of 4"
    assert "sure that it is within 1 point of the best" in str(found)
    assert found.cost == "What came after took 50 % of the time and bought nothing."


def test_a_later_epoch_that_may_be_better_is_not_said_to_have_bought_nothing(run: RunDir) -> None:
    found = of_a_run(run, 0.1, 0.6, 0.59, 0.05)
    assert found.headline == "epoch 2 of 4"
    assert "may be worth" in found.cost and "nothing" not in found.cost


def test_nothing_is_said_of_time_where_the_last_epoch_is_picked(run: RunDir) -> None:
    assert of_a_run(run, 0.1, 0.2, 0.6).cost == ""


def test_time_that_is_not_on_record_is_not_made_up(run: RunDir) -> None:
    found = [measured(f"epoch {k}", share, run=run, epoch=k) for k, share in ((1, 0.6), (2, 0.1))]
    assert rank(found, IMAGES).cost == ""


@pytest.mark.parametrize("count", [2, 3, 17, 60])
def test_probabilities_of_being_the_best_add_up(count: int) -> None:
    shares = np.random.default_rng(count).uniform(0.02, 0.9, count)
    found = rank([measured(str(k), float(share)) for k, share in enumerate(shares)], IMAGES)
    assert math.fsum(r.best for r in found.ranked) == pytest.approx(1)
