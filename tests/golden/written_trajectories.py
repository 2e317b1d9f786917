"""Recordings of whole optimisations under new names, with other networks, optimisers and schedules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from fullrank.methods import METHODS, Method, make_config
from fullrank.networks.soft_targets import Prototypes
from fullrank.training.config import TrainConfig
from fullrank.training.optim import build_optimizer
from golden.settings import Settings
from golden.trajectories.architectures import ListedBackbone
from golden.written import Array, Recipe, recipe

PERCEPTRON: list[dict[str, Any]] = [
    {"name": "stem", "type": "Linear", "inp": 5, "out": 9, "bias": True},
    {"name": "norm", "type": "BatchNorm1d", "features": 9, "eps": 1e-3, "momentum": 0.3},
    {"name": "act", "type": "Tanh"},
    {"name": "last", "type": "Linear", "inp": 9, "out": 7, "bias": False},
]
CONVOLUTIONS: list[dict[str, Any]] = [
    {
        "name": "conv1",
        "type": "Conv2d",
        "inp": 2,
        "out": 4,
        "kernel": 3,
        "stride": 2,
        "padding": 1,
        "bias": False,
    },
    {"name": "bn1", "type": "BatchNorm2d", "features": 4},
    {"name": "relu1", "type": "ReLU"},
    {"name": "pool1", "type": "MaxPool2d", "kernel": 2},
    {"name": "conv2", "type": "Conv2d", "inp": 4, "out": 6, "kernel": [1, 1], "bias": True},
    {"name": "pool2", "type": "AdaptiveAvgPool2d", "output_size": 1},
]
STEPS, ROWS = 5, 10
WARM = {
    "name": "warmup_cosine",
    "warmup_steps": 3,
    "warmup_start_lr": 0.004,
    "min_lr": 0.001,
    "interval": "step",
}


def described(module: nn.Module) -> list[dict[str, Any]]:
    """Layers of one of our heads as settings list them."""
    if isinstance(module, Prototypes):
        count, dim = module.v.shape
        return [
            {"name": "last", "type": "Linear", "inp": dim, "out": count, "bias": False, "weight_norm": True}
        ]
    layers = []
    for name, layer in module.named_children():
        options: dict[str, Any] = {"name": name, "type": type(layer).__name__}
        if isinstance(layer, nn.Linear):
            options |= {"inp": layer.in_features, "out": layer.out_features, "bias": layer.bias is not None}
        elif isinstance(layer, nn.BatchNorm1d):
            options |= {"features": layer.num_features, "affine": layer.affine, "eps": layer.eps}
        layers.append(options)
    return layers


def grouped(method: Method, config: TrainConfig, extra: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Parameter groups as settings list them, with the options of ours."""
    names = {id(p): name for name, p in method.named_parameters()}
    groups = []
    for group in build_optimizer(method.param_groups(), config).param_groups:
        start: dict[str, Any] = {
            key: group[key] for key in ("momentum", "betas", "weight_decay", "nesterov") if key in group
        }
        start |= {"lr": 0.0, "initial_lr": group["base_lr"], **extra}
        groups.append({"params": [names[id(p)] for p in group["params"]], "at_start": start})
    return groups


def state_of(method: Method, draw: np.random.Generator) -> dict[str, Array]:
    """Random parameters, and statistics as they start; the target's are those of the online network."""
    kept = {}
    for name, value in method.state_dict().items():
        if name.startswith("target.") or name.endswith("num_batches_tracked"):
            continue
        scale = 0.3 * draw.standard_normal(tuple(value.shape))
        if name.endswith("prototypes.g"):
            scale = np.ones(tuple(value.shape))
        kept[name] = scale.astype(np.float32) if name in dict(method.named_parameters()) else value.numpy()
    return kept


def trajectory(
    draw: np.random.Generator,
    function: str,
    given: Mapping[str, Any],
    ours: tuple[str, Mapping[str, Any]],
    *,
    optimizer: tuple[str, Mapping[str, Any]] = ("SGD", {"momentum": 0.7}),
    schedule: Mapping[str, Any] = WARM,
    tau: tuple[float, float] | None = None,
    backbone: list[dict[str, Any]] = PERCEPTRON,
    extra: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Array] | None = None,
    outputs: Mapping[str, tuple[int, ...]] | None = None,
) -> Recipe:
    """A trajectory of five of six steps, three an epoch, whose network is the one that `ours` builds."""
    name, options = ours
    width = 7 if backbone is PERCEPTRON else 6
    method = METHODS[name](
        ListedBackbone([Settings(layer) for layer in backbone], width),
        width,
        make_config(METHODS[name], options),
    )
    base, decay = 0.05, 0.003
    common = {"method": name, "lr": base, "lr_scaling": "none", "weight_decay": decay}
    momenta = {key: value for key, value in optimizer[1].items() if key in ("momentum", "betas", "nesterov")}
    config = TrainConfig.from_dict(common | {"optimizer": optimizer[0].lower()} | momenta)
    heads = [part for part in ("projector", "predictor", "prototypes") if hasattr(method, part)]
    parameters = dict(method.named_parameters())
    buffers = [
        n for n, _ in method.named_buffers() if not n.endswith(("num_batches_tracked", "bits", "batch_rows"))
    ]
    trainable = [n for n, p in parameters.items() if p.requires_grad]
    groups = grouped(method, config, extra or {})
    configured = {"lr": base, "wd": decay, "kwargs": dict(optimizer[1])}
    settings = {
        "n": ROWS, "steps": STEPS, "views": 2, "method_kwargs": dict(given),
        "optimizer": {"name": optimizer[0], "configured": configured},
        "schedule": {"epochs": 2, "steps_per_epoch": 3, "total_steps": 6, "base_lr": base, **schedule},
        "ema": None if tau is None else {"base": tau[0], "final": tau[1]},
        "architecture": {"backbone": backbone} | {part: described(getattr(method, part)) for part in heads},
        "groups": groups,
        "columns": {"params": [*parameters], "trainable": trainable, "buffers": buffers},
    }  # fmt: skip
    shape = (5,) if backbone is PERCEPTRON else (2, 8, 6)
    views = draw.standard_normal((STEPS, 2, ROWS, *shape)).astype(np.float16)
    recorded: dict[str, tuple[int, ...]] = {
        f"out.{key}": () for key in ("loss", "lr", "first_z1", "first_z2")
    }
    recorded |= {f"out.{key}_norms": (STEPS, len(parameters)) for key in ("param", "delta")}
    recorded |= {"out.grad_norms": (STEPS, len(trainable)), "out.buffer_norms": (STEPS, len(buffers))}
    recorded |= {f"out.final/{n}": () for n in [*parameters, *buffers]}
    if tau is not None:
        recorded["out.tau"] = ()
    state = {f"state/{key}": value for key, value in state_of(method, draw).items()}
    loose = {"default": {"rtol": 1e-8, "atol": 1e-12}}
    return Recipe(
        settings,
        {"views": views, **state, **(inputs or {})},
        recorded | dict(outputs or {}),
        {"function": function, "tolerance": loose},
    )


HEADS = {"proj_hidden_dim": 8, "proj_output_dim": 4}


@recipe("13_trajectory__never_heard_of")
def byol_of_convolutions(draw: np.random.Generator) -> Recipe:
    given = HEADS | {"pred_hidden_dim": 3}
    return trajectory(
        draw, "BYOL (whole training loop)", given, ("byol", given), tau=(0.9, 0.97), backbone=CONVOLUTIONS,
        optimizer=("LARS", {"momentum": 0.6, "clip_lr": True, "eta": 0.05, "exclude_bias_n_norm": True}),
        extra={"eps": 1e-8, "eta": 0.05, "clip_lr": True, "exclude_bias_n_norm": True, "momentum": 0.6},
    )  # fmt: skip


@recipe("13_trajectory__plain_script")
def simsiam_of_two_layers(draw: np.random.Generator) -> Recipe:
    ours = HEADS | {"pred_hidden_dim": 3, "proj_layers": 2}
    made = trajectory(
        draw, "train; adjust_learning_rate; SimSiam", {"dim": 4, "pred_dim": 3}, ("simsiam", ours),
        schedule={"name": "epoch_cosine", "formula": "once per epoch"},
    )  # fmt: skip
    made.settings["optimizer"]["configured"] |= {"fix_pred_lr": True, "lr": 0.05 * 256 / ROWS}
    return made


@recipe("13_trajectory__script_with_target")
def mocov3_before_target(draw: np.random.Generator) -> Recipe:
    return trajectory(
        draw, "train; MoCo_ResNet", {"dim": 4, "mlp_dim": 8, "T": 0.5},
        ("mocov3", HEADS | {"pred_hidden_dim": 8, "temperature": 0.5}), tau=(0.7, 1.0),
        schedule={"name": "fractional_epoch_warmup_cosine", "warmup_epochs": 0.5},
    )  # fmt: skip


@recipe("13_trajectory__whitened")
def wmse(draw: np.random.Generator) -> Recipe:
    own = HEADS | {"whitening_iters": 2, "whitening_size": 10, "whitening_eps": 0.1}
    perm = np.stack([[draw.permutation(ROWS) for _ in range(2)] for _ in range(STEPS)])
    made = trajectory(
        draw, "WMSE (whole training loop)", own, ("wmse", own), optimizer=("Adam", {"betas": [0.8, 0.95]}),
        extra={"eps": 1e-8, "amsgrad": False}, inputs={"perm": perm},
    )  # fmt: skip
    # biases in front of a normalisation
    made.settings["columns"]["zero_gradient"] = ["backbone.stem.bias", "projector.0.bias", "projector.3.bias"]
    # which Adam moves by what rounding leaves of their gradient, and with them the mean behind
    made.about["single_precision_deviation"] = {"final/backbone.norm.running_mean": 1e-4}
    return made


@recipe("13_trajectory__mixture_of_codes")
def dino(draw: np.random.Generator) -> Recipe:
    own: dict[str, Any] = HEADS | {
        "num_prototypes": 6,
        "freeze_last_layer": 1,
        "use_bn_in_head": True,
        "norm_last_layer": False,
    }
    own |= {"student_temperature": 0.3, "teacher_temperature": 0.2, "warmup_teacher_temperature": 0.1}
    own |= {"warmup_teacher_temperature_epochs": 2}
    temperatures: dict[str, tuple[int, ...]] = {"out.teacher_temperature": ()}
    return trajectory(
        draw,
        "DINO (whole training loop)",
        own | {"clip_grad": 0.1},
        ("dino", own),
        tau=(0.8, 0.9),
        schedule={"name": "step", "milestones": [1], "gamma": 0.1},
        outputs=temperatures,
    )


@recipe("13_trajectory__power_of_three_quarters")
def directpred(draw: np.random.Generator) -> Recipe:
    given = HEADS | {"dp_alpha": 0.75, "dp_normalize": False, "dp_tau": 0.4, "eps_iso": 0.05, "iso": False}
    ours = HEADS | {"alpha": 0.75, "normalise": False, "correlation_momentum": 0.4, "eps": 0.0}
    return trajectory(
        draw, "DirectPred (whole training loop)", given | {"use_l2": True, "log_eigvals": True},
        ("directpred", ours | {"distance": "euclidean"}), tau=(0.0, 0.5), outputs={"out.eigenvalues": ()},
    )  # fmt: skip


@recipe("13_trajectory__filtered")
def rdm(draw: np.random.Generator) -> Recipe:
    own = HEADS | {"pred_type": "poly", "pred_location": "online", "sigma": 0.4}
    return trajectory(
        draw,
        "RDMSimSiam (whole training loop)",
        own,
        ("rdm_simsiam", own),
        outputs={"out.singular_values": ()},
    )


@recipe("13_trajectory__decorrelated")
def barlow_twins(draw: np.random.Generator) -> Recipe:
    own = HEADS | {"lamb": 0.02}
    return trajectory(
        draw,
        "BarlowTwins (whole training loop)",
        own | {"scale_loss": 0.3},
        ("barlow_twins", own | {"scale": 0.3}),
        optimizer=("SGD", {"momentum": 0.8, "nesterov": True}),
        schedule=WARM | {"interval": "epoch", "warmup_steps": 1},
    )


@recipe("13_trajectory__assigned")
def swav(draw: np.random.Generator) -> Recipe:
    own: dict[str, Any] = HEADS | {
        "num_prototypes": 6,
        "sk_iters": 2,
        "sk_epsilon": 0.1,
        "temperature": 0.2,
        "queue_size": 15,
    }
    own |= {"epoch_queue_starts": 1, "freeze_prototypes_epochs": 0}
    return trajectory(draw, "SwAV (whole training loop)", own, ("swav", own))
