"""The lab of data orders: equal compute, orders that resuming keeps, and claims that its numbers decide."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fullrank.labs import LABS
from fullrank.labs._common.results import Result, Results
from fullrank.labs.data_order.figures import images_in_use
from fullrank.training.setup import data_order
from labs.fake_runs import CONFIG, write_run

LAB = LABS["data-order"]()
ORDERS = ("iid", "single-pass", "hybrid", "cumulative", "last-fraction")


def results(tmp_path: Path, auc: Mapping[str, list[float]], accuracy: Mapping[str, list[float]]) -> Results:
    found = []
    for arm, by_seed in auc.items():
        for seed, value in enumerate(by_seed):
            folder = tmp_path / f"{arm}-{seed}"
            write_run(folder / "run", [0.9, 0.8, value], [0.1, 0.2, accuracy[arm][seed]], seed=seed)
            found.append(Result("", arm, seed, folder))
    return Results(found)


def verdicts(
    tmp_path: Path, auc: Mapping[str, list[float]], accuracy: Mapping[str, list[float]]
) -> list[str]:
    claims = LAB.analyse(results(tmp_path, auc, accuracy), LAB.presets["tiny"]).claims
    return [claim.verdict for claim in claims]


@pytest.mark.parametrize("preset", list(LAB.presets))
def test_every_order_is_there_but_in_tiny_and_all_take_the_same_number_of_steps(preset: str) -> None:
    jobs = list(LAB.jobs(LAB.presets[preset], "", 0))
    orders = [data_order(job.config(), 120_000) for job in jobs]
    assert len({(order.steps, job.config().epochs) for order, job in zip(orders, jobs, strict=True)}) == 1
    assert preset == "tiny" or {order.kind for order in orders} == set(ORDERS)
    assert preset == "tiny" or {order.n_rounds for order in orders} == {1, 2}


@pytest.mark.parametrize("preset", ["laptop", "paper"])
def test_the_hybrid_switches_where_the_paper_does_after_two_fifths_of_the_epochs(preset: str) -> None:
    settings = LAB.presets[preset]
    assert settings["arms"]["hybrid"]["switch_epoch"] == 0.4 * settings["run"]["epochs"]


@pytest.mark.parametrize("kind", ORDERS)
def test_which_images_are_in_use_is_known_by_epoch(kind: str) -> None:
    config = {**CONFIG, "epochs": 5, "order": kind, "switch_epoch": 2}
    now, so_far = images_in_use(config)
    expected = {
        "iid": ([1.0] * 5, [1.0] * 5),
        "single-pass": ([0.2] * 5, [0.2, 0.4, 0.6, 0.8, 1.0]),
        "hybrid": ([0.2, 0.2, 1.0, 1.0, 1.0], [0.2, 0.4, 1.0, 1.0, 1.0]),
        "cumulative": ([0.2, 0.4, 0.6, 0.8, 1.0], [0.2, 0.4, 0.6, 0.8, 1.0]),
        "last-fraction": ([0.2] * 5, [0.2] * 5),
    }[kind]
    assert list(now) == [1, 2, 3, 4, 5]
    assert (list(now.values()), list(so_far.values())) == expected


def test_orders_that_keep_rank_and_gain_accuracy_on_every_seed_confirm_the_paper(tmp_path: Path) -> None:
    auc = {"iid": [0.8, 0.9], "single pass": [0.7, 0.8], "hybrid": [0.75, 0.7]}
    accuracy = {"iid": [0.3, 0.4], "single pass": [0.35, 0.5], "hybrid": [0.5, 0.6]}
    assert verdicts(tmp_path, auc, accuracy) == ["confirmed"] * 4


def test_orders_that_lose_rank_are_not_confirmed_and_seeds_at_odds_decide_nothing(
    tmp_path: Path,
) -> None:
    auc = {"iid": [0.7, 0.8], "single pass": [0.8, 0.9], "hybrid": [0.6, 0.9]}
    accuracy = {"iid": [0.5, 0.5], "single pass": [0.4, 0.4], "hybrid": [0.3, 0.45]}
    found = verdicts(tmp_path, auc, accuracy)
    assert found == ["not confirmed", "not decidable", "not confirmed", "not decidable"]


def test_a_seed_that_lacks_an_order_is_not_compared(tmp_path: Path) -> None:
    auc = {"iid": [0.8, 0.9], "single pass": [0.7]}
    accuracy = {"iid": [0.3, 0.4], "single pass": [0.5]}
    claim = LAB.analyse(results(tmp_path, auc, accuracy), LAB.presets["tiny"]).claims[0]
    assert claim.numbers["these"] == [0.8] and claim.numbers["those"] == [0.7]


def test_the_figures_hold_accuracy_and_auc_along_training_and_where_the_hybrid_switches(
    tmp_path: Path,
) -> None:
    auc = {arm: [0.7, 0.6] for arm in ("iid", "single pass", "hybrid")}
    accuracy = {arm: [0.4, 0.5] for arm in auc}
    figures: dict[str, Any] = dict(
        LAB.analyse(results(tmp_path, auc, accuracy), LAB.presets["tiny"]).figures()
    )
    along = figures["AUC"].series[0]
    assert (along.x, along.ys) == ([0, 1, 2], [[0.9, 0.8, 0.7], [0.9, 0.8, 0.6]])
    assert figures["Linear accuracy"].series[2].ys == [[0.2, 0.4], [0.2, 0.5]]
    assert figures["AUC"].references == {"isotropic": 0.6}
    assert list(figures["AUC, hybrid against multi-epoch"].marks.values()) == [1.0]
    assert figures["Cumulative curve"].series[0].ys[0] == pytest.approx([0, 3 / 6.5, 5 / 6.5, 6 / 6.5, 1])
