"""Every packaged recipe is complete, says where it is from, and trains."""

from __future__ import annotations

import dataclasses
import functools
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from fullrank.errors import UnknownNameError
from fullrank.images.named import DATA
from fullrank.methods import METHODS, StepInfo, build_method
from fullrank.networks.backbones import build_backbone, default_backbone
from fullrank.training import setup
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.optim import build_optimizer, set_learning_rates
from fullrank.training.recipes import load_recipe, recipe_names
from fullrank.views import VIEWS, Views

RECIPES = recipe_names()
every_recipe = pytest.mark.parametrize("name", RECIPES)

recipe_of = functools.cache(load_recipe)


@functools.cache
def config_of(name: str) -> TrainConfig:
    recipe = recipe_of(name)
    return make_train_config(recipe.settings["method"], recipe.settings)


def image_size(config: TrainConfig) -> int:
    return config.image_size or DATA[config.data].size or 224


def roles_of(config: TrainConfig) -> tuple[str, ...]:
    views = Views(config.views, 32, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    return setup._roles(views, config)  # raises where views have roles and the method has no branches


def take_a_step(config: TrainConfig, side: int, images: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    """The loss of one optimiser step on noise, and the norms of the backbone's weights before and after."""
    torch.manual_seed(0)
    name = default_backbone(side) if config.backbone == "auto" else config.backbone
    backbone = build_backbone(
        name,
        side,
        stem=config.stem,
        zero_init_residual=config.zero_init_residual,
        sides=VIEWS[config.views].sides(side),
    )
    method = build_method(config.method, backbone.network, backbone.feature_dim, config.options)
    method.roles = roles_of(config)
    optimizer = build_optimizer(method.param_groups(), config)
    sides = [view.side(side) for view in VIEWS[config.views].views]

    def weights() -> Tensor:
        return torch.stack([p.detach().norm() for p in method.backbone.parameters()])

    before = weights()
    set_learning_rates(optimizer, config, step=1, steps_per_epoch=10)
    method.before_step(StepInfo(1, 10 * config.epochs, 10))
    loss = method([torch.randn(images, 3, s, s) for s in sides]).loss
    loss.backward()
    method.after_backward()
    optimizer.step()
    method.after_step(method.info)
    return loss.detach(), before, weights()


def trains(config: TrainConfig, side: int, images: int = 4) -> bool:
    """Whether a step has a finite loss, and changes the weights to others that are finite."""
    loss, before, after = take_a_step(config, side, images)
    return bool(loss.isfinite()) and bool(after.isfinite().all()) and not torch.equal(before, after)


def small_crops_of_a_transformer(config: TrainConfig) -> bool:
    return config.backbone.startswith("vit_") and len(VIEWS[config.views].sides(224)) > 1


@functools.cache
def trains_small(settings: str) -> bool:
    """A step on small images, taken once for recipes that differ in nothing but their data."""
    config = TrainConfig.from_dict(yaml.safe_load(settings))
    if config.method == "wmse":  # takes more images than dimensions
        return trains(config, 16, images=config.options["proj_output_dim"] + 16)
    if small_crops_of_a_transformer(config):  # whose patches are 16 pixels wide
        return trains(config, config.image_size or 224, images=2)
    return trains(config, 16 if config.stem == "cifar-pad2" else 32)


def with_the_costly_ones_slow() -> list[Any]:
    """Every recipe; a further ResNet-50 of a method that a quick test has seen with one is slow."""
    seen: set[str] = set()
    marked = []
    for name in RECIPES:
        config = config_of(name)
        large = config.backbone == "resnet50" or small_crops_of_a_transformer(config)
        marked.append(pytest.param(name, marks=pytest.mark.slow if large and config.method in seen else ()))
        seen |= {config.method} if large else set()
    return marked


@pytest.mark.parametrize("name", with_the_costly_ones_slow())
def test_a_recipe_takes_a_step_that_changes_its_backbone(name: str) -> None:
    assert trains_small(yaml.safe_dump(config_of(name).as_dict() | {"data": "any"}))


def one_for_each_backbone() -> list[str]:
    """A recipe for every backbone, stem and size of images."""
    first: dict[tuple[str, str, int], str] = {}
    for name in RECIPES:
        config = config_of(name)
        first.setdefault((config.backbone, config.stem, image_size(config)), name)
    return list(first.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", one_for_each_backbone())
def test_every_backbone_takes_a_step_on_images_as_large_as_its_data(name: str) -> None:
    config = config_of(name)
    assert trains(config, image_size(config), images=2)


@every_recipe
@pytest.mark.parametrize("where", ["key", "option"])
def test_a_recipe_with_a_mistyped_key_is_refused(name: str, where: str, tmp_path: Path) -> None:
    file = resources.files("fullrank") / "recipes" / f"{name}.yaml"
    values = yaml.safe_load(file.read_text())
    part = values if where == "key" else values.setdefault("options", {})
    real = "epochs" if where == "key" else dataclasses.fields(METHODS[values["method"]].Config)[0].name
    part[f"{real}s"] = part.pop(real, 1)
    mine = tmp_path / "mine.yaml"
    mine.write_text(yaml.safe_dump(values))
    with pytest.raises(UnknownNameError, match=f"'{real}s'; did you mean '{real}'"):
        load_recipe(str(mine))


@pytest.mark.parametrize("method", list(METHODS))
def test_every_method_has_a_recipe(method: str) -> None:
    assert method in {recipe_of(name).settings["method"] for name in RECIPES}


@every_recipe
def test_a_recipe_says_what_it_is_lies_in_the_folder_of_its_data_and_has_views_that_suit(name: str) -> None:
    recipe, config = recipe_of(name), config_of(name)
    for line in (recipe.about, recipe.source, recipe.aims_at):
        assert line and "\n" not in line and len(line) < 160
    assert config.data in DATA
    assert name.split("/")[0] == config.data
    assert config.views in VIEWS
    assert roles_of(config)


def decisive(config: TrainConfig) -> dict[str, Any]:
    """What a run's outcome hangs on, without the knobs of other optimisers."""
    values = config.as_dict()
    keys = [
        "backbone", "stem", "zero_init_residual", "views", "epochs", "batch_size", "accumulate", "optimizer",
        "lr", "lr_scaling", "weight_decay", "exclude_1d_decay", "schedule", "warmup_epochs", "final_lr",
        "clip_grad", "precision", "sync_bn",
    ]  # fmt: skip
    keys += ["warmup_lr"] if config.schedule == "cosine" and config.warmup_epochs else []
    keys += ["momentum"] if config.optimizer in ("sgd", "lars") else ["betas"]
    if config.optimizer == "lars":
        keys += ["lars_variant", "lars_eta", "lars_clip", "lars_exclude_1d"]
    return {key: values[key] for key in keys}


@every_recipe
def test_a_recipe_leaves_nothing_that_matters_to_the_methods_defaults(name: str) -> None:
    recipe = recipe_of(name)
    method = recipe.settings["method"]
    alone = make_train_config(method, recipe.settings)
    defaults = METHODS[method].defaults(image_size(alone))
    assert decisive(make_train_config(method, defaults, recipe.settings)) == decisive(alone)


def test_one_configuration_has_one_recipe() -> None:
    seen: dict[str, str] = {}
    for name in RECIPES:
        spelt = yaml.safe_dump(config_of(name).as_dict())
        assert seen.setdefault(spelt, name) == name, f"{name} is {seen[spelt]}"
