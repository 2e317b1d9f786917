"""`fullrank explain loss`: words, JSON and what it refuses."""

from __future__ import annotations

import json

import pytest

from cli.helpers import call

DINO = ("explain", "loss", "8.317", "--method", "dino", "--options", "num_prototypes=4096")


def test_a_loss_at_a_fixed_point_is_named_with_what_it_means() -> None:
    called = call(*DINO)
    assert called.code == 0
    assert called.out.startswith("dino's loss at ln K = 8.318: embeddings are uniform over codes")


def test_json_has_the_fixed_points_and_those_that_the_value_is_at() -> None:
    found = json.loads(call(*DINO, "--json").out)
    assert found["at"] == found["fixed_points"]
    assert found["at"][0]["collapses"] == ["uniform-assignment", "complete"]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("explain", "los", "1", "--method", "dino"), "did you mean 'loss'"),
        (("explain", "nan", "--method", "simsiam"), "WHAT is `loss`, as in `fullrank explain loss nan --m"),
        (("explain", "-0.97", "--method", "simsiam"), "as in `fullrank explain loss -0.97 --method simsiam`"),
        (("explain", "simsiam"), "as in `fullrank explain loss VALUE --method simsiam`"),
        (("explain", "loss"), "VALUE is missing"),
        (("explain", "--method", "dino"), "WHAT and VALUE are missing"),
        (("explain", "loss", "--method", "dino"), "`fullrank explain loss VALUE --method dino`"),
        (("explain", "loss", "1", "--method", "dine"), "did you mean 'dino'"),
        ((*DINO[:5], "--options", "num_prototypes"), "--options takes KEY=VALUE, as num_prototypes=4096"),
        ((*DINO[:5], "--options", "num_prototype=4"), "did you mean 'num_prototypes'"),
        (("explain", "loss", "nan", "--method", "dino"), "training has diverged"),
        ((*DINO[:5], "--options", "num_prototypes={"), "has no value that YAML reads"),
        ((*DINO[:5], "--tolerance", "nan"), "--tolerance takes a finite number"),
        (("explain", "loss", "0", "--method", "simclr", "--views", "1"), "simclr compares 2 views"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(words: tuple[str, ...], line: str) -> None:
    called = call(*words)
    assert called.code == 2
    assert line in called.err and called.err.count("\n") == 1
    assert "Example" not in called.err, "help text"
