"""Validation of values that YAML, Python or a command line gives."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import lru_cache
from os import PathLike
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fullrank.errors import UnknownNameError, UsageError, first_line
from fullrank.untrusted.parsing import check_yaml


def as_name(value: Any, takes: str) -> str:
    """Return a name or path as text; raise UsageError for anything else.

    Args:
        value: what was given.
        takes: what takes it and what is right, as in "resume takes a run directory".
    """
    if callable(getattr(value, "forward", None)):  # a network, which torch is not imported to tell
        raise UsageError(
            f"{takes}, not a network: audit what yours puts out, as in fullrank.audit(model(images)), or "
            "watch it with fullrank.collapse.CollapseMonitor"
        )
    if not isinstance(value, str | PathLike):
        raise UsageError(f"{takes}, not {shown(value)}")
    if not str(value).strip():
        raise UsageError(f"{takes}, and an empty text was given")
    return str(value)


def shown(value: Any) -> str:
    """A short form of a value for an error message; tensors are named, not printed."""
    if value is None or isinstance(value, str | int | float | list | tuple | dict):
        try:
            text = repr(value)
        except ValueError:  # a whole number of more digits than Python writes out
            return "a number of thousands of digits"
        if len(text) <= 80 and "\n" not in text:
            return text
    return f"a {type(value).__name__}"


def load_yaml(text: str) -> Any:
    """Values of a YAML text, by its library in C where that is there: much faster.

    Raises:
        yaml.YAMLError: no YAML, nested too deep, or aliases that write out to too many values.

    Example:
        >>> load_yaml("lr: 0.1")
        {'lr': 0.1}
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    check_yaml(text, loader)
    try:
        return yaml.load(text, loader)
    except (ValueError, AttributeError, TypeError, OverflowError) as error:  # as a 13th month raises
        raise yaml.YAMLError(first_line(error)) from error


@lru_cache(maxsize=64)
def annotations_of(cls: type[Any]) -> dict[str, Any]:
    """Annotations of a dataclass's fields, resolved."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls)}


def coerce(cls: type[Any], values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Check values, as YAML or Python give them, against a dataclass's annotations.

    Lists become tuples, paths text, numpy's numbers plain ones, and numbers that YAML reads as text numbers.

    Args:
        cls: a dataclass of bool, int, float, str, Literal, tuple, Mapping and dataclass fields.
        values: some of its fields.
        kind: what a key is called in messages.

    Raises:
        UnknownNameError: no such key, or no such choice.
        UsageError: a value of the wrong kind.

    Example:
        >>> from fullrank.options import LinearOptions
        >>> coerce(LinearOptions, {"lr": "1e-1", "cs": [1, 10]}, "option")  # YAML reads 1e-1 as text
        {'lr': 0.1, 'cs': (1.0, 10.0)}
    """
    hints = annotations_of(cls)  # type: ignore[arg-type]
    for key in values:
        if key not in hints:
            raise UnknownNameError(kind, str(key), hints)
    return {key: _of_kind(hints[key], value, f"{kind} {key}") for key, value in values.items()}


def _of_kind(hint: Any, value: Any, what: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if getattr(value, "shape", None) == ():  # a number of numpy or torch
        value = value.item()
    if origin is UnionType:  # text, or a tuple
        alone = isinstance(value, str | PathLike | int | float)
        hint = str if isinstance(value, str | PathLike) else args[1]
        if not isinstance(value, str | PathLike | int | float | list | tuple):
            raise UsageError(f"{what} takes text or a list, not {shown(value)}")
        return _of_kind(hint, (value,) if alone and hint is not str else value, what)
    if is_dataclass(hint) and isinstance(hint, type):
        is_mapping = isinstance(value, Mapping)
        return (
            hint(**coerce(hint, value, what.rpartition(" ")[2]))
            if is_mapping
            else _checked(hint, value, what)
        )
    if origin is Literal:
        if not isinstance(value, str | int) or value not in args:
            raise UnknownNameError(what, value if isinstance(value, str) else shown(value), args)
        return value
    if origin is tuple:
        return _as_tuple(args, value, what)
    if hint is float and not isinstance(value, bool):
        return _as_number(value, what)
    return _checked(origin or hint, value, what)


def _as_number(value: Any, what: str) -> float:
    try:
        number = float(value)  # also "1e-3", which YAML reads as text
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise UsageError(f"{what} takes a number, not {shown(value)}") from None
    if not math.isfinite(number):
        raise UsageError(f"{what} takes a finite number, not {number!r}")
    return number


def _as_tuple(args: tuple[Any, ...], value: Any, what: str) -> tuple[Any, ...]:
    each = args[:1] * len(value) if isinstance(value, list | tuple) and args[-1] is ... else args
    if not isinstance(value, list | tuple) or len(value) != len(each):
        length = "" if args[-1] is ... else f" of {len(args)}"
        raise UsageError(f"{what} takes a list{length}, not {shown(value)}")
    return tuple(_of_kind(one, item, what) for one, item in zip(each, value, strict=True))


def _checked(kind: type[Any], value: Any, what: str) -> Any:
    if kind is str and isinstance(value, PathLike):
        return str(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise UsageError(f"{what} takes {names.get(kind, 'a mapping')}, not {shown(value)}")
    if kind is int and not -(2**63) <= value < 2**63:
        raise UsageError(f"{what} takes a whole number that 64 bits hold, below 9.2e18, not {shown(value)}")
    return value
