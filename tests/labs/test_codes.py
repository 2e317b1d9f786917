"""The lab of codes: the loss floor, what is measured of codes, and claims that its numbers decide."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import normalized_mutual_info_score

from fullrank.errors import UsageError
from fullrank.jobs.job import Job
from fullrank.labs import LABS
from fullrank.labs._common.results import Result, Results
from fullrank.labs._common.trained import held_out_batches, reopen
from fullrank.labs.codes.measures import cosines_by_class, loss_floor, of_codes, standardised_covariance
from fullrank.training.run import train
from labs.fake_runs import write_run
from methods.code_scores import loss_of_scores

LAB = LABS["codes"]()
RUN = {
    "recipe": "shapes/cplearn",
    "limit": 96,
    "batch_size": 32,
    "epochs": 1,
    "warmup_epochs": 0,
    "knn_every": 0,
}


@pytest.mark.parametrize(("codes", "rows"), [(16, 4), (64, 64), (1024, 8)])
def test_images_with_a_code_each_reach_the_floor_of_the_loss(codes: int, rows: int) -> None:
    one_hot = 1000.0 * torch.eye(codes)[:rows]
    assert loss_of_scores([one_hot, one_hot])["loss"].item() == pytest.approx(
        loss_floor(codes, rows), abs=1e-5
    )


@pytest.mark.parametrize("scale", [0.0, 1.0, 10.0, 300.0])
@pytest.mark.parametrize(("codes", "rows"), [(8, 32), (64, 4)])
def test_no_scores_come_below_the_floor_whether_views_agree_or_not(
    codes: int, rows: int, scale: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        z1, z2 = (scale * torch.randn(rows, codes, generator=generator).double() for _ in range(2))
        for views in ([z1, z1], [z1, z2]):
            assert loss_of_scores(views)["loss"].item() >= loss_floor(codes, rows) - 1e-5


def test_the_covariance_is_that_of_numpy_and_a_dead_dimension_shows_nothing() -> None:
    rows = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
    assert standardised_covariance(rows).numpy() == pytest.approx(np.corrcoef(rows.numpy().T))
    rows[:, 2] = 3.0
    found = standardised_covariance(rows)
    assert not found[2].any() and not found[:, 2].any() and found[0, 0] == pytest.approx(1.0)


def test_the_adjacency_shows_a_block_for_each_class() -> None:
    labels = torch.arange(3).repeat(10)
    found = cosines_by_class(torch.eye(3)[labels], labels, most=9)
    blocks = torch.block_diag(*[torch.ones(3, 3)] * 3)
    assert found.shape == (9, 9) and torch.equal(found > 0.5, blocks > 0)


def test_what_is_measured_of_a_run_is_of_its_codes_on_held_out_images(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    train(Job("a", 0, {**RUN, "options": {"num_codes": 20, "embedding_dim": 16}}).config(), tmp_path / "run")
    found = of_codes(tmp_path / "run", [1, 5, 10_000])
    s = reopen(tmp_path / "run")
    with torch.no_grad():
        codes = torch.cat([s.method.embed(s.views.clean(x))["codes"] for x in held_out_batches(s, 5000)])
    first = codes.argmax(1).numpy()
    assert found["agreement"]["nmi"] == pytest.approx(
        normalized_mutual_info_score(s.data.held_out.labels, first)
    )
    assert found["usage"]["n"] == len(codes) and found["usage"]["codes"] == 20
    assert set(found["mixture"]) == set(found["legacy"]) == {1, 5}
    m, width = np.shape(found["adjacency"])
    assert np.shape(found["covariance"]) == (16, 16) and 50 < m == width <= len(codes)
    assert 0 < found["off_diagonal"] < 1
    json.dumps(found, allow_nan=False)


def test_a_method_without_codes_is_refused_in_one_line(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    train(Job("a", 0, {**RUN, "recipe": "shapes/simsiam"}).config(), tmp_path / "run")
    with pytest.raises(UsageError, match="simsiam has no codes"):
        of_codes(tmp_path / "run", [1])


def results(tmp_path: Path, ranks: dict[int, list[float]], better: bool = True) -> Results:
    found = []
    for place, (size, by_seed) in enumerate(ranks.items()):
        score = 0.3 + 0.1 * (place if better else -place)
        numbers = {
            "agreement": {"nmi": score, "ami": score},
            "usage": {"perplexity": 5.0},
            "mixture": {"1": -1.0, "10": -2.0 + score},
            "legacy": {"1": -9000.0, "10": -9100.0},
            "off_diagonal": 1 - score,
            "covariance": [[1.0]],
            "adjacency": [[1.0]],
        }
        for seed, rank in enumerate(by_seed):
            folder = tmp_path / f"{size}-{seed}"
            write_run(folder / "run", [0.9, 0.8], [0.1, score], 5.0, rank, options={"num_codes": size})
            found.append(Result("", f"{size} codes", seed, folder, numbers))
    return Results(found)


def test_larger_dictionaries_that_are_better_in_all_confirm_the_paper(tmp_path: Path) -> None:
    claims = LAB.analyse(results(tmp_path, {10: [2.0, 3.0], 100: [3.0, 4.0], 1000: [4.0, 5.0]}), {}).claims
    assert [claim.verdict for claim in claims] == ["confirmed"] * 7


def test_those_that_are_worse_refute_it_and_a_dip_in_between_refutes_only_the_order(tmp_path: Path) -> None:
    worse = LAB.analyse(results(tmp_path / "a", {10: [5.0, 6.0], 100: [3.0, 4.0]}, better=False), {}).claims
    assert [claim.verdict for claim in worse] == ["not confirmed"] * 7
    dip = LAB.analyse(results(tmp_path / "b", {10: [2.0, 2.0], 100: [1.0, 1.0], 1000: [4.0, 5.0]}), {}).claims
    assert [claim.verdict for claim in dip[:2]] == ["confirmed", "not confirmed"]


def test_losses_are_drawn_above_the_floor_of_their_dictionary(tmp_path: Path) -> None:
    figures: dict[str, Any] = dict(LAB.analyse(results(tmp_path, {10: [2.0], 1024: [3.0]}), {}).figures())
    above = {series.name: series.ys for series in figures["Loss above its floor"].series}
    assert above == {"10 codes": [[5.0]], "1024 codes": [[pytest.approx(5.0 - math.log(1024 / 64))]]}
