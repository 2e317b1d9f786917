"""The lab of contrastive toys: its cells are the toys, its claims read their ends, and there is a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fullrank.jobs.once import run_once
from fullrank.labs import LABS
from fullrank.labs._common.lab import plan_jobs
from fullrank.labs._common.page import write_lab
from fullrank.labs._common.results import Result, Results, finished
from fullrank.labs.contrastive_toys.lab import ContrastiveToys, trained_toy
from fullrank.labs.contrastive_toys.toys import ContrastiveToy, train_contrastive

LAPTOP, PAPER, TINY = (ContrastiveToys.presets[name] for name in ("laptop", "paper", "tiny"))


def test_a_cell_trains_the_toy_that_its_arguments_name() -> None:
    toy = ContrastiveToy(dim=6, noisy_dims=2, noise=0.5, steps=20, record_every=10, seed=3)
    found, trained = trained_toy(vars(toy)), train_contrastive(toy)
    assert found["steps"] == [0, 10, 20] and found["live"] == trained.live.tolist()
    assert np.array(found["log_spectra"]) == pytest.approx(trained.log_spectra, abs=1e-4)


def test_the_published_sizes_are_in_every_preset_but_the_smallest() -> None:
    for preset in (LAPTOP, PAPER):
        for part in ("augmentation", "layers"):
            for cell in LABS["contrastive-toys"]().jobs(preset, part, 0):
                toy = ContrastiveToy(**cell.arguments["toy"])
                assert (toy.steps, toy.dim, toy.batch_size, toy.points) == (10_000, 16, 128, 10_000)
                assert toy.lr == (1e-3 if part == "augmentation" else 1e-2)


def test_the_paper_contrasts_360_of_2048_channels_among_others() -> None:
    found = [cell.config() for cell in LABS["contrastive-toys"]().jobs(PAPER, "directclr", 0)]
    assert any((c.options["num_channels"], c.batch_size, c.epochs) == (360, 4096, 100) for c in found)


def ended(arm: str, seed: int, live: int) -> Result:
    spectrum = [-1.0] * live + [-9.0] * (16 - live)
    numbers = {"steps": [0, 1], "live": [16, live], "log_spectra": [[-1.0] * 16, spectrum]}
    return Result("augmentation", arm, seed, Path("nowhere"), numbers, 1.0)


@pytest.mark.parametrize(("at_one", "at_half", "verdict"), [(8, 16, "confirmed"), (8, 15, "not confirmed")])
def test_the_first_amplitude_that_costs_a_direction_is_found(at_one: int, at_half: int, verdict: str) -> None:
    lives = {"noise 0.01": 16, "noise 0.5": at_half, "noise 1": at_one, "noise 1.5": 8}
    results = Results([ended(arm, seed, live) for seed in (0, 1) for arm, live in lives.items()])
    findings = LABS["contrastive-toys"]().analyse(results, LAPTOP)
    assert findings.claims[-1].verdict == verdict
    assert findings.claims[-1].numbers["onsets"] == [1.0 if at_half == 16 else 0.5] * 2
    assert [claim.verdict for claim in findings.claims[:2]] == ["confirmed"] * 2


def test_the_smallest_toys_come_to_a_page(tmp_path: Path) -> None:
    lab, parts = LABS["contrastive-toys"](), ["augmentation", "layers", "subvector"]
    wanted = plan_jobs(lab, TINY, parts, [0, 1])
    assert run_once(wanted, tmp_path, at_once=1) == {}
    results = Results([found for cell in wanted if (found := finished(cell, tmp_path))])
    plan = {"preset": "tiny", "settings": TINY, "parts": parts, "seeds": [0, 1]}
    told = write_lab("contrastive-toys", lab, plan, results, {}, tmp_path, figures=False)
    rows = told["tables"]["implicit-regularisation"]["rows"]
    assert [row[0] for row in rows][:2] == ["1 layer, decaying start", "2 layers, decaying start"]
    assert {"when-the-rank-starts-dropping", "spectra-from-uniform-starts"} <= told["figures"].keys()


@pytest.mark.slow
def test_the_table_of_the_toys_is_that_of_jing_et_al() -> None:
    """Counts of directions in use, of one seed; 13 and 7 from decaying starts, 8 of 16 under noise of 1.5."""
    found = {}
    for part in ("augmentation", "layers"):
        for cell in LABS["contrastive-toys"]().jobs(LAPTOP, part, 0):
            if cell.arm in ("noise 0.01", "noise 1.5") or "decaying" in cell.arm:
                found[cell.arm] = trained_toy(cell.arguments["toy"])
    counts = {arm: numbers["live"][-1] for arm, numbers in found.items()}
    assert counts == {
        "noise 0.01": 16, "noise 1.5": 8,
        "1 layer, decaying start": 16, "2 layers, decaying start": 13, "3 layers, decaying start": 7,
    }  # fmt: skip
    spectrum = found["noise 1.5"]["log_spectra"][-1]
    assert min(spectrum[:8]) > -2.3 and max(spectrum[8:]) < -4.3
