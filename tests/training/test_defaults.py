"""Defaults suit method, backbone, images and what else was asked for."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.cli.train import named_settings, parse_options
from fullrank.errors import UsageError
from fullrank.methods import METHODS
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.defaults import Situation, as_settings, default_settings
from fullrank.training.planning import plan_run
from fullrank.training.recipes import load_recipe, recipe_names

DOCS = Path(__file__).parents[2] / "docs"
every_method = pytest.mark.parametrize("name", list(METHODS))
VIT = "vit_tiny_patch16_224"


def chosen(method: str, images: int = 2000, size: int = 32, backbone: str = "resnet18", **named: Any) -> Any:
    found = default_settings(Situation(method, images, size, backbone, named=named))
    return {key: default.value for key, default in found.items()}


@every_method
@given(images=st.integers(2, 10**7), size=st.sampled_from([8, 32, 64, 96, 224]), vit=st.booleans())
@settings(max_examples=15, deadline=None)
def test_every_default_is_a_valid_run_with_a_reason(name: str, images: int, size: int, vit: bool) -> None:
    found = default_settings(Situation(name, images, size, VIT if vit else "resnet18"))
    config = make_train_config(name, as_settings(found))
    assert 1 <= config.batch_size <= images
    assert all(default.reason and "\n" not in default.reason for default in found.values())


@every_method
def test_a_transformer_is_never_trained_with_lars_or_sgd(name: str) -> None:
    for images in (40, 2_000, 200_000):
        found = chosen(name, images, 224, VIT)
        assert found["optimizer"] == "adamw" and found["lr"] * found["batch_size"] / 256 <= 1e-3
        assert found["weight_decay"] < found["final_weight_decay"]
        assert found["warmup_epochs"] and found["schedule"] == "cosine"


@every_method
def test_small_batches_are_never_trained_with_lars(name: str) -> None:
    assert chosen(name)["optimizer"] != "lars"
    if METHODS[name].small_image_defaults.get("optimizer") == "lars":
        large = chosen(name, 200_000, batch_size=4096)
        assert (large["optimizer"], large["lr"]) == ("lars", METHODS[name].defaults(32)["lr"])


@pytest.mark.parametrize(
    ("size", "stem"), [(32, "cifar"), (64, "cifar"), (96, "imagenet"), (224, "imagenet")]
)
@pytest.mark.parametrize("backbone", ["resnet8-w16", "resnet18", "resnet50"])
def test_the_stem_follows_the_image_size(size: int, stem: str, backbone: str) -> None:
    assert chosen("simsiam", size=size, backbone=backbone)["stem"] == stem


def test_few_images_get_more_epochs_and_smaller_batches() -> None:
    few, many = chosen("simsiam", 40), chosen("simsiam", 200_000)
    assert few["epochs"] > many["epochs"] == 100
    assert few["batch_size"] < many["batch_size"] == 256


def test_a_loss_that_compares_images_gets_more_of_them() -> None:
    few = [chosen(method, 300)["batch_size"] for method in ("simsiam", "vicreg")]
    assert few == [16, 64]
    assert chosen("vicreg", 40)["batch_size"] == chosen("simsiam", 40)["batch_size"] == 16


def test_a_moving_average_follows_the_steps() -> None:
    averages = [chosen("byol", images).get("options.tau_base", 0.99) for images in (300, 2_000, 20_000)]
    assert averages == sorted(averages) and averages[0] < averages[1] < 0.99
    assert chosen("byol", 2_000, epochs=1000).get("options.tau_base") is None


@pytest.mark.parametrize("method", ["nnsiam", "swav", "dino"])
def test_queues_and_prototypes_are_fewer_than_the_images(method: str) -> None:
    found = chosen(method, 300)
    own = [found[key] for key in ("options.queue_size", "options.num_prototypes") if key in found]
    assert own and all(number < 300 for number in own)


@pytest.mark.parametrize(("optimizer", "lr"), [("lars", 1.0), ("adam", 1e-3), ("adamw", 1e-3), ("sgd", 0.05)])
def test_the_rate_follows_an_optimiser_that_was_asked_for(optimizer: str, lr: float) -> None:
    found = chosen("byol", optimizer=optimizer)
    assert found["lr"] == lr and "optimizer" not in found


def test_a_teacher_that_was_asked_for_is_not_made_another() -> None:
    assert chosen("teacher_student")["options.teacher"] == "ema"
    assert "options.centring" not in chosen("teacher_student", options={"teacher": "frozen"})


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--lr", "0.1"], {"lr": 0.1}),
        (["--batch-size=64", "--epochs=5"], {"batch_size": 64, "epochs": 5}),
        (["--no-nesterov"], {"nesterov": False}),
        (["--betas", "0.5", "0.9"], {"betas": (0.5, 0.9)}),
        (["--options.tau-base", "0.9", "--out", "x"], {"options": {"tau_base": 0.9}}),
        ([], {}),
    ],
)
def test_what_a_command_line_names_is_known(words: list[str], named: Mapping[str, Any]) -> None:
    assert named_settings(parse_options("byol", [], words, "fullrank train byol"), words) == named


def test_an_option_that_equals_a_default_is_named_all_the_same() -> None:
    words = ["--batch-size", "256"]
    assert named_settings(parse_options("simsiam", [], words, "fullrank train simsiam"), words)


def test_a_named_batch_that_the_images_cannot_fill_is_refused_and_a_default_adapts(tmp_path: Path) -> None:
    few = {"data": "digits", "limit": 20, "backbone": "resnet8-w4", "epochs": 1}
    plan = plan_run("simsiam", few)
    assert plan.config.batch_size == 20
    assert "batches of 20 images instead of 128: there are no more" in plan.notes
    named = plan_run("simsiam", {**few, "batch_size": 64})
    assert named.config.batch_size == 64

    from fullrank.training.run import train

    with pytest.raises(UsageError, match="use --batch-size 20 or fewer"):
        train(named.config, tmp_path / "run", data=named.data, named=named.named)


@pytest.mark.parametrize("recipe", ["shapes/byol", "digits/simsiam"])
def test_a_recipe_stays_as_it_was_published(recipe: str) -> None:
    values = load_recipe(recipe).settings
    expected = make_train_config(values["method"], values)
    assert plan_run(recipe, {}).config == expected
    assert recipe in recipe_names()


def test_a_recipes_warm_up_that_is_longer_than_the_run_adapts_and_a_named_one_is_refused() -> None:
    assert plan_run("digits/simsiam", {"epochs": 1}).config.warmup_epochs == -1
    words = ["--epochs", "1"]
    args = parse_options("simsiam", [load_recipe("digits/simsiam").settings], words, "fullrank train simsiam")
    assert args.warmup_epochs == -1
    with pytest.raises(UsageError, match="--warmup-epochs 2 is longer than the run's 1 epochs"):
        plan_run("digits/simsiam", {"epochs": 1, "warmup_epochs": 2.0})


def test_what_a_recipe_of_ones_own_leaves_open_is_chosen(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text(
        yaml.safe_dump({"method": "byol", "data": "digits", "lr": 0.07, "backbone": "resnet8-w4"})
    )
    plan = plan_run(str(mine), {"limit": 400})
    assert (plan.config.lr, plan.config.optimizer, plan.config.batch_size) == (0.07, "sgd", 16)
    assert len(plan.notes) == 1 and "400 images" not in plan.notes[0] and "byol" not in plan.notes[0]


def test_the_choice_is_printed_in_a_line() -> None:
    (note,) = plan_run("dino", {"data": "digits", "backbone": "resnet8-w4"}).notes
    assert note == (
        "chosen for these images: resnet8-w4 at 16 pixels, 100 epochs of 22 steps of 64 images, "
        "adamw at 0.002 x 64/256, decay 0.0001, EMA 0.9773; docs/defaults.md says why"
    )


def test_weight_decay_follows_a_cosine_and_spares_what_has_none() -> None:
    import torch

    from fullrank.methods import ParamGroup
    from fullrank.training.optim import build_optimizer, set_learning_rates

    config = TrainConfig(
        epochs=2, optimizer="adamw", weight_decay=0.04, final_weight_decay=0.4, exclude_1d_decay=True
    )
    params = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(2))]
    optimizer = build_optimizer([ParamGroup("backbone", params)], config)
    for step, expected in ((0, 0.04), (10, 0.22), (20, 0.4)):
        set_learning_rates(optimizer, config, step, 10)
        assert [group["weight_decay"] for group in optimizer.param_groups] == [pytest.approx(expected), 0.0]


def test_a_decay_that_ends_above_none_is_refused() -> None:
    with pytest.raises(UsageError, match="--final-weight-decay needs a --weight-decay above 0"):
        TrainConfig(weight_decay=0.0, final_weight_decay=0.1)


def test_the_page_of_the_docs_is_what_the_script_writes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    page = importlib.import_module("make_defaults_table").page()
    assert (DOCS / "defaults.md").read_text() == page, "run docs/make_defaults_table.py"
    sys.modules.pop("make_defaults_table")


@pytest.mark.parametrize("devices", [2, 3, 4])
@pytest.mark.parametrize("limit", [60, 300])
def test_a_batch_that_nobody_named_is_one_that_the_processes_share(devices: int, limit: int) -> None:
    settings = {"data": "digits", "limit": limit, "backbone": "resnet8-w8", "accelerator": "cpu"}
    alone = plan_run("simsiam", settings).config.batch_size
    plan = plan_run("simsiam", settings | {"devices": devices})
    assert plan.config.batch_size % devices == 0
    assert alone - devices < plan.config.batch_size <= alone
    said = any(f"{devices} processes share" in note for note in plan.notes)
    assert said == (plan.config.batch_size != alone)


def test_a_named_batch_that_the_processes_cannot_share_is_refused_before_data_is_opened() -> None:
    settings = {"data": "no such folder", "batch_size": 16, "devices": 3, "accelerator": "cpu"}
    with pytest.raises(UsageError, match=r"16 cannot be shared by 3 processes; .*, as 15"):
        plan_run("simsiam", settings)
