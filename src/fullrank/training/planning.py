"""Plan of a run: what was asked for, what suits, and the images."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fullrank.coercion import coerce, shown
from fullrank.errors import UsageError
from fullrank.images.loader import check_shared, shared_batch
from fullrank.images.sources import Data
from fullrank.networks.backbones import default_backbone, require_backbone
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.data import open_run_data
from fullrank.training.defaults import Default, Situation, as_settings, default_settings, described
from fullrank.training.launch import expected_processes
from fullrank.training.networks import InitialWeights, OpenInitial
from fullrank.training.recipes import starting_point
from fullrank.training.setup import default_image_size
from fullrank.views import VIEWS


@dataclass(frozen=True)
class RunPlan:
    """A run before it starts.

    Attributes:
        config: all settings; what the images decide is still `auto` where nobody named it.
        data: the images, open.
        named: the settings that were asked for.
        chosen: the settings that suit the images, with reasons; empty for a recipe of the package.
        notes: a line each, of what was decided.
        initial: the weights that it starts from, open; None without any.
    """

    config: TrainConfig
    data: Data
    named: Collection[str]
    chosen: Mapping[str, Default]
    notes: Sequence[str]
    initial: InitialWeights | None = None


def plan_run(
    start: str, settings: Mapping[str, Any], open_initial: OpenInitial = lambda config: None
) -> RunPlan:
    """Plan a run of a method or recipe, with the settings that were asked for.

    A recipe of the package stays as it is but for a batch that the images cannot fill. All else that nobody
    named follows method, backbone, image size and number of images, see `default_settings`.

    Raises:
        UsageError: settings that cannot be.
        DataError: the images are not there.

    Example:
        >>> plan = plan_run("simsiam", {"data": "digits", "limit": 300, "backbone": "resnet8-w16", "lr": 0.1})
        >>> plan.config.lr, plan.config.batch_size, sorted(plan.named)
        (0.1, 128, ['backbone', 'data', 'limit', 'lr'])
    """
    if not isinstance(settings.get("options", {}), Mapping):
        raise UsageError(f"options of a method are a mapping, not {shown(settings['options'])}")
    data_name, init = str(settings.get("data", TrainConfig.data)), str(settings.get("init", ""))
    method, layers, recipe = starting_point(start, data_name, init)
    layers = [*layers, *shortened_warmup(_merged(*layers, settings), settings)]
    asked = make_train_config(method, *layers, settings)  # what is wrong is said before data is opened
    _refuse_unknown_names(asked)
    processes = expected_processes(asked)
    if "batch_size" in settings:
        check_shared(asked.batch_size, processes)
    initial = open_initial(asked)
    asked = initial.follow(asked) if initial else asked
    data = open_run_data(asked)
    images, size = len(data.train), asked.image_size or default_image_size(data.train)
    backbone = default_backbone(size) if asked.backbone == "auto" else asked.backbone
    chosen: dict[str, Default] = {}
    if recipe == method or recipe.endswith((".yaml", ".yml")):
        merged = _merged(*layers, settings)
        chosen = default_settings(Situation(method, images, size, backbone, asked.data, merged))
    config = make_train_config(method, as_settings(chosen), *layers, settings)
    notes = []
    if chosen:
        resolved = replace(config, image_size=size, backbone=backbone)
        notes.append(f"chosen for these images: {described(resolved, images)}; docs/defaults.md says why")
    elif recipe != start:
        notes.append(f"settings of the recipe {recipe}, tried on these images; your options win")
    if "batch_size" not in settings and config.batch_size > images > 1:
        notes.append(f"batches of {images} images instead of {config.batch_size}: there are no more")
        config = replace(config, batch_size=images)
    if "batch_size" not in settings and (shared := shared_batch(config.batch_size, processes)) <= images:
        if shared != config.batch_size:
            notes.append(f"batches of {shared} images, which {processes} processes share evenly")
        config = replace(config, batch_size=shared)
    return RunPlan(config, data, set(settings), chosen, notes, initial)


def _refuse_unknown_names(config: TrainConfig) -> None:
    if config.backbone != "auto":
        require_backbone(config.backbone)
    if config.views != "auto":
        _ = VIEWS[config.views]


def shortened_warmup(values: Mapping[str, Any], named: Collection[str]) -> list[dict[str, Any]]:
    """A layer of settings with a shorter warm-up, where a recipe's outlasts the run.

    Example:
        >>> shortened_warmup({"epochs": 1, "warmup_epochs": 2}, ["epochs"])
        [{'warmup_epochs': -1.0}]
    """
    given = {key: values[key] for key in ("epochs", "warmup_epochs") if key in values}
    checked = coerce(TrainConfig, given, "key")
    longer = "epochs" in named and checked.get("warmup_epochs", 0) > checked["epochs"]
    return [{"warmup_epochs": -1.0}] if longer and "warmup_epochs" not in named else []


def _merged(*layers: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: value for layer in layers for key, value in dict(layer.get("options", {})).items()}
    return {key: value for layer in layers for key, value in layer.items()} | {"options": options}
