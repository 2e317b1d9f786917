"""What of ours answers to which recorded item."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods import ParamGroup, negative_cosine, regression_loss
from fullrank.methods.byol import byol_loss
from fullrank.methods.simsiam import simsiam_loss
from fullrank.networks.momentum import cosine_tau, update_momentum
from fullrank.training.config import TrainConfig
from fullrank.training.optim import LARS, build_optimizer, set_learning_rates
from fullrank.training.schedules import epoch_cosine, warmup_cosine
from golden.harness import Case, comparer


@comparer("01_simsiam_byol")
def losses(case: Case) -> None:
    p1, p2, z1, z2 = case.inputs("p1", "p2", "z1", "z2")
    pair = {"p1": p1, "p2": p2}
    case.check_gradients("simsiam_symmetric", simsiam_loss([p1, p2], [z1, z2]), **pair)
    case.check_gradients("byol_sum_of_views", byol_loss([p1, p2], [z1, z2]), **pair)
    case.check_gradients("byol_l2_one_way", regression_loss(p1, z2, "euclidean"), p1=p1)
    for form in ("True", "False"):  # two ways to write the cosine in the reference
        case.check_gradients(f"simsiam_one_way_simplified_{form}", negative_cosine(p1, z2.detach()), p1=p1)
        case.check_gradients(f"byol_one_way_simplified_{form}", regression_loss(p1, z2), p1=p1)
    case.check("out.z_std_simsiam", F.normalize(z1, dim=1).std(dim=0).mean())


# the case names its settings only; these values of the reference's arguments are what reproduces them
LARS_SETTINGS: dict[str, dict[str, object]] = {
    "solo_default": {"weight_decay": 1e-4},
    "solo_clip_excl": {"weight_decay": 1e-5, "eta": 0.02, "clip": True, "exclude_1d": True},
    "solo_wd0": {"weight_decay": 0.0, "exclude_1d": True},
    "solo_nesterov": {"weight_decay": 1e-3, "nesterov": True},
    "solo_nomom": {"weight_decay": 1e-3, "eta": 0.01, "momentum": 0.0},
    "solo_dampening": {"weight_decay": 1e-3, "dampening": 0.5},
    "moco_wd1e-06_mom0.9": {"variant": "moco", "weight_decay": 1e-6},
    "moco_wd0.01_mom0.9": {"variant": "moco", "weight_decay": 1e-2},
    "moco_wd0.0_mom0.0": {"variant": "moco", "weight_decay": 0.0, "momentum": 0.0},
    "larc_wd0.0": {"weight_decay": 0.0},
    "larc_wd0.001": {"weight_decay": 1e-3},
    "larc_clip_wd0.001": {"weight_decay": 1e-3, "clip": True},
}


@comparer("08_lars")
def lars(case: Case) -> None:
    names = [name.removeprefix("in.init/") for name in case.arrays if name.startswith("in.init/")]
    for setting, options in LARS_SETTINGS.items():
        params = {name: nn.Parameter(case.tensor(f"in.init/{name}")) for name in names}
        optimizer = LARS(list(params.values()), lr=case.settings["lr"], **options)  # type: ignore[arg-type]
        seen: dict[str, list[Tensor]] = {name: [] for name in names}
        for step in range(case.settings["steps"]):
            for name, parameter in params.items():
                parameter.grad = case.tensor(f"in.grads/{name}")[step]
            optimizer.step()
            for name, parameter in params.items():
                seen[name].append(parameter.detach().clone())
        for name in names:
            if f"out.{setting}/{name}" in case.arrays:
                case.check(f"out.{setting}/{name}", torch.stack(seen[name]))


def fixed_rates(base: float, epochs: int, warmup: int, final: float) -> list[float]:
    """The rate of a group with `fixed_lr` in each epoch, of one step."""
    config = TrainConfig(
        epochs=epochs,
        lr=base,
        lr_scaling="none",
        schedule="epoch-cosine",
        warmup_epochs=warmup,
        final_lr=final,
    )
    optimizer = build_optimizer(
        [ParamGroup("predictor", [nn.Parameter(torch.ones(1))], fixed_lr=True)], config
    )
    rates = []
    for epoch in range(epochs):
        set_learning_rates(optimizer, config, epoch, steps_per_epoch=1)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


@comparer("12_schedules")
def schedules(case: Case) -> None:
    for name, (base, warmup, total, start, final) in case.settings["warmup_cosine"].items():
        ours = [
            warmup_cosine(t, total, base, warmup=warmup, start=start, final=final) for t in range(total + 1)
        ]
        case.check(f"out.warmup_cosine/{name}", ours)
    for name, (base, epochs, warmup, final) in case.settings["epoch_cosine"].items():
        plain = [epoch_cosine(e, epochs, base) for e in range(epochs)]
        case.check(f"out.simsiam/{name}", [[lr, base] for lr in plain])
        case.check(f"out.linear_probe/{name}", plain)
        warm = [epoch_cosine(e, epochs, base, warmup=warmup, final=final) for e in range(epochs)]
        fixed = fixed_rates(base, epochs, warmup, final)
        case.check(f"out.noncontrastive/{name}", list(zip(warm, fixed, strict=True)))
        times = case.arrays[f"in.fractional_epochs/{name}"]
        moco_warmup = warmup or 1
        case.check(
            f"out.moco_lr/{name}",
            [epoch_cosine(t, epochs, base, warmup=moco_warmup, from_zero=True) for t in times],
        )
        case.check(
            f"out.moco_momentum/{name}", [cosine_tau(case.settings["moco_m"], 1.0, t / epochs) for t in times]
        )
    for name, (base, final, steps) in case.settings["tau"].items():
        taus = [cosine_tau(base, final, k / steps) for k in range(steps)]
        case.check(f"out.tau/{name}", taus)
        online, target = nn.Linear(3, 2, bias=False).double(), nn.Linear(3, 2, bias=False).double()
        online.weight.data = case.tensor(f"in.ema_online/{name}")
        nn.init.zeros_(target.weight)
        for tau in taus[:3]:
            update_momentum(target, online, tau)
        case.check(f"out.ema_target_after_3_updates/{name}", target.weight)
