"""Both branches as the loss compares them: filters with a known answer, curves that end where they do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fullrank.jobs.job import Job
from fullrank.jobs.once import run_once
from fullrank.labs import LABS
from fullrank.labs._common.lab import plan_jobs
from fullrank.labs._common.results import Result, finished
from fullrank.labs.rank_difference.branches import along, branches, rank, spectral_filter
from fullrank.labs.rank_difference.lab import FILTERS, RankDifference
from fullrank.networks.correlation import filter_rows, right_singular

LAPTOP, PAPER, TINY = (RankDifference.presets[name] for name in ("laptop", "paper", "tiny"))


def rows(n: int = 400, d: int = 6, seed: int = 0) -> torch.Tensor:
    z = torch.randn(n, d, generator=torch.Generator().manual_seed(seed)).double()
    z = z * torch.tensor([8.0, 5, 3, 2, 1, 0.5])[:d]
    return z - z.mean(0)


@pytest.mark.parametrize("sigma", [-0.5, 0.5, 1.0])
def test_a_power_filter_is_found_again_by_its_singular_values(sigma: float) -> None:
    z = rows()
    s, v = right_singular(z)
    found = spectral_filter(filter_rows(z, s, v, "poly", sigma), z)
    assert np.array(found["filter"]) == pytest.approx(((s / s[0]) ** sigma).numpy(), rel=1e-4)
    assert np.sign(found["tilt"]) == np.sign(sigma)


def test_the_same_branch_twice_passes_everything_whatever_its_directions() -> None:
    q = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)).double())[0]
    found = spectral_filter(rows() @ q, rows() @ q)
    assert found["filter"] == pytest.approx([1.0] * len(found["filter"]))
    assert found["tilt"] == pytest.approx(0.0, abs=1e-9)


def test_a_constant_branch_has_neither_rank_nor_filter() -> None:
    constant = torch.ones(50, 6)
    assert rank(constant) is None and rank(constant + 1e-9) is None
    found = spectral_filter(constant, rows(50))
    assert found["filter"] == [] and found["tilt"] is None and found["plain_tilt"] is None


def test_the_rank_is_the_exponential_of_the_entropy_of_singular_values() -> None:
    z = rows()
    s = np.linalg.svd(z.numpy(), compute_uv=False)
    p = s / s.sum()
    assert rank(z) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_the_paper_preset_has_the_filters_of_its_script() -> None:
    jobs = {job.arm: job.config() for job in LABS["rank-difference"]().jobs(PAPER, "filters", 0)}
    sigmas = {c.options["sigma"] for c in jobs.values() if c.options["pred_location"] == "target"}
    kinds = {c.options["pred_type"] for c in jobs.values() if c.options["pred_location"] == "online"}
    assert sigmas == {-1.0, -0.7, -0.5, -0.3} and kinds == {"poly", "log", "log_1"}
    assert len(jobs) == 2 * len(FILTERS) and {c.epochs for c in jobs.values()} == {400}


WHITENED = "RDM-SimSiam: target, 1 / S"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    out, lab = tmp_path_factory.mktemp("lab"), LABS["rank-difference"]()
    wanted = ("SimSiam", "SimSiam, no predictor", WHITENED)
    jobs = [c for c in plan_jobs(lab, TINY, list(lab.parts), [0]) if c.arm in wanted]
    assert run_once(jobs, out, at_once=1) == {}
    return {job.arm: found for job in jobs if (found := finished(job, out))}


def test_without_a_predictor_there_is_no_difference(trained: dict[str, Result]) -> None:
    found = trained["SimSiam, no predictor"]
    assert set(along(found).values()) == {0.0} and found.numbers["trained"]["difference"] == 0.0


def test_the_curve_ends_where_the_branches_are_measured(trained: dict[str, Result]) -> None:
    """Of taps it is the same number; of a filter, up to what centring does to a batch."""
    for arm, near in (("SimSiam", 1e-3), (WHITENED, 1.5)):
        found = trained[arm]
        curve = along(found)
        assert sorted(curve) == [0, 1, 2]
        for epoch, time in ((0, "untrained"), (2, "trained")):
            assert curve[epoch] == pytest.approx(found.numbers[time]["difference"], abs=near)


def test_a_whitened_target_has_the_full_rank(trained: dict[str, Result]) -> None:
    found = trained[WHITENED]
    assert found.numbers["trained"]["target"] > 62.5 > found.numbers["trained"]["online"]  # of 64


@pytest.mark.slow
def test_dino_and_swav_are_compared_as_distributions_over_prototypes(tmp_path: Path) -> None:
    settings: Any = TINY["run"]
    base = {**settings, "data": "shapes"}
    jobs = [Job(name, 0, {"recipe": f"shapes/{name}", **base}, branches) for name in ("dino", "swav")]
    assert run_once(jobs, tmp_path, at_once=1) == {}
    for job in jobs:
        found = finished(job, tmp_path)
        assert found is not None and along(found) == {}
        width = 256 if job.arm == "dino" else 300
        assert all(1 <= found.numbers["trained"][side] < width for side in ("online", "target"))
