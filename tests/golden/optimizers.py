"""LARS in three references' forms, under a recorded sequence of gradients."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.training.optim import LARS
from golden.case import Case, comparer
from golden.predictors import NUMBER
from golden.settings import Refused, Settings

OPTIONS = {  # the references' names of options, and ours
    "lr": "lr", "wd": "weight_decay", "weight_decay": "weight_decay",
    "momentum": "momentum", "mom": "momentum",
    "eta": "eta", "trust_coefficient": "eta", "clip": "clip", "clip_lr": "clip", "clip_lars_lr": "clip",
    "exclude_bias_n_norm": "exclude_1d", "excl": "exclude_1d",
    "nesterov": "nesterov", "dampening": "dampening",
}  # fmt: skip
# of these the name says less than what the reference was given
NAMED: dict[str, dict[str, Any]] = {
    "solo_default": {"weight_decay": 1e-4},
    "solo_clip_excl": {"weight_decay": 1e-5, "eta": 0.02, "clip": True, "exclude_1d": True},
    "solo_wd0": {"weight_decay": 0.0, "exclude_1d": True},
    "solo_nesterov": {"weight_decay": 1e-3, "nesterov": True},
    "solo_nomom": {"weight_decay": 1e-3, "eta": 0.01, "momentum": 0.0},
    "solo_dampening": {"weight_decay": 1e-3, "dampening": 0.5},
}
FAMILIES = {"solo": "solo", "larc": "solo", "moco": "moco"}
EPS = 1e-8  # in ours a constant


def translated(given: Settings) -> dict[str, Any]:
    """Ours from options under the references' names; one that ours lacks is refused."""
    options = {}
    for key in given:
        if key in ("eps", "family"):
            given.expect(key, EPS, *FAMILIES)
        elif key in OPTIONS:
            options[OPTIONS[key]] = given[key]
        else:
            raise Refused(f"settings.{given.path}{key}: our LARS has no such option")
    return options


def options_of(name: str, described: Mapping[str, Settings]) -> dict[str, Any]:
    """Ours for a setting, from its description, or else from a name like moco_wd0.01_mom0.9."""
    family, _, rest = name.partition("_")
    if family not in FAMILIES:
        raise Refused(f"out.{name}: the name begins with none of {', '.join(FAMILIES)}")
    variant = {"variant": FAMILIES[family]}
    if name in described:
        return variant | translated(described[name])
    if name in NAMED:
        return variant | NAMED[name]
    options: dict[str, Any] = {}
    for word in rest.split("_"):
        if found := re.fullmatch(rf"(wd|mom|eta|dampening|damp)({NUMBER})", word):
            options[OPTIONS.get(found[1], "dampening")] = float(found[2])
        elif word in ("clip", "excl", "nesterov"):
            options[OPTIONS[word]] = True
        elif word == "nomom":
            options["momentum"] = 0.0
        else:
            raise Refused(f"out.{name}: {word!r} names no option of LARS, and no setting describes {name}")
    return variant | options


@comparer("08_lars")
def lars(case: Case) -> None:
    names = case.names("in.init/")
    steps = len(case.arrays[f"in.grads/{names[0]}"])
    case.settings.expect("steps", steps)
    described: dict[str, Settings] = {}
    for key in ("configs", "options", "settings"):
        if key in case.settings:
            described |= case.settings[key]
    rest = {
        k: v for k, v in case.settings.values_.items() if k not in ("configs", "options", "settings", "steps")
    }
    common = Settings({k: v for k, v in rest.items() if k in OPTIONS}, "", case.settings.read)
    settings = {name.rpartition("/")[0] for name in case.names("out.")}
    for setting in sorted(settings):
        params = {name: nn.Parameter(case.tensor(f"in.init/{name}")) for name in names}
        options = translated(common) | options_of(setting, described)
        optimizer = LARS(list(params.values()), **options)
        seen: dict[str, list[Tensor]] = {name: [] for name in names}
        for step in range(steps):
            for name, parameter in params.items():
                parameter.grad = case.tensor(f"in.grads/{name}")[step]
            optimizer.step()
            for name, parameter in params.items():
                seen[name].append(parameter.detach().clone())
        for name in names:
            case.check(f"out.{setting}/{name}", torch.stack(seen[name]))
