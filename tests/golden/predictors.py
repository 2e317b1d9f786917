"""Closed-form predictors, spectral filters and code scores beside the references'."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.methods import negative_cosine, regression_loss
from fullrank.methods._spectral import FilterConfig, filtered_pair
from fullrank.methods.cplearn import cplearn_temperature
from fullrank.methods.isoloss import isoloss_cosine, isoloss_euclidean
from fullrank.networks.correlation import averaged_correlation, copied_predictor, spectral_predictor
from golden.case import Case, comparer
from golden.settings import Refused
from methods.code_scores import loss_of_scores

NUMBER = r"-?[\d.]+(?:e[+-]?\d+)?"


def predictor_of(setting: str) -> tuple[Callable[[Tensor], Tensor], float, bool, float]:
    """Ours for a setting named like a0.5_norm1_eps0.1, with its alpha, normalisation and eps."""
    found = re.fullmatch(rf"a({NUMBER})_norm([01])_eps({NUMBER})", setting)
    if found is None:
        raise Refused(f"settings.configs: {setting} is no name like a0.5_norm1_eps0.1")
    alpha, normalise, eps = float(found[1]), found[2] == "1", float(found[3])
    return lambda c: spectral_predictor(c, alpha, eps, normalise), alpha, normalise, eps


@comparer("02_directpred")
def directpred(case: Case) -> None:
    z1, z2 = case.inputs("z1", "z2")
    zt1, zt2 = case.tensor("in.zt1"), case.tensor("in.zt2")
    case.settings.expect("n", len(z1))
    case.settings.expect("d", z1.shape[1])
    before, tau = case.tensor("in.C_prev"), case.settings["tau"]
    c1 = averaged_correlation(before, z1.detach(), tau)
    c2 = averaged_correlation(c1, z2.detach(), tau)
    named = {name.split("/")[0] for name in case.names("out.")} | {*case.settings.get("configs", [])}
    for setting in sorted(named):
        predictor, alpha, normalise, eps = predictor_of(setting)
        wp1, wp2 = predictor(c1), predictor(c2)
        p1, p2 = z1 @ wp1, z2 @ wp2
        case.check(f"out.{setting}/C_after_view1", c1)
        case.check(f"out.{setting}/C_after_both_views", c2)
        case.check(f"out.{setting}/Wp_view1", wp1)
        case.check(f"alt.{setting}/Wp_view1_symmetric_eigensolver", wp1)
        if alpha == 1 and (normalise or not eps):  # elsewhere the reference leaves eps out
            case.check(f"out.{setting}/Wp_view1", copied_predictor(c1, eps, normalise))
        case.check(f"out.{setting}/p1", p1)
        s = torch.linalg.eigvalsh(c1)
        case.check(f"out.{setting}/eigenvalues_sorted", s)
        case.check(f"out.{setting}/participation_ratio", s.sum() ** 2 / s.square().sum())
        energies = (z1 * p1).sum(dim=1), (z2 * p2).sum(dim=1)
        losses = {
            "pred_cos": regression_loss(p1, zt2) + regression_loss(p2, zt1),
            "pred_l2": regression_loss(p1, zt2, "euclidean") + regression_loss(p2, zt1, "euclidean"),
            "iso_cos": isoloss_cosine(z1, p1, energies[0], zt2) + isoloss_cosine(z2, p2, energies[1], zt1),
            "iso_l2": isoloss_euclidean(z1, p1, zt2) + isoloss_euclidean(z2, p2, zt1),
        }
        for name, loss in losses.items():
            case.check_gradients(f"{setting}/train_loss_{name}", loss, z1=z1, z2=z2)
        z_std = F.normalize(torch.stack([z1, z2]), dim=2).std(dim=1).mean()
        case.check(f"out.{setting}/z_std", z_std)


def filter_of(setting: str, stats: str) -> FilterConfig:
    """Ours for a setting named like online_poly_sigma1.0 or online_log_1."""
    found = re.fullmatch(rf"(online|target)_(.+?)(?:_sigma({NUMBER}))?", setting)
    if found is None:
        raise Refused(f"{setting} is no name like online_poly_sigma1.0")
    sigma = float(found[3] or 1.0)
    return FilterConfig(pred_type=found[2], pred_location=found[1], sigma=sigma, stats=stats)  # type: ignore[arg-type]


@comparer("04_rdm")
def rdm(case: Case) -> None:
    z1, z2 = case.inputs("z1", "z2")
    case.settings.expect("n", len(z1))
    case.settings.expect("d", z1.shape[1])
    for setting in sorted({name.split("/")[0] for role in ("out.", "alt.") for name in case.names(role)}):
        own, other = filter_of(setting, "own"), filter_of(setting, "other")
        branch = 0 if own.pred_location == "online" else 1
        case.check(f"out.{setting}/transformed", filtered_pair(z1, z2, own)[branch])
        one_way = negative_cosine(*filtered_pair(z1, z2, own))
        total = 0.5 * one_way + 0.5 * negative_cosine(*filtered_pair(z2, z1, own))
        case.check_gradients(f"{setting}/simsiam_one_way", one_way, z1=z1)
        case.check_gradients(f"{setting}/simsiam_total", total, z1=z1, z2=z2)
        case.check_gradients(f"{setting}/byol_one_way", regression_loss(*filtered_pair(z1, z2, own)), z1=z1)
        # the ImageNet code filters the target by the online view's spectrum
        imagenet = negative_cosine(*filtered_pair(z1, z2, other))
        case.check(f"alt.{setting}/imagenet_transformed", filtered_pair(z1, z2, other)[branch])
        case.check(f"alt.{setting}/imagenet_one_way_negated", imagenet)
        case.check(f"alt.{setting}/imagenet_grad_z1", torch.autograd.grad(imagenet, z1)[0])


@comparer("05_cplearn")
def cplearn(case: Case) -> None:
    w = case.tensor("in.W").to(case.dtype)
    hidden, codes = w.shape
    case.settings.expect("hidden", hidden)
    case.settings.expect("codes", codes)
    inputs: dict[str, Tensor] = {}
    for name in ("linear_weight", "linear_bias", "bn_weight", "bn_bias"):
        if f"in.{name}" in case.arrays:
            inputs |= dict(zip([name], case.inputs(name), strict=True))
    scores = []
    for i in (1, 2):
        if f"in.feats{i}" in case.arrays:
            (x,) = case.inputs(f"feats{i}")
            case.settings.expect("features", x.shape[1])
            projected = F.batch_norm(
                F.linear(x, inputs["linear_weight"], inputs["linear_bias"]),
                None,
                None,
                inputs["bn_weight"],
                inputs["bn_bias"],
                training=True,
            )
            tau = cplearn_temperature(hidden, codes, len(x))
            score = projected.tanh() @ w / tau
            case.check(f"out.bn_out{i}", projected)
            for name in ("tanh", "embeddings"):
                case.check(f"out.{name}{i}", projected.tanh())
            case.check(f"out.scores{i}", score)
            inputs[f"feats{i}"] = x
        else:  # the recorded scores are where the loss begins
            score = case.tensor(f"out.scores{i}").requires_grad_()
            tau = cplearn_temperature(hidden, codes, len(score))
        case.settings.expect("n", len(score))
        case.check("out.temperature", tau)
        case.check(f"out.probs{i}", score.softmax(dim=1))
        inputs[f"scores{i}"] = score
        scores.append(score)
    for name in case.names("out.beta"):
        if name.endswith("/loss"):
            loss = loss_of_scores(scores, float(name.removesuffix("/loss")))["loss"]
            case.check_gradients(f"beta{name}", loss, **inputs)
