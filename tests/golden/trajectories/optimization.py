"""Optimiser and schedule of a recorded trajectory as our training options."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from fullrank.training.config import TrainConfig
from golden.case import Case
from golden.settings import Refused, Settings

SCHEDULES = {  # by name and what a step of it is
    ("warmup_cosine", "step"): "cosine",
    ("warmup_cosine", "epoch"): "epoch-warmup-cosine",
    ("step", None): "step",
    ("step", "epoch"): "step",
    ("epoch_cosine", None): "epoch-cosine",
    ("epoch_cosine", "epoch"): "epoch-cosine",
    ("fractional_epoch_warmup_cosine", None): "fractional-cosine",
    ("fractional_epoch_warmup_cosine", "step"): "fractional-cosine",
    ("none", None): "constant",
    ("constant", None): "constant",
}
SCHEDULE_OPTIONS = {
    "warmup_epochs": "warmup_epochs",
    "warmup_start_lr": "warmup_lr",
    "min_lr": "final_lr",
    "final_lr": "final_lr",
    "epochs": "epochs",
    "base_lr": "lr",
    "milestones": "milestones",
    "lr_decay_steps": "milestones",
}
GROUP_OPTIONS = {  # the references' names in a parameter group, and those of ours
    "clip_lr": "clip", "clip_lars_lr": "clip", "exclude_bias_n_norm": "exclude_1d",
    "trust_coefficient": "eta",
    "fix_lr": "fixed_lr", "initial_lr": "base_lr",
}  # fmt: skip
TRAIN_OPTIONS = {
    "momentum": "momentum", "betas": "betas", "eta": "lars_eta", "clip": "lars_clip",
    "exclude_1d": "lars_exclude_1d", "nesterov": "nesterov",
}  # fmt: skip
CONSTANT = {"eps": 1e-8}  # of ours, where a group has none
DECAY = 0.1  # what our step schedule multiplies by


def training_config(case: Case, method: str) -> TrainConfig:
    """Ours; a recorded option that ours lacks is refused by its name."""
    options = {"method": method, "lr_scaling": "none", **schedule_options(case), **optimizer_options(case)}
    if method == "dino" and (largest := case.settings["method_kwargs"].get("clip_grad")):
        options |= {"clip_grad": largest, "clip_grad_of": "backbone-tensor"}  # solo-learn's leaves the head
    return TrainConfig.from_dict(options)


def schedule_options(case: Case) -> dict[str, Any]:
    schedule = case.settings["schedule"]
    per_epoch, key = schedule["steps_per_epoch"], (schedule["name"], schedule.get("interval"))
    by_epoch = schedule.get("interval") == "epoch"
    schedule.expect(
        "total_steps", schedule["epochs"] * per_epoch, *([schedule["epochs"]] if by_epoch else [])
    )
    schedule.expect("gamma", DECAY)
    if key not in SCHEDULES:
        raise Refused(f"settings.schedule is {key[0]} by {key[1]}: none of ours")
    options: dict[str, Any] = {"schedule": SCHEDULES[key], "warmup_lr": 0.0}
    for key in schedule:
        if key == "warmup_steps":
            options["warmup_epochs"] = schedule[key] / (1 if by_epoch else per_epoch)
        elif key in SCHEDULE_OPTIONS:
            options[SCHEDULE_OPTIONS[key]] = schedule[key]
        elif key in ("formula", "tau_formula"):
            schedule.get(key)  # in words; the rates themselves are compared
    return options


def optimizer_options(case: Case) -> dict[str, Any]:
    optimizer = case.settings["optimizer"]
    name, configured = str(optimizer["name"]).lower(), optimizer["configured"]
    base, n = case.settings["schedule"]["base_lr"], case.arrays["in.views"].shape[2]
    configured.expect("name", name, optimizer["name"])
    configured.expect("lr", base, *([base / n * 256] if base == configured.get("lr", base) * n / 256 else []))
    starts = [group["at_start"] for group in case.settings["groups"]]
    given = {
        key: configured.get(key)
        for key in configured
        if key not in ("name", "lr", "wd", "kwargs", "fix_pred_lr")
    }
    given |= {key: configured["kwargs"][key] for key in configured.get("kwargs", {})}
    options: dict[str, Any] = {"optimizer": name, "weight_decay": configured["wd"]}
    for key in ("momentum", "betas", "trust_coefficient", "eta"):  # where the group alone says them
        if key in starts[0]:
            given.setdefault(key, starts[0][key])
    if name == "lars":
        options["lars_variant"] = "moco" if "trust_coefficient" in starts[0] else "solo"
    for key, value in given.items():
        ours = GROUP_OPTIONS.get(key, key)
        ours = TRAIN_OPTIONS.get(ours, ours)
        if value or ours in TRAIN_OPTIONS.values():
            options[ours] = value
    decays = {start["weight_decay"] for start in starts}
    if decays == {0, configured["wd"]}:
        options["exclude_1d_decay"] = True  # `check_groups` sees whose decay is 0
    return options


def fixed_rate(case: Case) -> dict[str, bool]:
    """SimSiam's option, where the recording says whether the predictor's rate is fixed."""
    configured = case.settings["optimizer"]["configured"]
    return {"fixed_predictor_lr": configured["fix_pred_lr"]} if "fix_pred_lr" in configured else {}


def check_groups(case: Case, optimizer: Optimizer, values: dict[str, Tensor]) -> None:
    """Refuse an option of a recorded parameter group that is another in ours."""
    group_of = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    for group in case.settings["groups"]:
        missing = [name for name in group["params"] if name not in values]
        if missing:
            raise Refused(f"settings.{group.path}params: ours has no {missing[0]}")
        ours = [group_of[id(values[name])] for name in group["params"] if id(values[name]) in group_of]
        start: Settings = group["at_start"]
        for key in start:
            if key in ("name", "lr"):  # rates are compared step by step
                start.get(key)
                continue
            full = GROUP_OPTIONS.get(key, key)
            for of_parameter in ours:
                value = of_parameter.get(full, CONSTANT.get(full))
                if not _same(start[key], value):
                    raise Refused(f"settings.{start.path}{key} is {start[key]!r}, ours is {value!r}")


def _same(given: Any, ours: Any) -> bool:
    if isinstance(given, list):
        return list(given) == list(ours or [])
    return given == ours or (not given and not ours)
