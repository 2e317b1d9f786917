"""Borders of the verdict: crossed without a jump, in words near them, and whatever the order of the rows."""

from __future__ import annotations

import json
from itertools import pairwise

import pytest
import torch

from collapse.verdicts_of import Rows, blemishes_of, power_law, randn, verdict_of
from fullrank.collapse import Panel, judge
from fullrank.collapse.spectrum_ends import abrupt_end
from fullrank.collapse.statistics import EmbeddingStatistics


def strong_direction(x: float, seed: int = 0) -> Rows:
    rows = randn(1000, 128, seed=seed)
    rows[:, 0] *= x
    return rows


def above_noise(x: float) -> Rows:
    return randn(1000, 4) @ randn(4, 128, seed=3) / 2 + x * randn(1000, 128, seed=7)


def beside_garbage(x: float) -> Rows:
    some = int(1000 * x)
    return torch.cat([randn(1000 - some, 2) @ randn(2, 64, seed=3), randn(some, 64, seed=5)])


def beside_far_rows(x: float) -> Rows:
    some = int(1000 * x)
    return torch.cat([randn(1000 - some, 2) @ randn(2, 64, seed=3), 1e3 * randn(some, 64, seed=5)])


FAMILIES = {
    "one strong direction": (strong_direction, (25, 35, 42, 46, 49, 52, 56, 64, 80, 140)),
    "an even floor": (above_noise, (0.5, 0.3, 0.24, 0.22, 0.2, 0.18, 0.16, 0.14, 0.12, 0.1, 0.05)),
    "rows off a plane": (beside_garbage, (0.2, 0.15, 0.12, 0.1, 0.09, 0.08, 0.07, 0.06, 0.051, 0.05)),
    "rows far out": (beside_far_rows, (0.2, 0.15, 0.12, 0.1, 0.09, 0.08, 0.07, 0.06, 0.051, 0.05)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_collapse_becomes_probable_without_a_cliff_and_says_so_near_the_border(family: str) -> None:
    make, steps = FAMILIES[family]
    verdicts = [verdict_of(make(x)) for x in steps]
    found = [verdict.probability or 0.0 for verdict in verdicts]
    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[-1] > 0.9
    assert max(later - earlier for earlier, later in pairwise(found)) < 0.3
    near = [verdict for verdict in verdicts if verdict.near_border]
    assert near
    for verdict in near:
        assert "near the border" in verdict.why


def test_seeds_move_a_probability_at_the_border_a_little() -> None:
    found = [verdict_of(strong_direction(49.0, seed)).probability or 0.0 for seed in range(6)]
    assert max(found) - min(found) < 0.3


def test_a_panel_keeps_what_its_probability_is_of() -> None:
    for rows in (strong_direction(49.0), beside_garbage(0.08), beside_far_rows(0.08)):
        seen = EmbeddingStatistics(rows.shape[1])
        seen.update(rows)
        seen.finish()
        panel = Panel.from_statistics("rows", seen)
        back = Panel.from_dict(json.loads(json.dumps(panel.as_dict())))
        assert judge(back) == judge(panel)


def long_rows(law: str, d: int = 64) -> Rows:
    rows = randn(2000, d)
    if law == "one degree of freedom":
        return rows / randn(2000, 1, seed=4).abs()
    if law == "lengths over decades":
        return rows * (3 * randn(2000, 1, seed=4)).exp()
    return rows / randn(2000, d, seed=4)  # Cauchy in every coordinate


@pytest.mark.parametrize("law", ["one degree of freedom", "lengths over decades", "Cauchy"])
def test_heavy_tails_are_said_and_hide_no_direction_in_any_order(law: str) -> None:
    rows = long_rows(law)
    turn = torch.linalg.qr(randn(64, 64, seed=8)).Q
    orders = [rows[torch.randperm(2000, generator=torch.Generator().manual_seed(seed))] for seed in range(3)]
    for each in (rows, rows @ turn, *orders):
        verdict = verdict_of(each)
        assert verdict.kind == "healthy"
        assert verdict.probability == pytest.approx(0, abs=0.01)
        blemishes = {blemish.name: blemish.says for blemish in verdict.blemishes}
        said = {"% of the rows are more", "rows lie up to"}  # those up to a twentieth are left out
        assert any(words in blemishes.get(name, "") for words in said for name in ("heavy tails", "outliers"))
        assert "twin dimensions" not in blemishes


@pytest.mark.parametrize("law", ["one degree of freedom", "lengths over decades"])
def test_heavy_tails_hide_no_collapse(law: str) -> None:
    lengths = long_rows(law)[:, :1] / randn(2000, 64)[:, :1]
    assert verdict_of(lengths * (randn(2000, 3, seed=6) @ randn(3, 64, seed=3))).kind == "dimensional"
    clusters = randn(10, 64, seed=1)[torch.arange(2000) % 10] + 0.05 * randn(2000, 64, seed=6)
    assert verdict_of(lengths * clusters).kind == "cluster"


def test_rows_without_heavy_tails_have_no_such_note() -> None:
    assert "heavy tails" not in blemishes_of(randn(2000, 64))
    assert "heavy tails" not in blemishes_of(power_law(2.0, 2000, 64))


@pytest.mark.parametrize("noise", [0.0, 1e-4])
@pytest.mark.parametrize("lengths", ["even", "log-normal"])
def test_rows_along_one_ray_are_said_to_differ_by_length_alone(noise: float, lengths: str) -> None:
    length = torch.rand(1000, 1, generator=torch.Generator().manual_seed(0))
    length = length + 0.01 if lengths == "even" else randn(1000, 1).exp()
    verdict = verdict_of(length * randn(1, 64, seed=3) + noise * randn(1000, 64, seed=5))
    assert verdict.kind == "complete"
    assert "only their length differs" in verdict.why


@pytest.mark.parametrize("noise", [0.0, 1e-3, 0.03])
def test_rows_that_are_nearly_one_are_not_said_to_differ_by_length(noise: float) -> None:
    verdict = verdict_of(randn(1, 64, seed=3) + noise * randn(1000, 64, seed=5))
    assert verdict.kind == "complete"
    assert "nearly one constant" in verdict.why


@pytest.mark.parametrize("count", [20, 49, 50, 51, 60])
@pytest.mark.parametrize("order", [0, 1, 2])
def test_the_number_of_clusters_and_the_kind_do_not_depend_on_the_order(count: int, order: int) -> None:
    place = torch.randint(count, (3000,), generator=torch.Generator().manual_seed(1))
    rows = randn(count, 64, seed=2)[place] + 0.02 * randn(3000, 64)
    verdict = verdict_of(rows[torch.randperm(3000, generator=torch.Generator().manual_seed(order))])
    assert verdict.kind == ("cluster" if count <= 50 else "intra-cluster")
    assert f"about {count} " in verdict.why


def test_idle_columns_change_no_number_of_clusters() -> None:
    place = torch.randint(12, (2000,), generator=torch.Generator().manual_seed(1))
    rows = randn(12, 2, seed=2)[place] + 0.005 * randn(2000, 2)
    alone, beside = verdict_of(rows), verdict_of(torch.cat([rows, torch.zeros(2000, 2)], dim=1))
    assert alone.kind == beside.kind == "cluster"
    assert alone.why.split(":")[0] == beside.why.split(":")[0]


def test_corners_are_counted_and_not_the_rows_between_them() -> None:
    verdict = verdict_of((20 * randn(2000, 64)).softmax(1))
    number = int(verdict.why.split("about ")[1].split()[0])
    assert number == pytest.approx(64, rel=0.15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("a", [5.0, 6.0, 8.0])
def test_the_precision_of_numbers_is_no_layer(a: float, dtype: torch.dtype) -> None:
    turn = torch.linalg.qr(randn(256, 256, seed=5).to(dtype)).Q
    verdict = verdict_of(power_law(a, 1000, 256).to(dtype) @ turn)
    assert verdict.kind == "dimensional"
    assert "of 256 directions" in verdict.why


@pytest.mark.parametrize("end", [32, 64, 128])
def test_an_end_far_above_the_precision_is_still_a_layer(end: int) -> None:
    spectrum = torch.cat([torch.arange(1, end + 1) ** -1.0, 1e-7 * torch.ones(256 - end)]).numpy()
    layer = abrupt_end(spectrum, n=2000)
    assert layer is not None
    assert layer.width == end


@pytest.mark.parametrize("rank", [1, 2, 3, 6])
def test_a_reason_cites_no_measure_that_the_table_finds_within_its_border(rank: int) -> None:
    verdict = verdict_of(randn(2000, rank) @ randn(rank, 64, seed=3))
    (participation,) = (each for each in verdict.evidence if each.metric == "participation_ratio")
    beyond = (participation.value or 0.0) < (participation.threshold or 0.0)
    assert ("participation ratio" in verdict.why) == beyond


@pytest.mark.parametrize("shift", [10.0, 20.0])
def test_groups_with_most_of_the_variance_within_are_no_tight_clusters(shift: float) -> None:
    away = torch.nn.functional.normalize(randn(1, 64, seed=5), dim=1)
    rows = randn(2000, 64) + shift * (torch.arange(2000) % 2)[:, None] * away
    assert verdict_of(rows).kind == "healthy"
    assert "clustered rows" not in blemishes_of(rows)
