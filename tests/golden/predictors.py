"""Closed-form predictors, isotropic losses, spectral filters and code scores beside the references'."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from fullrank.methods import negative_cosine, regression_loss
from fullrank.methods._spectral import FilterConfig, filtered_pair
from fullrank.methods.cplearn import cplearn_temperature
from fullrank.methods.isoloss import isoloss_cosine, isoloss_euclidean
from fullrank.networks.correlation import averaged_correlation, copied_predictor, spectral_predictor
from golden.harness import Case, comparer
from methods.code_scores import loss_of_scores


def wanted_predictor(setting: str) -> Callable[[Tensor], Tensor]:
    """Ours for a setting named like a0.5_norm1_eps0.1."""
    alpha, normalise, eps = (
        float(part.removeprefix(prefix))
        for part, prefix in zip(setting.split("_"), ("a", "norm", "eps"), strict=True)
    )
    return lambda c: spectral_predictor(c, alpha, eps, bool(normalise))


@comparer("02_directpred")
def directpred(case: Case) -> None:
    z1, z2 = case.inputs("z1", "z2")
    zt1, zt2 = case.tensor("in.zt1"), case.tensor("in.zt2")
    before, tau = case.tensor("in.C_prev"), case.settings["tau"]
    c1 = averaged_correlation(before, z1.detach(), tau)
    c2 = averaged_correlation(c1, z2.detach(), tau)
    for setting in case.settings["configs"]:
        predictor = wanted_predictor(setting)
        wp1, wp2 = predictor(c1), predictor(c2)
        p1, p2 = z1 @ wp1, z2 @ wp2
        case.check(f"out.{setting}/C_after_view1", c1)
        case.check(f"out.{setting}/C_after_both_views", c2)
        case.check(f"out.{setting}/Wp_view1", wp1)
        case.check(f"alt.{setting}/Wp_view1_symmetric_eigensolver", wp1)
        if setting.startswith("a1.0_norm1"):
            case.check(f"out.{setting}/Wp_view1", copied_predictor(c1, float(setting.split("eps")[1])))
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
            if f"out.{setting}/train_loss_{name}" in case.arrays:
                case.check_gradients(f"{setting}/train_loss_{name}", loss, z1=z1, z2=z2)
        z_std = F.normalize(torch.stack([z1, z2]), dim=2).std(dim=1).mean()
        case.check(f"out.{setting}/z_std", z_std)


@comparer("03_isoloss")
def isoloss(case: Case) -> None:
    p, psqrt, z, zt = case.inputs("p", "psqrt", "z", "zt")
    cosine = isoloss_cosine(z, p, psqrt.square().sum(dim=1), zt)
    case.check_gradients("cos", cosine, z=z, psqrt=psqrt)
    case.check_gradients("l2", isoloss_euclidean(z, p, zt), z=z)


def filter_of(setting: str, stats: str) -> FilterConfig:
    """Ours for a setting named like online_poly_sigma1.0 or online_log_1."""
    location, rest = setting.split("_", 1)
    kind, _, sigma = rest.partition("_sigma")
    return FilterConfig(pred_type=kind, pred_location=location, sigma=float(sigma or 1.0), stats=stats)  # type: ignore[arg-type]


@comparer("04_rdm")
def rdm(case: Case) -> None:
    z1, z2 = case.inputs("z1", "z2")
    settings = {name.split("/")[0].removeprefix("out.") for name in case.arrays if "/transformed" in name}
    for setting in sorted(settings):
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
        if not np.isfinite(case.arrays[f"alt.{setting}/imagenet_one_way_negated"]):
            continue  # the root of a negative rounding error in the reference
        case.check(f"alt.{setting}/imagenet_transformed", filtered_pair(z1, z2, other)[branch])
        case.check(f"alt.{setting}/imagenet_one_way_negated", imagenet)
        gradient = torch.autograd.grad(imagenet, z1)[0]
        case.check(f"alt.{setting}/imagenet_grad_z1", gradient)


@comparer("05_cplearn")
def cplearn(case: Case) -> None:
    features = case.inputs("feats1", "feats2")
    weight, bias, gain, offset = case.inputs("linear_weight", "linear_bias", "bn_weight", "bn_bias")
    w = case.tensor("in.W").to(features[0].dtype)
    tau = cplearn_temperature(w.shape[0], w.shape[1], len(features[0]))
    case.check("out.temperature", tau)
    projected = [
        F.batch_norm(F.linear(x, weight, bias), None, None, gain, offset, training=True) for x in features
    ]
    embedded = [h.tanh() for h in projected]
    scores = [e @ w / tau for e in embedded]
    case.check("out.bn_out1", projected[0])
    case.check("out.tanh1", embedded[0])
    case.check("out.embeddings1", embedded[0])
    case.check("out.scores1", scores[0])
    case.check("out.scores2", scores[1])
    case.check("out.probs1", scores[0].softmax(dim=1))
    for beta in (0.1, 1.0, 10.0):
        loss = loss_of_scores(scores, beta)["loss"]
        inputs = {
            "scores1": scores[0],
            "scores2": scores[1],
            "feats1": features[0],
            "feats2": features[1],
            "linear_weight": weight,
            "linear_bias": bias,
        }
        case.check_gradients(f"beta{beta}/loss", loss, **inputs, bn_weight=gain, bn_bias=offset)
