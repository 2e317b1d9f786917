"""What a configuration refuses, that it survives a file, and that every packaged recipe trains."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from fullrank.errors import UnknownNameError, UsageError
from fullrank.methods import METHODS, make_config
from fullrank.networks.backbones import build_backbone, default_backbone
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.recipes import load_recipe, recipe_names


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 0}, "--epochs must be at least 1, not 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"patience": 0}, "--patience must be at least 1"),
        ({"lr": -0.1}, "--lr must not be negative"),
        ({"checkpoint_every": -1}, "--checkpoint-every must not be negative"),
        ({"warmup_epochs": 11, "epochs": 10}, "--warmup-epochs 11 is longer than the run's 10 epochs"),
        ({"momentum": 1.0}, r"--momentum lies in \[0, 1\)"),
        ({"max_corrupt": 1.0}, r"--max-corrupt lies in \[0, 1\)"),
        (
            {"panels": "beside", "on_collapse": "stop"},
            "--on-collapse stop decides between epochs: take --panels",
        ),
        ({"method": "simsam"}, "did you mean 'simsiam'"),
        ({"options": {"proj_layer": 2}}, "did you mean 'proj_layers'"),
        ({"method": "byol", "options": {"tau_base": 2.0}}, "tau-base lies in"),
    ],
)
def test_a_value_out_of_range_is_refused_by_its_flag(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TrainConfig(**changes)


@pytest.mark.parametrize("name", list(METHODS))
def test_a_configuration_survives_a_yaml_file(name: str) -> None:
    config = make_train_config(name, {"betas": (0.8, 0.95), "log": ("tensorboard",), "lr": 1e-5})
    back = TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.as_dict())))
    assert back.as_dict() == config.as_dict()
    assert back.betas == (0.8, 0.95)
    assert back.lr == 1e-5


def test_a_saved_configuration_spells_out_every_option_of_the_method() -> None:
    saved = TrainConfig(method="byol", options={"tau_base": 0.9}).as_dict()["options"]
    assert saved["tau_base"] == 0.9
    assert saved["tau_final"] == METHODS["byol"].Config().tau_final


def test_an_unknown_key_is_refused_with_the_nearest_real_one() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'batch_size'"):
        TrainConfig.from_dict({"batchsize": 3})


def test_later_layers_win_and_options_merge_key_by_key() -> None:
    config = make_train_config(
        "byol",
        {"lr": 1.0, "epochs": 5, "options": {"tau_base": 0.5, "proj_output_dim": 7}},
        {"lr": 2.0, "options": {"tau_base": 0.6}},
    )
    assert (config.lr, config.epochs) == (2.0, 5)
    assert config.options == {"tau_base": 0.6, "proj_output_dim": 7}


def recipe_file(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text)
    return str(path)


def test_a_recipe_of_ones_own_is_a_file(tmp_path: Path) -> None:
    recipe = load_recipe(recipe_file(tmp_path, "method: byol\nabout: mine\nlr: 1e-3\n"))
    assert (recipe.about, recipe.settings) == ("mine", {"method": "byol", "lr": "1e-3"})
    assert make_train_config("byol", recipe.settings).lr == 0.001  # though YAML wants a dot for a number


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method: simsiam\nepoch: 3\n", "unknown key 'epoch'; did you mean 'epochs'"),
        ("method: simsiam\noptions: {proj_layer: 3}\n", "did you mean 'proj_layers'"),
        ("method: byool\n", "did you mean 'byol'"),
        ("- a\n- b\n", "must be a mapping with a `method`"),
        ("epochs: 3\n", "must be a mapping with a `method`"),
        ("method: [\n", "is not valid YAML"),
    ],
)
def test_a_recipe_that_cannot_be_is_refused(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_recipe(recipe_file(tmp_path, text))


def test_a_recipe_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no recipe file"):
        load_recipe(str(tmp_path / "none.yaml"))
    with pytest.raises(UnknownNameError, match="did you mean 'shapes/simsiam'"):
        load_recipe("shapes/simsam")


@pytest.mark.parametrize(
    "line",
    [
        "schedule: cosin", "lr_scaling: liner", "stem: cifr", "optimizer: sdg", "precision: fp8",
        "on_collapse: explode", "accelerator: tpu", "log: [tensorbord]", "log: tensorboard", "sync_bn: 'no'",
        "epochs: 2.5", "epochs: ten", "lr: .nan", "betas: 0.9", "betas: [2.0, 0.9]", "options: 3",
        "options: {proj_output_dim: wide}", "options: {stop_gradient: maybe}",
    ],
)  # fmt: skip
def test_a_recipes_value_of_the_wrong_kind_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(UsageError):
        load_recipe(recipe_file(tmp_path, f"method: simsiam\n{line}\n"))


@cache
def feature_dim(backbone: str) -> int:
    return build_backbone(backbone, 32).feature_dim


def test_every_recipe_names_the_widths_that_would_be_narrower_than_the_papers() -> None:
    """Recipes with a width unnamed are on backbones that are wide enough for the paper's."""
    for recipe in recipe_names():
        config = make_train_config(load_recipe(recipe).settings["method"], load_recipe(recipe).settings)
        chosen = make_config(METHODS[config.method], config.options)
        papers = [knob.name for knob in dataclasses.fields(chosen) if knob.metadata.get("paper")]
        backbone = default_backbone(32) if config.backbone == "auto" else config.backbone
        fitted, full = chosen.fit(feature_dim(backbone)), chosen.fit(512)
        assert {w: getattr(fitted, w) for w in papers} == {w: getattr(full, w) for w in papers}, recipe
