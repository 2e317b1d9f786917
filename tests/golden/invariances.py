"""Barlow Twins, VICReg, SimCLR, W-MSE and LeJEPA: losses with gradients."""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import Tensor

from fullrank.methods import nt_xent
from fullrank.methods.barlow_twins import barlow_loss
from fullrank.methods.lejepa import epps_pulley, lejepa_loss, random_directions, sigreg
from fullrank.methods.vicreg import covariance, variance, vicreg_loss
from fullrank.methods.wmse import whiten, wmse_loss
from golden.case import Case, comparer
from golden.predictors import NUMBER
from golden.settings import Refused


def found_in(case: Case, start: str, pattern: str) -> list[tuple[str, re.Match[str]]]:
    """Names of arrays, without their role, that a pattern reads wholly."""
    pairs = [(name, re.fullmatch(pattern, name)) for name in case.names(start)]
    return [(name, found) for name, found in pairs if found]


@comparer("06a_barlow_twins")
def barlow_twins(case: Case) -> None:
    z1, z2 = case.inputs("z1", "z2")
    case.settings.expect("n", len(z1))
    case.settings.expect("d", z1.shape[1])
    both = {"z1": z1, "z2": z2}
    for name, found in found_in(case, "out.", rf"lamb({NUMBER})_scale({NUMBER})"):
        case.check_gradients(name, barlow_loss([z1, z2], float(found[1]), float(found[2]))["loss"], **both)
    for name, found in found_in(case, "alt.", rf"(lightly|stable_pretraining)_lambda({NUMBER})"):
        kind = ["unbiased"] if found[1] == "stable_pretraining" else []
        case.check_variant(name, barlow_loss([z1, z2], float(found[2]), 1.0, *kind)["loss"], **both)  # type: ignore[arg-type]


def weighted(
    z1: Tensor, z2: Tensor, found: re.Match[str], over_views: Literal["sum", "mean"] = "sum"
) -> dict[str, Tensor]:
    """VICReg's loss with the weights of invariance, variance and covariance that a name has."""
    a, b, c = (float(weight) for weight in found.groups())
    return vicreg_loss([z1, z2], a, b, c, variance_over_views=over_views)


@comparer("06b_vicreg")
def vicreg(case: Case) -> None:
    z1, z2 = case.inputs("z1", "z2")
    case.settings.expect("n", len(z1))
    case.settings.expect("d", z1.shape[1])
    both = {"z1": z1, "z2": z2}
    case.check_gradients("invariance", vicreg_loss([z1, z2])["invariance"], **both)
    case.check_gradients("variance", variance(z1) + variance(z2), **both)
    case.check_gradients("covariance", covariance(z1) + covariance(z2), **both)
    weights = "_".join([f"({NUMBER})"] * 3)
    for name, found in found_in(case, "out.", f"total_{weights}"):
        case.check_gradients(name, weighted(z1, z2, found)["loss"], **both)
    for name, found in found_in(case, "alt.", f"(?:lightly|stable_pretraining)_{weights}"):
        averaged = weighted(z1, z2, found, "mean")
        case.check_variant(name, averaged["loss"], **both)


@comparer("06e_simclr")
def simclr(case: Case) -> None:
    (z,) = case.inputs("z")
    case.settings.expect("n", *(len(z) // views for views in range(1, 9) if len(z) % views == 0))
    case.settings.expect("d", z.shape[1])
    for name, found in found_in(case, "out.", rf"loss(_labels)?_temp({NUMBER})"):
        index = case.tensor("in.labels" if found[1] else "in.index")
        case.check_gradients(name, nt_xent(z, index, float(found[2])), z=z)
    for name, found in found_in(case, "alt.", rf"(?:lightly|stable_pretraining)_temp({NUMBER})"):
        case.check_variant(name, nt_xent(z, case.tensor("in.index"), float(found[1])), z=z)


@comparer("06f_wmse")
def wmse(case: Case) -> None:
    v1, v2 = case.inputs("v1", "v2")
    given = case.settings
    given.expect("n", len(v1))
    given.expect("d", v1.shape[1])
    eps, size = float(given.get("whitening_eps", 0.0)), given.get("whitening_size", 0)
    if isinstance(size, str):
        if not size.startswith("the whole batch"):
            raise Refused(f"settings.whitening_size is {size!r}; ours takes a number or the whole batch")
        size = 0
    if size in (0, len(v1)):
        case.check("out.white1", whiten(v1, eps))
        case.check("out.white2", whiten(v2, eps))
    order = case.tensor("in.perm") if "in.perm" in case.arrays else None
    both = {"v1": v1, "v2": v2}
    free = wmse_loss([v1, v2], order, size, eps, detach_second=False)
    case.check_gradients("loss_simplified_False", free, **both)
    case.check_variant("lightly", free, **both)
    case.check_gradients("loss_simplified_True", wmse_loss([v1, v2], order, size, eps), **both)


@comparer("06g_lejepa_sigreg")
def lejepa(case: Case) -> None:
    (x,) = case.inputs("x")
    directions, views = case.tensor("in.directions"), list(x)
    dim = len(directions)
    for key, size in zip(("views", "n", "d"), x.shape, strict=True):
        case.settings.expect(key, size)
    case.settings.expect("slices", directions.shape[1])
    for name, found in found_in(case, "out.", rf"(stat_view1|sigreg_view1|sigreg)_tmax({NUMBER})_k(\d+)"):
        rule = float(found[2]), int(found[3])
        if found[1] == "sigreg":
            case.check_gradients(name, sigreg(x, directions, *rule), x=x)
        else:
            statistic = epps_pulley(x[0] @ directions, *rule)
            case.check_gradients(name, statistic if found[1] == "stat_view1" else statistic.mean(), x=x)
    for name, found in found_in(case, "in.", r"directions_seed(\d+)"):
        drawn = random_directions(dim, case.arrays[f"in.{name}"].shape[1], int(found[1]))
        case.check(f"in.{name}", drawn)
        case.check(f"out.seeded_call{found[1]}_float32", sigreg(x[0].float(), drawn))
    case.check("out.invariance", lejepa_loss(views, directions)["invariance"])
    for name, found in found_in(case, "out.", rf"lejepa_lambda({NUMBER})"):
        case.check_gradients(name, lejepa_loss(views, directions, float(found[1]))["loss"], x=x)
    flattened = lejepa_loss(views, directions, flatten_views=True)["sigreg"]
    case.check("alt.stable_pretraining_sigreg_flattened_views", flattened)
    for name, found in found_in(case, "alt.", rf"stable_pretraining_total_lamb({NUMBER})"):
        total = lejepa_loss(views, directions, float(found[1]), "sum", flatten_views=True)["loss"]
        case.check(f"alt.{name}", total)
        case.check("alt.stable_pretraining_total_grad_x", torch.autograd.grad(total, x, retain_graph=True)[0])
    for name, found in found_in(case, "alt.", rf"lightly_global(\d+)_local(\d+)_lambda({NUMBER})"):
        large, small = int(found[1]), int(found[2])
        crops = lejepa_loss(views, directions, float(found[3]), small=range(large, large + small))["loss"]
        case.check(f"alt.{name}", crops)
        case.check(
            f"alt.lightly_global{large}_local{small}_grad_x",
            torch.autograd.grad(crops, x, retain_graph=True)[0],
        )
