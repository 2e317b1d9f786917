"""Verdicts: the known cases are named right, and nobody is accused on too few rows."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from expect import known
from fullrank.collapse import Moments, Panel, Thresholds, Verdict, judge
from fullrank.errors import UsageError

Rows = Callable[..., torch.Tensor]
N, D = 4096, 512


def panel_of(z: torch.Tensor, tap: str = "projector") -> Panel:
    return Panel.from_moments(tap, Moments.of(z), points=z[:1024])


def kind(z: torch.Tensor, **options: Any) -> str:
    return judge(panel_of(z), **options).kind


def power_law(z: torch.Tensor, exponent: float = 1.0) -> torch.Tensor:
    """Isotropic rows, scaled to covariance eigenvalues k^-exponent in rotated coordinates."""
    seeded = torch.Generator().manual_seed(9)
    q: torch.Tensor = torch.linalg.qr(torch.randn(z.shape[1], z.shape[1], generator=seeded)).Q
    return z * torch.arange(1, z.shape[1] + 1).pow(-exponent / 2) @ q.to(z.dtype)


def clusters(z: torch.Tensor, count: int, spread: float) -> torch.Tensor:
    centres = torch.randn(count, z.shape[1], generator=torch.Generator().manual_seed(5), dtype=z.dtype)
    return centres[torch.arange(len(z)) % count] + spread * z


def test_the_measured_cases_of_the_landscape_are_judged_right(gaussian: Rows, low_rank: Rows) -> None:
    z, constant = gaussian(N, D), gaussian(1, D, seed=7)
    assert kind(z) == "healthy"
    healthy = panel_of(power_law(z))
    assert healthy.value("rankme_unit") == pytest.approx(413, rel=0.03)
    assert judge(healthy).kind == "healthy"
    assert kind(z + 10) == "healthy"  # cosines of 0.99, but no direction is lost
    assert kind(z + 40) == "complete"
    assert kind(constant.expand(N, D)) == "complete"
    noisy = panel_of(constant + 1e-3 * z)
    assert known(noisy.value("erank_centred")) > 500  # the trap: noise around a constant has full rank
    assert judge(noisy).kind == "complete"
    assert kind(low_rank(N, D, 8)) == "dimensional"
    assert kind(clusters(z, 10, 0.01)) == "cluster"  # level 0.93


@pytest.mark.parametrize("d", [2, 3, 8, 16, 64])
def test_rank_one_is_dimensional_in_any_width(gaussian: Rows, low_rank: Rows, d: int) -> None:
    assert kind(low_rank(200, d, 1)) == "dimensional"
    assert kind(gaussian(200, d)) == "healthy"


def test_one_dimension_has_no_directions_to_lose(gaussian: Rows) -> None:
    assert kind(gaussian(100, 1)) == "healthy"


def test_one_dimension_that_never_changes_sign_is_no_collapse() -> None:
    verdict = judge(panel_of(torch.rand(100, 1, generator=torch.Generator().manual_seed(0)) + 0.5))
    assert verdict.kind == "healthy"


def test_earlier_panels_of_one_dimension_count_though_their_level_is_0() -> None:
    past, now = (
        panel_of(torch.rand(100, 1, generator=torch.Generator().manual_seed(seed)) + 0.5 + seed)
        for seed in (0, 1)
    )
    (share,) = (each for each in judge(now, [past]).evidence if each.metric == "centred_share")
    assert known(share.trend) < -0.3


def test_all_zero_is_complete() -> None:
    assert kind(torch.zeros(100, 8)) == "complete"


def test_few_rows_are_judged_by_what_so_few_rows_can_show(gaussian: Rows, low_rank: Rows) -> None:
    n, d = 64, 1024
    assert kind(gaussian(n, d)) == "healthy"
    assert kind(low_rank(n, d, 2)) == "dimensional"  # rows enough to have shown 60 directions, they show 2
    assert kind(gaussian(200, d)) == "healthy"
    assert kind(gaussian(31, 4)) == "not decidable"
    assert kind(torch.ones(1, 4)) == "not decidable"


def test_an_untrained_network_is_not_judged() -> None:
    verdict = judge(panel_of(torch.ones(100, 4)), trained=False)
    assert (verdict.kind, verdict.why) == ("not decidable", "no step taken yet")
    assert verdict.evidence  # but measured


def test_a_falling_rank_is_named_before_it_is_low(gaussian: Rows) -> None:
    d = 64
    history = [
        panel_of(gaussian(1000, d)[:, :k] @ torch.eye(k, d, dtype=torch.float64)) for k in (64, 60, 50)
    ]
    now = panel_of(gaussian(1000, d)[:, :12] @ torch.eye(12, d, dtype=torch.float64))
    assert judge(now).kind == "healthy"
    assert judge(history[2], history[:2]).kind == "healthy"
    fallen = judge(now, history)
    assert known(fallen.probability) > known(judge(now).probability)
    assert fallen.kind == "dimensional"
    assert "below its best" in fallen.why
    assert judge(now, history, Thresholds(erank_fall=0.9)).kind == "healthy"


def test_a_rank_that_settles_well_above_the_threshold_accuses_nobody(gaussian: Rows) -> None:
    d = 64
    high, settled = (
        panel_of(gaussian(1000, d)[:, :k] @ torch.eye(k, d, dtype=torch.float64)) for k in (64, 30)
    )
    assert judge(settled, [high]).kind == "healthy"


def test_fewer_rows_are_no_fall(gaussian: Rows) -> None:
    z = gaussian(2000, 64)
    assert judge(panel_of(z[:64]), [panel_of(z)]).kind == "healthy"
    assert judge(panel_of(z), [panel_of(gaussian(2000, 128))]).evidence[0].trend is None  # another width


def test_the_rank_of_noise_around_a_constant_is_no_best_to_fall_from(gaussian: Rows) -> None:
    z = gaussian(1000, 64)
    start = panel_of(10 + z)  # complete, with a centred rank of 64
    assert known(start.value("erank_centred")) > 60
    assert judge(panel_of(z * (torch.arange(64) < 30)), [start]).kind == "healthy"


def test_norms_do_not_hide_a_collapse_and_do_not_make_one(gaussian: Rows) -> None:
    z = gaussian(1000, 32)
    scale = torch.logspace(-1, 1, 1000)[:, None]
    assert kind(z * scale) == "healthy"
    assert kind(torch.ones(1000, 32) * scale) == "complete"


def test_the_evidence_holds_every_measure_beside_its_null(low_rank: Rows) -> None:
    history = [panel_of(low_rank(600, 64, 32))]
    verdict = judge(panel_of(low_rank(600, 64, 4)), history)
    evidence = {item.metric: item for item in verdict.evidence}
    assert set(evidence) >= {"level", "centred_share", "erank_centred", "rankme_unit", "participation_ratio"}
    rank = evidence["rankme_unit"]
    assert rank.value == pytest.approx(4, rel=0.02)
    assert rank.null == pytest.approx(64, rel=0.05)
    assert 12 < known(rank.threshold) < 20  # 12 in an audit, which does not know that it fell
    assert rank.trend == pytest.approx(4 / 32 - 1, rel=0.03)
    assert rank.says.startswith("below the border by itself; decays as k^-4")
    assert rank.says.endswith("87% below its best before")
    assert evidence["auc"].threshold is None
    assert verdict.collapsed
    assert str(verdict).startswith("projector: dimensional collapse: 4.")
    assert "\n" not in str(verdict)
    assert json.loads(json.dumps(verdict.as_dict()))["evidence"][0]["metric"] == "level"


def test_every_threshold_is_a_knob(gaussian: Rows) -> None:
    z = gaussian(500, 32)
    assert kind(z, thresholds=Thresholds(level=2.0)) == "complete"
    assert kind(z, thresholds=Thresholds(centred_share=1.5)) == "complete"
    assert kind(z, thresholds=Thresholds(decay=0.0)) == "dimensional"
    points = gaussian(20, 32)[torch.arange(500) % 20]
    assert kind(points) == "cluster"
    assert kind(points, thresholds=Thresholds(jump=20.0)) == "healthy"
    assert kind(z, thresholds=Thresholds(fewest_rows=501)) == "not decidable"
    with pytest.raises(UsageError, match="level"):
        Thresholds(level=float("nan"))


def test_the_narrowest_layer_before_the_rows_has_one_number_or_more(gaussian: Rows) -> None:
    z = gaussian(50, 4)
    assert Panel.from_moments("encoder", Moments.of(z), narrowest=1).n == 50
    with pytest.raises(UsageError, match="1 wide or more, not 0"):
        Panel.from_moments("encoder", Moments.of(z), narrowest=0)


def test_the_panel_comes_back_from_json_and_judges_alike(low_rank: Rows) -> None:
    z = low_rank(300, 16, 3)
    panel = Panel.from_moments("backbone", Moments.of(z), points=z, pairs=(z, 2 * z))
    back = Panel.from_dict(json.loads(json.dumps(panel.as_dict())))
    assert back == panel
    assert judge(back) == judge(panel)
    assert back.measures["uniformity"].n == 300
    assert panel.spectra["unit"].shape == panel.spectra["centred"].shape == (16,)
    assert (panel.spectra["unit"] ** 2).sum() == pytest.approx(1)


def test_a_verdict_is_plain_data() -> None:
    assert Verdict("healthy", "z", "why").as_dict() == {
        "kind": "healthy",
        "tap": "z",
        "severity": 0.0,
        "probability": None,
        "why": "why",
        "evidence": [],
        "blemishes": [],
    }


@pytest.mark.parametrize(("count", "named"), [(49.6, "cluster"), (50.4, "cluster"), (50.6, "intra-cluster")])
def test_as_many_clusters_decide_as_are_said(gaussian: Rows, count: float, named: str) -> None:
    panel = panel_of(clusters(gaussian(N, 64), 40, 0.01))
    assert panel.clusters is not None
    verdict = judge(replace(panel, clusters=replace(panel.clusters, count=count)))
    assert verdict.kind == named
    assert f"about {round(count)} " in verdict.why
