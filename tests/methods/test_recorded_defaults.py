"""Defaults are promises: a run that does not name an option is the same in the next version.

`defaults.json` has them as they are published; a change that is meant is made there too, and told.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import fullrank.methods
from fullrank.methods import METHODS

RECORDED = json.loads(Path(__file__).with_name("defaults.json").read_text())
PLAIN = (bool, int, float, str)


def options() -> dict[str, dict[str, Any]]:
    return {
        name: {each.name: each.default for each in fields(method.Config)} for name, method in METHODS.items()
    }


def _public_functions() -> Iterator[tuple[str, Any]]:
    for module in iter_modules(fullrank.methods.__path__, "fullrank.methods."):
        for name, function in inspect.getmembers(import_module(module.name), inspect.isfunction):
            if not name.startswith("_") and function.__module__ == module.name:
                yield name, function


def arguments() -> dict[str, dict[str, Any]]:
    found = dict[str, dict[str, Any]]()
    for name, function in _public_functions():
        given = {key: p.default for key, p in inspect.signature(function).parameters.items()}
        plain = {key: value for key, value in given.items() if isinstance(value, PLAIN)}
        if plain:
            found[name] = plain
    return found


def settings() -> dict[str, Any]:
    names = ("small_batch_defaults", "compares_batch", "paper", "year")
    found = {
        name: {each: getattr(method, each) for each in names}
        | {f"{size} pixels": method.defaults(size) for size in (32, 64, 96, 224)}
        for name, method in METHODS.items()
    }
    plain: dict[str, Any] = json.loads(json.dumps(found, default=dict))
    return plain


def test_the_options_of_every_method_have_their_published_defaults() -> None:
    assert json.loads(json.dumps(options())) == RECORDED["options"]


def test_the_arguments_of_every_loss_have_their_published_defaults() -> None:
    assert arguments() == RECORDED["arguments"]


def test_the_settings_of_every_method_are_the_published_ones() -> None:
    assert settings() == RECORDED["settings"]
