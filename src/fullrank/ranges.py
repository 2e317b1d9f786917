"""Ranges of numbers in options: one table for commands, Python and files."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, TypeAlias, get_args, get_origin

from fullrank.coercion import annotations_of, shown
from fullrank.errors import UsageError

Numbers: TypeAlias = str | tuple[float, ...]
"""Numbers in a tuple, or in one text with commas between, as a command line has them."""

MOST_COUNTED = 2**31 - 1
MOST_NUMBER = 1e15  # of numbers that are not whole; products of several still fit into single precision
MOST: Mapping[str, float] = {
    "seed": 2**63 - 1,
    "max_pixels": 2**53,
    "max_bytes": 2**63 - 1,
    "lr": 1e30,
    "seeds": 10_000,
    "jobs": 10_000,
    "processes": 1024,
    "workers": 1024,
    "devices": 1024,
    "num_nodes": 100_000,
    "profile": 1_000_000,
    "every": 86_400,
    "steps_per_epoch": 1_000_000,
    "value": math.inf,
    "port": 65_535,
    "signal_seconds": 65_535,
}
"""Largest numbers of options, where others than `MOST_COUNTED` and `MOST_NUMBER` make sense."""

LEAST: Mapping[str, float] = {"warmup_epochs": -1, "value": -math.inf}
"""Smallest numbers, where others than 0 or a negative default make sense."""


def split_numbers(numbers: Numbers, option: str, whole: bool = False, least: float = math.nan) -> list[float]:
    """The single numbers, all of them positive, or not below the least one.

    Example:
        >>> split_numbers("1, 10", "--shares"), split_numbers((0.5,), "--cs")
        ([1.0, 10.0], [0.5])
    """
    values = []
    for word in numbers.split(",") if isinstance(numbers, str) else numbers:
        text = shown(word.strip() if isinstance(word, str) else word)
        try:
            value = float(word)
        except (ValueError, OverflowError):
            raise UsageError(f"{option} takes numbers with commas between, not {text}") from None
        text = text.strip("'")
        if not math.isfinite(value):
            raise UsageError(f"{option} takes finite numbers, not {text}")
        if not (value > 0 or value >= least) or (whole and not value.is_integer()):
            positive = "positive " if math.isnan(least) else ""
            raise UsageError(f"{option} takes {positive}{'whole ' * whole}numbers, not {text}")
        if value > MOST["seed"]:
            raise UsageError(f"{option} takes numbers below 9.2e18, not {text}")
        values.append(value)
    return values


def check_numbers(options: Any, signed: bool = False, under: str = "") -> None:
    """Raise UsageError for a number that is not finite, or is out of its range.

    Where nothing else is declared a number is not negative, unless its default is.

    Args:
        options: with fields that are numbers, `Numbers`, tuples of numbers, or such dataclasses.
        signed: whether any number may be negative, as its own rules say more.
        under: what a command line writes before the names.
    """
    kind: Any = type(options)
    hints = annotations_of(kind)
    for each in fields(options):
        value, flag = getattr(options, each.name), f"--{under}{each.name}".replace("_", "-")
        if each.default is MISSING and not each.kw_only:  # a word, not an option
            flag = each.name.upper()
        if is_dataclass(value):
            check_numbers(value, True, f"{under}{each.name}.")
        elif hints[each.name] == Numbers:
            if value:
                split_numbers(value, flag, least=0)
        else:
            least = -math.inf if signed else _least(each)
            for number in _numbers_in(hints[each.name], value):
                _check(number, flag, least, MOST.get(each.name))


def _numbers_in(hint: Any, value: Any) -> Iterator[float]:
    """The number or numbers of a field that is declared to be one or to have some."""
    each = get_args(hint)[:1] if get_origin(hint) is tuple else (hint,)
    values = value if isinstance(value, tuple) else (value,)
    yield from (
        one
        for one in values
        if each[0] in (int, float) and isinstance(one, int | float) and not isinstance(one, bool)
    )


def _least(declared: Field[Any]) -> float:
    default = declared.default if isinstance(declared.default, int | float) else 0
    return LEAST.get(declared.name, min(0, default))


def _check(number: float, flag: str, least: float, most: float | None) -> None:
    if isinstance(number, float) and not math.isfinite(number) and most != math.inf:
        raise UsageError(f"{flag} takes a finite number, not {number}")
    most = (MOST_COUNTED if isinstance(number, int) else MOST_NUMBER) if most is None else most
    if number > most:
        raise UsageError(f"{flag} is at most {_short(most)}, not {_short(number)}")
    if number < least:
        rule = "must not be negative" if not least else f"is at least {least:g}"
        raise UsageError(f"{flag} {rule}, not {_short(number)}")
    if number < -most:
        raise UsageError(f"{flag} is at least -{_short(most)}, not {_short(number)}")


def _short(number: float) -> str:
    if isinstance(number, int):
        return f"{number:,}" if abs(number) < 10**30 else f"a number of {number.bit_length():,} bits"
    return f"{number:g}"
