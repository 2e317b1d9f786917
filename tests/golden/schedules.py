"""Learning rates and averaging coefficients, all from the functions that training uses."""

from __future__ import annotations

import re
from collections.abc import Iterator

import torch
from torch import nn

from fullrank.networks.momentum import cosine_tau, update_momentum
from fullrank.training.config import TrainConfig
from fullrank.training.optim import set_learning_rates
from fullrank.training.schedules import epoch_cosine, warmup_cosine
from golden.case import Case, comparer
from golden.settings import Refused


def rows(case: Case, group: str, *columns: str) -> Iterator[tuple[str, list[float]]]:
    """Entries of a group of settings, each a list of the named columns."""
    for name, values in case.settings.get(group, {}).items():
        if not isinstance(values, list) or len(values) != len(columns):
            raise Refused(f"settings.{group}.{name} is {values!r}, not [{', '.join(columns)}]")
        yield name, values


def group_rates(epochs: int, base: float, warmup: float = 0.0, final: float = 0.0) -> list[list[float]]:
    """Rates of a scheduled and a fixed group, epoch by epoch, as training sets them."""
    config = TrainConfig(
        epochs=epochs,
        lr=base,
        lr_scaling="none",
        schedule="epoch-cosine",
        warmup_epochs=warmup,
        final_lr=final,
    )
    groups = [
        {
            "params": [nn.Parameter(torch.zeros(1))],
            "name": name,
            "base_lr": base,
            "fixed_lr": name == "predictor",
        }
        for name in ("backbone", "predictor")
    ]
    optimizer, rates = torch.optim.SGD(groups, lr=base), []
    for epoch in range(epochs):
        set_learning_rates(optimizer, config, epoch, steps_per_epoch=1)
        rates.append([group["lr"] for group in optimizer.param_groups])
    return rates


@comparer("12_schedules")
def schedules(case: Case) -> None:
    for name, (base, warmup, total, start, final) in rows(
        case, "warmup_cosine", "base", "warmup", "total", "start", "final"
    ):
        steps = range(int(total) + 1)
        rates = [
            warmup_cosine(t, int(total), base, warmup=warmup, start=start, final=final)  # type: ignore[arg-type]
            for t in steps
        ]
        case.check(f"out.warmup_cosine/{name}", rates)
        if warmup != 1:  # of which the reference's closed form divides by zero
            case.check(f"alt.warmup_cosine_closed_form/{name}", rates)
    for name, (base, count, warmup, final) in rows(case, "epoch_cosine", "base", "epochs", "warmup", "final"):
        by_epoch(case, name, base, int(count), warmup, final)
    for name, (base, final, steps_) in rows(case, "tau", "base", "final", "steps"):
        taus = [cosine_tau(base, final, k / steps_) for k in range(int(steps_))]
        case.check(f"out.tau/{name}", taus)
        if f"in.ema_online/{name}" in case.arrays:
            weight = case.tensor(f"in.ema_online/{name}")
            online, target = (
                nn.Linear(weight.shape[1], weight.shape[0], bias=False).double() for _ in range(2)
            )
            online.weight.data = weight.double()
            nn.init.zeros_(target.weight)
            for k in range(3):
                update_momentum(target, online, taus[min(k, len(taus) - 1)])
            case.check(f"out.ema_target_after_3_updates/{name}", target.weight)


def by_epoch(case: Case, name: str, base: float, epochs: int, warmup: float, final: float) -> None:
    """Compare the schedules that move once per epoch, and MoCo's, which move within."""
    pair = group_rates(epochs, base)
    case.check(f"out.simsiam/{name}", pair)
    case.check(f"out.linear_probe/{name}", [lr for lr, _ in pair])
    case.check(f"out.noncontrastive/{name}", group_rates(epochs, base, warmup, final))
    if f"in.fractional_epochs/{name}" not in case.arrays:
        return
    times = case.tensor(f"in.fractional_epochs/{name}").double().tolist()
    # a run without warm-up has MoCo's own in the recording, as the array's meaning says
    meaning = case.about.get("arrays", {}).get(f"out.moco_lr/{name}", {}).get("meaning", "")
    said = re.search(r"warmup=([\d.]+)", meaning)
    moco = float(said[1]) if said else warmup or 1.0
    rates = [epoch_cosine(t, epochs, base, warmup=moco, from_zero=True) for t in times]
    case.check(f"out.moco_lr/{name}", rates)
    if f"out.moco_momentum/{name}" in case.arrays:
        taus = [cosine_tau(case.settings["moco_m"], 1.0, t / epochs) for t in times]
        case.check(f"out.moco_momentum/{name}", taus)
