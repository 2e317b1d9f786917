"""The baselines against what their references computed: losses with gradients, and whole optimisations."""

from __future__ import annotations

import torch
from torch import Tensor

from fullrank.methods import Method, nt_xent
from fullrank.methods.barlow_twins import barlow_loss
from fullrank.methods.lejepa import epps_pulley, lejepa_loss, random_directions, sigreg
from fullrank.methods.vicreg import covariance, variance, vicreg_loss
from fullrank.methods.wmse import WMSE, whiten, wmse_loss
from golden.harness import Case, answers, comparer
from golden.trajectories import widths


def check_variant(case: Case, name: str, value: Tensor, **inputs: Tensor) -> None:
    """Compares with a recorded variant and its gradients, `alt.NAME` and `alt.NAME/grad_INPUT`."""
    case.check(f"alt.{name}", value)
    gradients = torch.autograd.grad(value, list(inputs.values()), retain_graph=True)
    for key, gradient in zip(inputs, gradients, strict=True):
        case.check(f"alt.{name}/grad_{key}", gradient)


@comparer("06a_barlow_twins")
def barlow_twins(case: Case) -> None:
    z1, z2 = case.inputs("z1", "z2")
    both = {"z1": z1, "z2": z2}
    for lamb, scale in ((0.005, 0.025), (0.005, 0.1), (0.05, 1.0)):
        case.check_gradients(f"lamb{lamb}_scale{scale}", barlow_loss([z1, z2], lamb, scale)["loss"], **both)
    check_variant(case, "lightly_lambda0.005", barlow_loss([z1, z2], 0.005, 1.0)["loss"], **both)
    unbiased = barlow_loss([z1, z2], 0.005, 1.0, "unbiased")["loss"]
    check_variant(case, "stable_pretraining_lambda0.005", unbiased, **both)


@comparer("06b_vicreg")
def vicreg(case: Case) -> None:
    z1, z2 = case.inputs("z1", "z2")
    both = {"z1": z1, "z2": z2}
    case.check_gradients("invariance", vicreg_loss([z1, z2])["invariance"], **both)
    case.check_gradients("variance", variance(z1) + variance(z2), **both)
    case.check_gradients("covariance", covariance(z1) + covariance(z2), **both)
    case.check_gradients("total_25_25_1", vicreg_loss([z1, z2])["loss"], **both)
    case.check_gradients("total_1_2_0.5", vicreg_loss([z1, z2], 1.0, 2.0, 0.5)["loss"], **both)
    averaged = vicreg_loss([z1, z2], variance_over_views="mean")["loss"]
    for library in ("lightly", "stable_pretraining"):
        check_variant(case, f"{library}_25_25_1", averaged, **both)


@comparer("06e_simclr")
def simclr(case: Case) -> None:
    (z,) = case.inputs("z")
    index = case.tensor("in.index")
    for temperature in (0.1, 0.2, 0.5):
        case.check_gradients(f"loss_temp{temperature}", nt_xent(z, index, temperature), z=z)
    case.check_gradients("loss_labels_temp0.2", nt_xent(z, case.tensor("in.labels"), 0.2), z=z)
    for library in ("lightly", "stable_pretraining"):
        check_variant(case, f"{library}_temp0.5", nt_xent(z, index, 0.5), z=z)


@comparer("06f_wmse")
def wmse(case: Case) -> None:
    v1, v2 = case.inputs("v1", "v2")
    case.check("out.white1", whiten(v1))
    case.check("out.white2", whiten(v2))
    both = {"v1": v1, "v2": v2}
    free = wmse_loss([v1, v2], detach_second=False)
    case.check_gradients("loss_simplified_False", free, **both)
    check_variant(case, "lightly", free, **both)
    detached = wmse_loss([v1, v2])
    case.check("out.loss_simplified_True", detached)
    case.check("grad.loss_simplified_True/v1", torch.autograd.grad(detached, v1, retain_graph=True)[0])
    second = torch.autograd.grad(detached, v2, allow_unused=True)[0]
    case.check("grad.loss_simplified_True/v2", torch.zeros_like(v2) if second is None else second)


@comparer("06g_lejepa_sigreg")
def lejepa(case: Case) -> None:
    (x,) = case.inputs("x")
    directions = case.tensor("in.directions")
    for t_max, num_knots in ((3, 17), (5, 17), (3, 33)):
        name = f"tmax{t_max}_k{num_knots}"
        statistic = epps_pulley(x[0] @ directions, t_max, num_knots)
        case.check(f"out.stat_view1_{name}", statistic)
        case.check_gradients(f"sigreg_view1_{name}", statistic.mean(), x=x)
        case.check_gradients(f"sigreg_{name}", sigreg(x, directions, t_max, num_knots), x=x)
    for seed in (0, 1):
        drawn = random_directions(16, 32, seed)
        case.check(f"in.directions_seed{seed}", drawn)
        case.check(f"out.seeded_call{seed}_float32", sigreg(x[0].float(), drawn))
    views = list(x)
    case.check("out.invariance", lejepa_loss(views, directions)["invariance"])
    for lamb in (0.02, 0.05):
        case.check_gradients(f"lejepa_lambda{lamb}", lejepa_loss(views, directions, lamb)["loss"], x=x)
    flattened = lejepa_loss(views, directions, flatten_views=True)["sigreg"]
    case.check("alt.stable_pretraining_sigreg_flattened_views", flattened)
    total = lejepa_loss(views, directions, 0.02, "sum", flatten_views=True)["loss"]
    case.check("alt.stable_pretraining_total_lamb0.02", total)
    case.check("alt.stable_pretraining_total_grad_x", torch.autograd.grad(total, x, retain_graph=True)[0])
    crops = lejepa_loss(views, directions, 0.05, small=[1])["loss"]
    case.check("alt.lightly_global1_local1_lambda0.05", crops)
    case.check("alt.lightly_global1_local1_grad_x", torch.autograd.grad(crops, x)[0])


def recorded_permutations(method: Method, case: Case, step: int) -> None:
    """W-MSE takes the permutations that its reference drew at this step, one for each repetition."""
    assert isinstance(method, WMSE)
    drawn = iter(case.tensor("in.perm")[step])
    method.permutation = lambda n: next(drawn)  # type: ignore[method-assign]


answers("barlow_twins", "barlow_twins", lambda g: widths(g) | {"lamb": g["lamb"], "scale": g["scale_loss"]})
answers(
    "vicreg",
    "vicreg",
    lambda g: (
        widths(g)
        | {
            "sim_weight": g["sim_loss_weight"],
            "var_weight": g["var_loss_weight"],
            "cov_weight": g["cov_loss_weight"],
        }
    ),
)
answers(
    "wmse",
    "wmse",
    lambda g: widths(g) | {key: g[key] for key in g if key.startswith("whitening")},
    each_step=recorded_permutations,
)
answers("simclr", "simclr", lambda g: widths(g) | {"temperature": g["temperature"]})
answers("mocov3", "mocov3", lambda g: widths(g) | {"temperature": g["temperature"]})
answers(
    "moco_target_before_step",
    "mocov3",
    lambda g: {
        "proj_hidden_dim": g["mlp_dim"],
        "proj_output_dim": g["dim"],
        "pred_hidden_dim": g["mlp_dim"],
        "temperature": g["T"],
        "target_update": "before-target",
    },
)
