"""A number that is none, endless or absurd is refused by its flag, before anything is opened.

Flags come from the declarations of the commands, so that a new one is held to this, too.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import pytest
import tyro

from cli.helpers import refused
from fullrank.cli import COMMANDS, evaluate
from fullrank.cli.lab_forecast import ForecastOptions
from fullrank.errors import UsageError
from fullrank.methods import METHODS
from fullrank.options import Options
from fullrank.ranges import Numbers
from fullrank.training.config import TrainConfig

MANY, MORE = "9" * 31, "9" * 5000
BAD: dict[Any, tuple[str, ...]] = {
    int: ("1e400", "nan", "inf", "", "1,5", MANY, f"-{MANY}", MORE, "10**30", "1.5", "-3"),
    float: ("1e400", "nan", "-inf", "", "1,5", MORE, "1e300", "-3"),
    Numbers: ("1e400", "1,nan", "1,inf", "1,,2", ",", "1;2", MANY, MORE, "-3"),
}
"""Texts that no flag of a kind takes."""
FEW = ("nan", "", MANY, "-1e300")
"""Those for `train`, whose flags are many, and parsed slowly."""


def _kinds() -> Iterator[tuple[tuple[str, ...], Any]]:
    """The words of each command before its options, and the dataclass of these."""
    for command in COMMANDS:
        module = importlib.import_module(f"fullrank.cli.{'listing' if command == 'list' else command}")
        ours = [each for each in vars(module).values() if getattr(each, "__module__", "") == module.__name__]
        for kind in ours:
            if dataclasses.is_dataclass(kind) and "Example:" in (kind.__doc__ or ""):
                yield (command, *(name for name, probe in evaluate.PROBES.items() if probe is kind)), kind
    yield ("lab", "forecast"), ForecastOptions


def _needed(kind: type[Any]) -> Iterator[str]:
    """Words without which a command would say that they are missing."""
    plain, hints = get_type_hints(kind), get_type_hints(kind, include_extras=True)
    for field in dataclasses.fields(kind):
        nothing = field.default in (dataclasses.MISSING, tyro.MISSING)
        if nothing and field.default_factory is dataclasses.MISSING:
            if get_origin(hints[field.name]) is not Annotated:
                yield f"--{field.name.replace('_', '-')}"
            bare = plain[field.name]
            yield "1" if bare in (int, float) else get_args(bare)[0] if get_origin(bare) is Literal else "x"


def _numbers(kind: type[Any], under: str = "") -> Iterator[tuple[str, Any]]:
    """Flags that take numbers, and what each takes."""
    for name, hint in get_type_hints(kind, include_extras=True).items():
        flag = f"--{under}{name}".replace("_", "-")
        if isinstance(hint, type) and dataclasses.is_dataclass(hint):
            yield from _numbers(hint, f"{under}{name}.")
        elif hint in BAD:
            yield flag, hint


EARLY = {"adapt": ("--data", "x")}
"""What a command asks for before it reads numbers."""

FLAGS = [
    pytest.param(
        (*words, *_needed(options), *EARLY.get(words[0], ())), flag, BAD[kind], id=" ".join((*words, flag))
    )
    for words, options in _kinds()
    for flag, kind in _numbers(options)
]
FLAGS_OF_TRAIN = [
    pytest.param(("train", "simsiam"), flag, FEW, id=f"train {flag}") for flag, _ in _numbers(TrainConfig)
]


@pytest.mark.parametrize(("words", "flag", "bad"), FLAGS + FLAGS_OF_TRAIN)
def test_a_number_that_cannot_be_is_refused_by_its_flag(
    words: tuple[str, ...], flag: str, bad: tuple[str, ...]
) -> None:
    for text in bad:
        line = refused(*words, f"{flag}={text}")
        assert flag.rpartition(".")[2].lstrip("-") in line.replace("_", "-"), (text[:40], line)
        assert len(line) < 200, line


def test_flags_of_every_kind_are_held_to_it() -> None:
    assert len(FLAGS) > 100 and {"--shares", "--port", "--seeds"} <= {case.values[1] for case in FLAGS}


@pytest.mark.parametrize("value", ["nan", "1e400", "-inf"])
def test_a_loss_that_is_not_finite_is_explained_by_its_cause(value: str) -> None:
    assert "training has diverged" in refused("explain", "loss", value, "--method", "simsiam")


def _options() -> Iterator[Any]:
    waiting: list[type[Any]] = [Options]
    while waiting:
        yield (kind := waiting.pop())
        waiting += [each for each in kind.__subclasses__() if not each.__module__.startswith("fullrank.cli.")]
    yield from (TrainConfig, *(method.Config for method in METHODS.values()))


OPTIONS = {f"{kind.__module__}.{kind.__name__}": kind for kind in _options()}
BEYOND: dict[Any, tuple[Any, ...]] = {
    int: (10**30, -(10**30), 10**5000),
    float: (float("nan"), float("inf"), 1e300, -1e300),
    Numbers: ("1,,2", "nan"),
}


@pytest.mark.parametrize("kind", OPTIONS.values(), ids=OPTIONS)
def test_options_in_python_refuse_what_nothing_can_hold(kind: type[Any]) -> None:
    for name, hint in get_type_hints(kind).items():
        for value in BEYOND.get(hint, ()):
            with pytest.raises(UsageError) as caught:
                kind(**{name: value})
            assert len(str(caught.value)) < 200
