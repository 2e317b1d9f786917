"""Whole optimisations of the references, followed step by step through our own pieces."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from fullrank.methods import METHODS, Method, StepInfo, make_config
from fullrank.networks.momentum import cosine_tau
from fullrank.training.config import TrainConfig
from fullrank.training.optim import build_optimizer, set_learning_rates
from golden.harness import ANSWERS, Case, answers, comparer

OPTIMIZER_STATES = {"mu": "momentum_buffer"}  # a reference's name for it: ours


def widths(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those options that have the same name in both."""
    return {
        key: given[key] for key in ("proj_hidden_dim", "proj_output_dim", "pred_hidden_dim") if key in given
    }


class ListedBackbone(nn.Sequential):
    """The tiny backbone that a trajectory's settings list layer by layer."""

    def __init__(self, layers: list[dict[str, Any]]) -> None:
        super().__init__()
        for layer in layers:
            options = {k: v for k, v in layer.items() if k not in ("name", "type", "weight_norm")}
            if "inp" in options and layer["type"] == "Linear":
                options |= {"in_features": options.pop("inp"), "out_features": options.pop("out")}
            if "features" in options:
                options["num_features"] = options.pop("features")
            self.add_module(str(layer["name"]), getattr(nn, str(layer["type"]))(**options))


def method_of(case: Case) -> Method:
    """Our method with the trajectory's knobs, architecture and initial state."""
    answer, ema = ANSWERS[case.about["case"]], case.settings["ema"]
    options = dict(answer.options(case.settings["method_kwargs"]))
    if ema:
        options |= {"tau_base": ema["base"], "tau_final": ema["final"]}
    cls = METHODS[answer.method]
    backbone = ListedBackbone(case.settings["architecture"]["backbone"])
    method = cls(backbone, 16, make_config(cls, options)).to(case.dtype)
    given = {
        key.removeprefix("in.state/"): case.tensor(key) for key in case.arrays if key.startswith("in.state/")
    }
    state = method.state_dict()
    for key in state:
        if not key.endswith("num_batches_tracked") and (
            key in given or key.removeprefix("target.") in given or key.startswith("target.")
        ):
            state[key] = given.get(key, given.get(key.removeprefix("target."), state[key]))
    # what a method keeps in another form (CPLearn's dictionary) it also takes in the reference's
    unknown = {key: value for key, value in given.items() if key not in state}
    method.load_state_dict(state | {key: value for key, value in unknown.items() if key != "C"}, strict=False)
    return method.train()


SCHEDULES = {
    "warmup_cosine": "cosine",
    "epoch_cosine": "epoch-cosine",
    "fractional_epoch_warmup_cosine": "fractional-cosine",
}


def config_of(case: Case) -> TrainConfig:
    """Our training options with the trajectory's optimiser and schedule."""
    optimizer, schedule = case.settings["optimizer"], case.settings["schedule"]
    configured, kwargs = optimizer["configured"], optimizer["configured"].get("kwargs", {})
    per_epoch = schedule["steps_per_epoch"]
    official_lars = optimizer["name"] == "LARS" and not kwargs
    return TrainConfig(
        method=ANSWERS[case.about["case"]].method,
        epochs=schedule["epochs"],
        optimizer=optimizer["name"].lower(),
        lr=schedule["base_lr"],
        lr_scaling="none",
        weight_decay=configured["wd"],
        lars_variant="moco" if official_lars else "solo",
        lars_eta=kwargs.get("eta", 1e-3),
        lars_clip=kwargs.get("clip_lr", kwargs.get("clip_lars_lr", False)),
        lars_exclude_1d=kwargs.get("exclude_bias_n_norm", False),
        schedule=SCHEDULES[schedule["name"]],  # type: ignore[arg-type]
        warmup_epochs=schedule.get("warmup_epochs", schedule.get("warmup_steps", 0) / per_epoch),
        warmup_lr=schedule.get("warmup_start_lr", 0.0),
        final_lr=schedule.get("min_lr", 0.0),
    )


def _untouched(method: Method, first: Callable[[Method, Tensor], Tensor], x: Tensor) -> Tensor:
    """What `first` gives, on a copy of the method: BN statistics move with every forward pass."""
    return first(copy.deepcopy(method), x).detach()


def _check_steps(case: Case, seen: Mapping[str, list[object]], values: Mapping[str, Tensor]) -> None:
    """Compares what was recorded at every step."""
    for key, rows in seen.items():
        name = f"out.{key}"
        if name not in case.arrays or not rows:
            continue
        if key == "buffer_norms":
            ours = [n in values for n in case.settings["columns"]["buffers"]]
            case.arrays[name] = case.arrays[name][:, ours]
        case.check(name, np.asarray(rows, dtype=np.float64))


def _check_end(case: Case, optimizer: Optimizer, values: Mapping[str, Tensor]) -> None:
    """Compares the parameters, buffers and optimiser states after the last step."""
    for name in case.arrays:
        kind, _, key = name.partition("/")
        if kind == "out.final" and key in values:
            case.check(name, values[key])
        if kind == "out.optimizer_state_norms":
            slot = OPTIMIZER_STATES.get(key, key)
            states = [optimizer.state[values[n]] for n in case.settings["columns"]["trainable"]]
            case.check(name, [s[slot].norm().item() if s else 0.0 for s in states])


def _before_tanh(method: Any, x: Tensor) -> Tensor:
    """CPLearn's projection before its hyperbolic tangent."""
    projection: Tensor = method.projector(method.backbone(x))
    return projection


@comparer("13_trajectory")
def trajectory(case: Case) -> None:
    answer, method, config = ANSWERS[case.about["case"]], method_of(case), config_of(case)
    steps, per_epoch = case.settings["steps"], case.settings["schedule"]["steps_per_epoch"]
    optimizer = build_optimizer(method.param_groups(), config)
    columns = case.settings["columns"]
    values = dict(method.named_parameters()) | dict(method.named_buffers())
    start = {name: values[name].detach().clone() for name in columns["params"]}
    seen: dict[str, list[object]] = {
        key: []
        for key in (
            "loss", "lr", "tau", "param_norms", "delta_norms", "grad_norms", "buffer_norms", "eigenvalues",
        )
    }  # fmt: skip
    # every parameter group of the reference has one column; where ours is finer or coarser it reads by name
    group_of = {id(p): g for g in optimizer.param_groups for p in g["params"]}
    leads = [
        next(values[name] for name in group["params"] if id(values[name]) in group_of)
        for group in case.settings["groups"]
    ]

    def norms(names: list[str], of: Mapping[str, Tensor]) -> list[float]:
        return [of[name].double().norm().item() for name in names]

    for step in range(steps):
        rate = set_learning_rates(optimizer, config, step, per_epoch)
        if answer.each_step:
            answer.each_step(method, case, step)
        info = StepInfo(step, steps, per_epoch)
        method.before_step(info)
        views = list(case.tensor("in.views")[step])
        first = None if step or isinstance(answer.first, str) else _untouched(method, answer.first, views[0])
        result = method.loss(views)
        if isinstance(answer.first, str):
            first = result.taps[answer.first]
        if step == 0:
            case.check("out.first_z1", first)
        optimizer.zero_grad()
        result.loss.backward()
        method.after_backward()
        seen["loss"].append(result.loss.item())
        seen["lr"].append([group_of[id(lead)]["lr"] if id(lead) in group_of else rate for lead in leads])
        gradients = {n: values[n].grad for n in columns["trainable"]}
        seen["grad_norms"].append(
            [0.0 if (g := gradients[n]) is None else g.norm().item() for n in gradients]
        )
        optimizer.step()
        method.after_step(info)
        if case.settings["ema"]:
            ema = case.settings["ema"]
            seen["tau"].append(cosine_tau(ema["base"], ema["final"], step / steps))
        values = dict(method.named_parameters()) | dict(method.named_buffers())  # a buffer may be bound anew
        seen["param_norms"].append(norms(columns["params"], values))
        seen["delta_norms"].append(
            norms(columns["params"], {n: values[n].detach() - start[n] for n in columns["params"]})
        )
        # C and its like, which a reference tracks for its logs only, are not ours
        held = [n for n in columns["buffers"] if n in values]
        seen["buffer_norms"].append(norms(held, values))
        if "C" in values:
            seen["eigenvalues"].append(torch.linalg.eigvalsh(values["C"]).numpy())
    _check_steps(case, seen, values)
    _check_end(case, optimizer, values)


answers("simsiam", "simsiam", widths)
answers(
    "simsiam_official",
    "simsiam",
    lambda given: {"proj_output_dim": given["dim"], "pred_hidden_dim": given["pred_dim"]},
)
answers("byol", "byol", widths)
answers("byol_no_ema", "byol", widths)
answers(
    "byol_target_before_step",
    "byol",
    lambda given: {
        "proj_hidden_dim": given["mlp_dim"],
        "proj_output_dim": given["dim"],
        "pred_hidden_dim": given["mlp_dim"],
        "bias": False,
        "target_update": "before-target",
    },
)


def closed_form(given: Mapping[str, Any]) -> dict[str, Any]:
    """The options of implicit-var-reg's one class for three methods."""
    common = widths(given) | {
        "eps": given["eps_iso"],
        "normalise": given["dp_normalize"],
        "correlation_momentum": given["dp_tau"],
        "distance": "euclidean" if given["use_l2"] else "cosine",
    }
    return common | ({"alpha": given["dp_alpha"]} if given["dp_alpha"] != 1.0 else {})


for case in ("cos", "cos_n_below_d", "no_ema_euclidean", "alpha2"):
    answers(f"directpred_{case}", "directpred", closed_form)
answers("directcopy", "directcopy", closed_form)
answers("isoloss_cos", "isoloss", closed_form)
answers("isoloss_euclidean", "isoloss", closed_form)


def filtered(given: Mapping[str, Any]) -> dict[str, Any]:
    """RDM's options, whose names are ours."""
    return widths(given) | {k: given[k] for k in ("pred_type", "pred_location", "sigma") if k in given}


for case in ("rdm_simsiam_target_m1", "rdm_simsiam_online_poly1", "rdm_simsiam_online_log1"):
    answers(case, "rdm_simsiam", filtered)
answers("rdm_byol_online_poly1", "rdm_byol", filtered)
answers(
    "cplearn",
    "cplearn",
    lambda given: {
        "embedding_dim": given["proj_hidden_dim"],
        "num_codes": given["proj_output_dim"],
        "beta": given["beta"],
    },
    first=_before_tanh,
)
