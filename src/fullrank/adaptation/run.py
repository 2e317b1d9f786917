"""Start of an adaptation, and its resumption."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from fullrank.adaptation.loop import AdaptLoop
from fullrank.adaptation.options import NO_DATA, AdaptOptions
from fullrank.adaptation.page import write_pages
from fullrank.adaptation.result import (
    Adaptation,
    AdaptationSettings,
    is_adaptation,
    read_result,
    read_settings,
)
from fullrank.coercion import load_yaml
from fullrank.encoders.checkpoints import CHECKPOINT_SUFFIXES
from fullrank.encoders.initial import open_initial_weights
from fullrank.errors import DataError, UsageError, first_line
from fullrank.training import run as training
from fullrank.training.config import TrainConfig
from fullrank.training.planning import RunPlan, plan_run
from fullrank.training.records import Listener
from fullrank.untrusted.paths import expand_user

STEPS = 300  # optimiser steps of an adaptation, where epochs are not named
PANELS = 8  # comparisons with the start
STAGES = 8  # of which each stage of the release takes one
SMALL_RATE = 0.5  # of the rate that a training from scratch takes
LAYER_DECAY = 0.75
WATCHED = 600  # held-out images
LEAST_HELD_OUT = 8
FITTED = {"batch_size", "accumulate", "image_size", "checkpoint_activations", "stem", "mean", "std"}


def adapt(
    model: str, options: AdaptOptions, out: Path | None = None, listeners: Sequence[Listener] = ()
) -> Adaptation:
    """Adapt an encoder to images, or go on where that was interrupted.

    Args:
        model: as `open_encoder` takes it.
        options: of the adaptation.
        out: the run directory; None: named after model and data.
        listeners: each is called with every record as it is written.

    Raises:
        UsageError: anything about the input that cannot work, before anything is written; or `out` is another
            run.
        DataError: there are too few images to compare encoders on.
        FullrankError: the start itself cannot be measured.
    """
    if not options.data.strip():
        raise UsageError(NO_DATA)
    out = out or default_folder(model, options.data)
    settings = AdaptationSettings(model, options.keep, options.patience, options.labels)
    asked = settings_of(model, options)
    plan = plan_run(options.method, asked, open_initial_weights)
    if plan.initial is None or not plan.initial.backbone:
        raise UsageError(
            f"{model} cannot be built here with all of its weights, and so not trained on: take one of timm, "
            "a run, or a ResNet or ViT of another library"
        )
    if (held_out := len(plan.data.held_out)) < LEAST_HELD_OUT:
        raise DataError(
            f"{options.data} has {held_out} held-out images, and encoders are compared on {LEAST_HELD_OUT} "
            "or more: add images, or a folder val"
        )
    config = adapted_config(plan)
    make_loop = partial(AdaptLoop, settings=settings)
    if _is_there(out, config, settings, plan.named):
        training.resume(out, listeners, open_initial_weights, make_loop=make_loop)
    else:
        training.train(config, out, listeners, plan.data, plan.initial, plan.named, make_loop)
    result = read_result(out)
    assert result is not None  # the loop has ended
    write_pages(out)
    return result


def _is_there(out: Path, config: TrainConfig, settings: AdaptationSettings, named: Collection[str]) -> bool:
    """Whether `out` is this adaptation, begun before."""
    if not (out / "config.yaml").is_file():
        return False
    if is_adaptation(out) and read_settings(out) != settings:
        raise UsageError(f"{out} exists already, of another adaptation: take another --out")
    compared = set(config.as_dict()) - (FITTED - set(named))
    return training.may_continue(config, out, compared)


def settings_of(model: str, options: AdaptOptions) -> dict[str, Any]:
    """Settings of a training that options of an adaptation name.

    Example:
        >>> settings_of("timm:resnet18", AdaptOptions(data="photos", epochs=5, settings=("freeze=stem",)))
        {'init': 'timm:resnet18', 'data': 'photos', 'epochs': 5, 'freeze': 'stem'}
    """
    names = ("epochs", "batch_size", "lr", "lora", "image_size", "seed", "limit", "download")
    given = {name: getattr(options, name) for name in names if getattr(options, name)}
    return {"init": model, "data": options.data, **given, **parse_settings(options.settings)}


def parse_settings(words: Sequence[str]) -> dict[str, Any]:
    """Settings as KEY=VALUE, those of the method as options.NAME=VALUE.

    Example:
        >>> parse_settings(["freeze=stem", "options.stop_gradient=false"])
        {'freeze': 'stem', 'options': {'stop_gradient': False}}
    """
    import yaml

    found: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals:
            raise UsageError(f"--settings takes KEY=VALUE, as in layer_decay=0.9, not {word}")
        try:
            value = load_yaml(text)
        except yaml.YAMLError as error:
            raise UsageError(f"--settings {word}: {first_line(error)}") from error
        group, dot, name = key.replace("-", "_").partition(".")
        if dot and group == "options":
            options[name] = value
        else:
            found[group + dot + name] = value
    return found | ({"options": options} if options else {})


def adapted_config(plan: RunPlan) -> TrainConfig:
    """Settings of an adaptation, from those of a training from the start.

    What was named stays. The rate is small, and smaller with every layer below the last; heads learn first.
    """
    config, named = plan.config, set(plan.named)
    steps = max(len(plan.data.train) // (config.batch_size * config.accumulate), 1)
    epochs = config.epochs if "epochs" in named else max(math.ceil(STEPS / steps), STAGES)
    own: dict[str, Any] = {
        "epochs": epochs,
        "lr": SMALL_RATE * config.lr,
        "layer_decay": 1.0 if config.lora else LAYER_DECAY,
        "warmup_epochs": -1.0,
        "thaw_epochs": max(epochs // STAGES, 1) if epochs > 1 else 0,
        "watch_every": max(epochs // PANELS, 1),
        "watch_images": WATCHED,
        "diagnostics_every": 0,
        "probe": "off",
    }
    fixed: dict[str, Any] = {
        "panels": "between",
        "on_collapse": "warn",
        "on_nan": "stop",
        "early_stop": 0,
        "devices": 1,
        "keep_checkpoints": 2,
    }
    return replace(config, **{k: v for k, v in own.items() if k not in named or k == "epochs"}, **fixed)


def default_folder(model: str, data: str) -> Path:
    """The run directory of an adaptation where none is named.

    Example:
        >>> default_folder("timm:resnet18", "/data/my photos").as_posix()
        'runs/adapt-timm-resnet18-to-my-photos'
    """
    path = expand_user(model)
    name = path.parent.name if path.name == "encoder.safetensors" else path.name
    for suffix in CHECKPOINT_SUFFIXES:
        name = name.removesuffix(suffix)
    words = (re.sub(r"[^\w.+-]+", "-", word) for word in (name, expand_user(data).resolve().name))
    return Path("runs", f"adapt-{'-to-'.join(words)}")
