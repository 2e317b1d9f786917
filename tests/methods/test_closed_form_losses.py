"""The losses of the closed-form methods, and what the factor that IsoLoss leaves out does."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from fullrank.errors import UsageError
from fullrank.methods import StepInfo, build_method, regression_loss
from fullrank.methods.isoloss import isoloss_cosine, isoloss_euclidean
from fullrank.networks.correlation import (
    spectral_predictor,
)
from methods.test_closed_form import (
    closed_form,
    correlation,
    doubles,
    rows,
)

# the losses


def directions(seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """z with gradient, Wp, and a target."""
    return rows(seed).requires_grad_(), spectral_predictor(correlation(seed + 1), 0.5, 0.05), rows(seed + 2)


@pytest.mark.parametrize("seed", range(3))
def test_the_isotropic_cosine_gradient_is_directpreds_without_the_predictor_as_a_factor(seed: int) -> None:
    z, wp, t = directions(seed)
    p = z @ wp
    iso = torch.autograd.grad(isoloss_cosine(z, p, (z * p).sum(1), t), z, retain_graph=True)[0]
    cos = torch.autograd.grad(regression_loss(p, t), z)[0]
    torch.testing.assert_close(iso @ wp, cos)


@pytest.mark.parametrize("seed", range(3))
def test_the_isotropic_euclidean_gradient_is_twice_the_error_over_the_batch(seed: int) -> None:
    z, wp, t = directions(seed)
    p = z @ wp
    iso = torch.autograd.grad(isoloss_euclidean(z, p, t), z, retain_graph=True)[0]
    torch.testing.assert_close(iso, 2.0 * (p - t).detach() / len(z))
    torch.testing.assert_close(iso @ wp, torch.autograd.grad(regression_loss(p, t, "euclidean"), z)[0])


def test_the_isotropic_euclidean_value_is_the_squared_distance() -> None:
    z, wp, t = directions()
    p = z @ wp
    torch.testing.assert_close(isoloss_euclidean(z, p, t), (p - t).square().sum(1).mean())


def test_the_isotropic_cosine_value_is_minus_the_attraction_without_its_restraint() -> None:
    z, wp, t = directions()
    p = (z @ wp).detach()
    attraction = (z * t).sum(1) / (p.norm(dim=1) * t.norm(dim=1))
    energy = torch.einsum("ni,ij,nj->n", z, wp, z)
    restraint = 0.5 * (p * t).sum(1) / (p.norm(dim=1) ** 3 * t.norm(dim=1)) * energy
    torch.testing.assert_close(isoloss_cosine(z, p, energy, t), -2 * (attraction - restraint).mean())


@pytest.mark.parametrize("scale", [1e-15, 1e-12, 1e12, 1e15])
def test_the_isotropic_cosine_does_not_see_the_scale_of_the_rows_even_in_single_precision(
    scale: float,
) -> None:
    z, wp, t = (tensor.detach().float() for tensor in directions())

    def value_and_gradient(scale: float) -> tuple[Tensor, Tensor]:
        x = (scale * z).requires_grad_()
        p = x @ wp
        loss = isoloss_cosine(x, p, (x * p).sum(1), t)
        return loss, scale * torch.autograd.grad(loss, x)[0]

    torch.testing.assert_close(value_and_gradient(scale), value_and_gradient(1.0), rtol=1e-4, atol=1e-5)


def test_a_dead_row_has_neither_value_nor_gradient_in_the_isotropic_cosine() -> None:
    z, wp, t = directions()
    z = torch.cat([z.detach()[:-1], torch.zeros(1, 6, dtype=torch.float64)]).requires_grad_()
    p = z @ wp
    loss = isoloss_cosine(z, p, (z * p).sum(1), t)
    alive = isoloss_cosine(z[:-1], p[:-1], (z * p).sum(1)[:-1], t[:-1])
    torch.testing.assert_close(loss, alive * (len(z) - 1) / len(z))
    gradient = torch.autograd.grad(loss, z)[0]
    assert gradient.isfinite().all()
    assert not gradient[-1].any()


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
@pytest.mark.parametrize("alpha", [0.5, 1.0])
def test_isoloss_trains_projections_by_directpreds_gradient_without_the_factor(
    distance: str, alpha: float
) -> None:
    gradients = {}
    for name in ("directpred", "isoloss"):
        m = closed_form(name, update="step", distance=distance, alpha=alpha, eps=0.1)
        step = m.loss(doubles())
        gradients[name] = torch.autograd.grad(step.loss, step.taps["projector"])[0]
    torch.testing.assert_close(gradients["isoloss"] @ m.predictor_matrix(), gradients["directpred"])


@pytest.mark.parametrize("distance", ["cosine", "euclidean"])
def test_directpred_sums_byols_regression_over_both_directions(distance: str) -> None:
    m, (a, b) = closed_form("directpred", update="step", distance=distance), doubles()
    with torch.no_grad():
        for p in m.target.parameters():
            p.add_(torch.randn_like(p))  # away from the online network, lest they be confused
        targets = [m.target["projector"](m.target["backbone"](view)) for view in (a, b)]
        z = [m.projector(m.backbone(view)) for view in (a, b)]
        loss = m.loss([a, b]).loss
        by_hand = sum(
            regression_loss(z[i] @ m.predictor_matrix(), targets[1 - i], distance) for i in range(2)
        )
    torch.testing.assert_close(loss, by_hand)


def test_directpred_at_power_one_is_directcopy() -> None:
    ours = closed_form("directpred", alpha=1.0, eps=0.25).loss(doubles()).loss
    torch.testing.assert_close(ours, closed_form("directcopy", eps=0.25).loss(doubles()).loss)


@pytest.mark.parametrize(("option", "value"), [("alpha", 0.0), ("eps", -0.1), ("correlation_momentum", 1.5)])
def test_a_knob_of_the_predictor_out_of_range_is_refused(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=option.replace("_", "-")):
        build_method("directpred", nn.Flatten(), 12, {option: value})


# what the missing factor does


def eigenvalues_after_training(name: str, seed: int, steps: int = 100) -> Tensor:
    """Of the correlation of a linear network's outputs that starts with modes of very different size."""
    torch.manual_seed(seed)
    d = 6
    m = closed_form(name, seed, proj_output_dim=d, tau_base=0.0, tau_final=0.0, correlation_momentum=0.5,
                    distance="euclidean", normalise=False)  # fmt: skip
    m.backbone, linear = nn.Flatten(), nn.Linear(12, d, bias=False).double()
    m.projector = nn.Sequential(linear)
    start = torch.linalg.qr(rows(seed, 12, d))[0].T * torch.logspace(0, -1.5, d).double()[:, None]
    linear.weight.data.copy_(start)
    m.make_target("backbone", "projector")
    optimizer = torch.optim.SGD(m.projector.parameters(), lr=0.05)
    for step in range(steps):
        image = rows(1000 * seed + step, 256, 12).view(256, 3, 2, 2)
        loss = m.loss([image, image]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        m.after_step(StepInfo(step, steps))
    found: Tensor = torch.linalg.eigvalsh(m.C)
    return found


@pytest.mark.parametrize("seed", range(3))
def test_isoloss_recruits_the_small_modes_that_directpred_leaves_behind(seed: int) -> None:
    iso, pred = (eigenvalues_after_training(name, seed) for name in ("isoloss", "directpred"))
    assert iso[0] > 0.5  # all of them near their common fixed point, 1
    assert pred[0] < 0.1
    assert math.isclose(float(pred[-1]), 1.0, abs_tol=0.3)
