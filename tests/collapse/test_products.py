"""What makes an audit quick leaves its numbers as they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fullrank.collapse.baselines import COMPARED, TABLE, TABLED_POINTS, baseline, compared, tabled
from fullrank.collapse.metrics import METRICS, OF_MOMENTS
from fullrank.collapse.metrics.gaussian import sigreg
from fullrank.collapse.metrics.neighbours import neighbour_distances
from fullrank.collapse.metrics.sphere import coherence, self_cluster, self_cluster_centred, uniformity
from fullrank.collapse.moments import Moments

Drawn = Callable[..., torch.Tensor]
OF_ROWS = [name for name, metric in METRICS.items() if metric.needs in OF_MOMENTS]


@pytest.mark.parametrize("kind", ["isotropic", "power-law"])
def test_the_table_of_baselines_holds_what_is_computed(kind: str) -> None:
    for name in (name for name, metric in METRICS.items() if metric.needs in COMPARED):
        known = tabled(name, TABLED_POINTS, 128, kind)
        if known is not None:
            assert compared(name, TABLED_POINTS, 128, kind) == pytest.approx(known, rel=1e-8), name


@pytest.mark.slow
@pytest.mark.parametrize("d", [192, 256, 320, 384, 512, 640, 768, 1024, 1280, 1536, 2048])
def test_the_table_of_baselines_holds_what_is_computed_for_every_width(d: int) -> None:
    for kind in ("isotropic", "power-law"):
        for name in (name for name, metric in METRICS.items() if metric.needs in COMPARED):
            known = tabled(name, TABLED_POINTS, d, kind)
            if known is not None:
                assert compared(name, TABLED_POINTS, d, kind) == pytest.approx(known, rel=1e-8), name


def test_an_audit_takes_a_baseline_from_the_table() -> None:
    assert TABLE.is_file()
    known = tabled("coherence", TABLED_POINTS, 768, "power-law")
    assert known is not None
    assert baseline("coherence", 9000, 768, TABLED_POINTS, kind="power-law") == known


def test_sigreg_is_the_sum_of_its_definition(gaussian: Drawn) -> None:
    z, generator = gaussian(300, 6).double(), torch.Generator().manual_seed(0)
    a = torch.randn(6, 256, generator=generator, dtype=torch.float64)
    x = z @ (a / a.norm(dim=0))
    t = torch.linspace(0, 3, 17, dtype=torch.float64)
    target = (-t * t / 2).exp()
    waves = torch.exp(1j * t[:, None, None] * x).mean(1)
    gaps = (waves - target[:, None]).abs().square().mean(1) * target
    assert sigreg(z) == pytest.approx(2 * 300 * float(torch.trapezoid(gaps, t)), rel=1e-10)


def test_distances_of_rows_that_nearly_agree_are_exact(gaussian: Drawn) -> None:
    z = gaussian(200, 12).double()
    z = torch.cat([z, z[:40] + 1e-7 * gaussian(40, 12, seed=1)]) + 1e4
    expected = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1).values[:, 1:4]
    torch.testing.assert_close(neighbour_distances(z, 3), expected, rtol=1e-9, atol=0)


def test_distances_beside_rows_far_away_are_exact(gaussian: Drawn) -> None:
    z = gaussian(200, 12).double()
    z[::20] *= 1e6
    expected = torch.cdist(z, z, compute_mode="donot_use_mm_for_euclid_dist").sort(dim=1).values[:, 1:4]
    torch.testing.assert_close(neighbour_distances(z, 3), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("n", "d"), [(50, 20), (20, 50), (20, 20)])
def test_coherence_is_that_of_the_singular_vectors(gaussian: Drawn, n: int, d: int) -> None:
    z = gaussian(n, d).double()
    u = torch.linalg.svd(z, full_matrices=False)[0]
    expected = float(u.square().sum(1).max()) * n / min(n, d)
    assert coherence(z) == pytest.approx(expected, rel=1e-9)


def test_uniformity_is_the_mean_over_pairs(gaussian: Drawn) -> None:
    z = gaussian(400, 7).double()
    unit = z / z.norm(dim=1, keepdim=True)
    pairs = torch.nn.functional.pdist(unit).square()
    assert uniformity(z) == pytest.approx(math.log(float((-2 * pairs).exp().mean())), rel=1e-10)


@pytest.mark.parametrize(("n", "d"), [(50, 20), (20, 50)])
def test_self_cluster_of_centred_rows_is_that_of_the_rows_less_their_mean(
    gaussian: Drawn, n: int, d: int
) -> None:
    z = gaussian(n, d).double() + 2
    assert self_cluster_centred(z) == pytest.approx(self_cluster(z - z.mean(0)), rel=1e-9, abs=1e-12)


def test_eigenvalues_are_those_of_a_decomposition_of_the_rows(gaussian: Drawn) -> None:
    for n, d in ((30, 50), (50, 30)):
        z = gaussian(n, d).double()
        found = Moments.of(z).singular_values(centred=False)
        np.testing.assert_allclose(found, np.linalg.svd(z.numpy(), compute_uv=False), rtol=1e-9)
