"""A run goes on with the settings of its checkpoint, and says which others it was given."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest

from fullrank.cli.resume import Resume, changes_of
from fullrank.errors import FullrankError, UsageError
from fullrank.training.config import TrainConfig
from fullrank.training.contract import FREE, check_contract, check_same, differences, with_changes

CONFIG = TrainConfig(method="byol", data="shapes", backbone="resnet8-w16", image_size=32, epochs=10)
OTHER: dict[str, Any] = {
    "lr": 0.7, "seed": 3, "data": "digits", "image_size": 64, "backbone": "resnet18", "optimizer": "adam",
    "batch_size": 32, "weight_decay": 0.5, "precision": "bf16", "views": "simsiam", "limit": 9,
    "schedule": "constant", "options.tau_base": 0.5,
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_a_setting_that_changed_is_refused_with_both_values_and_the_option_that_allows_it(
    key: str, value: Any
) -> None:
    changed = with_changes(CONFIG, {key: value})
    with pytest.raises(UsageError, match=f"--override {re.escape(key)}") as caught:
        check_contract(changed, CONFIG.as_dict(), "runs/a")
    (before, now) = differences(CONFIG, changed)[key]
    assert str(before) in str(caught.value) and str(now) in str(caught.value)
    check_contract(changed, CONFIG.as_dict(), "runs/a", allowed=[key])


@pytest.mark.parametrize(
    ("key", "value"), [("epochs", 20), ("devices", 2), ("workers", 3), ("log", ["tensorboard"]), ("out", "b")]
)
def test_how_long_and_where_a_run_goes_on_may_always_change(key: str, value: Any) -> None:
    changed = with_changes(CONFIG, {key: value})
    check_contract(changed, CONFIG.as_dict(), "runs/a")
    assert list(differences(CONFIG, changed)) == [key]


def test_the_settings_that_are_free_exist() -> None:
    assert {field.name for field in dataclasses.fields(TrainConfig)} >= FREE


SETTINGS = {field.name for field in dataclasses.fields(TrainConfig)}
OPTIONS = sorted(field.name for field in dataclasses.fields(Resume) if field.name in SETTINGS)


@pytest.mark.parametrize("name", OPTIONS)
def test_every_setting_that_is_an_option_of_resume_reaches_the_run_and_may_always_change(name: str) -> None:
    before = getattr(Resume(""), name)
    value = ("tensorboard",) if isinstance(before, tuple) else "fsdp" if isinstance(before, str) else 7
    changed: dict[str, Any] = {name: value}
    assert changes_of(dataclasses.replace(Resume("runs/a"), **changed)) == changed
    assert name in FREE


def test_a_checkpoint_from_before_settings_were_kept_is_taken_as_it_is() -> None:
    changed = with_changes(CONFIG, {"lr": 9.0})
    check_contract(changed, None, "runs/a")
    assert differences(CONFIG, changed)


@pytest.mark.parametrize("stored", [{"lr": "much"}, {"no_such_key": 1}, {"method": "nothing"}, {1: 2}])
def test_settings_in_a_checkpoint_that_cannot_be_read_are_one_line(stored: dict[Any, Any]) -> None:
    with pytest.raises(FullrankError) as caught:
        check_contract(CONFIG, stored, "runs/a")
    assert "runs/a" in str(caught.value) and "\n" not in str(caught.value)


def test_many_differences_are_counted_and_not_all_listed() -> None:
    changed = with_changes(CONFIG, {k: v for k, v in OTHER.items() if "." not in k})
    with pytest.raises(UsageError, match=r"and \d+ more"):
        check_contract(changed, CONFIG.as_dict(), "runs/a")


@pytest.mark.parametrize(("text", "value"), [("0.5", 0.5), ("1e-3", 1e-3), ("1", 1.0)])
def test_numbers_of_a_command_line_are_read_as_the_setting_takes_them(text: str, value: float) -> None:
    assert with_changes(CONFIG, {"lr": text}).lr == value
    assert with_changes(CONFIG, {"options.tau_base": text}).options["tau_base"] == value


@pytest.mark.parametrize("key", ["learning_rate", "options.no_such", "options"])
def test_a_setting_that_does_not_exist_is_refused(key: str) -> None:
    with pytest.raises(UsageError):
        with_changes(CONFIG, {key: "1"})


def test_what_a_run_decided_itself_may_be_left_open_again() -> None:
    asked = TrainConfig(method="byol", data="shapes", epochs=10)
    check_same(asked, CONFIG, "runs/a", named=["data", "epochs"])
    assert set(differences(CONFIG, asked)) == {"backbone", "image_size"}


def test_what_memory_decided_is_not_held_against_who_did_not_ask_for_it() -> None:
    fitted = dataclasses.replace(CONFIG, batch_size=64, accumulate=4)
    check_same(CONFIG, fitted, "runs/a", named=["data"])
    with pytest.raises(UsageError, match="batch_size 64 instead of batch_size 256"):
        check_same(CONFIG, fitted, "runs/a", named=["batch_size"])


@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_a_run_of_other_settings_is_never_taken_for_this_one(key: str, value: Any) -> None:
    with pytest.raises(UsageError, match="exists already, with"):
        check_same(with_changes(CONFIG, {key: value}), CONFIG, "runs/a", named=None)


@pytest.mark.parametrize(("key", "value"), OTHER.items())
def test_a_run_of_other_settings_is_not_taken_for_one_of_the_defaults(key: str, value: Any) -> None:
    named = dataclasses.replace(CONFIG, views="shapes")  # auto would be whatever the run has
    with pytest.raises(UsageError, match=f"exists already, with .*{re.escape(key)}"):
        check_same(named, with_changes(named, {key: value}), "runs/a", named=None)


@pytest.mark.parametrize(
    ("key", "stored"),
    [("seed", 3), ("weight_decay", 0.1), ("clip_grad", 1.0), ("zero_init_residual", True), ("lora", 4),
     ("freeze", "stem"), ("checkpoint_activations", True), ("limit", 50), ("milestones", [3])],
)  # fmt: skip
def test_zero_and_no_that_somebody_typed_are_settings_too(key: str, stored: Any) -> None:
    nothing = TrainConfig(method="byol", weight_decay=0.0, schedule="step")
    there = with_changes(nothing, {key: stored})
    with pytest.raises(UsageError, match=key):
        check_same(nothing, there, "runs/a", named=[key])
