"""What the modules of collapse declare: numbers, defaults, fields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import partial
from importlib import import_module
from inspect import getmembers, isclass, isfunction, signature
from pkgutil import walk_packages
from typing import Any

import fullrank.collapse
from recorded import Case


def _defaults(function: Any) -> dict[str, Any]:
    parameters = signature(function).parameters.items() if isfunction(function) else ()
    return {name: p.default for name, p in parameters if isinstance(p.default, bool | int | float | str)}


def _fields(kind: type) -> dict[str, Any]:
    return {
        each.name: each.default for each in fields(kind) if isinstance(each.default, bool | int | float | str)
    }


def declarations(module: str) -> dict[str, Any]:
    """Numbers that a module declares, and the defaults of what it defines."""
    loaded = import_module(module)
    numbers = (bool, int, float, str, tuple, Mapping)
    found: dict[str, Any] = {
        name: value
        for name, value in vars(loaded).items()
        if name.isupper() and isinstance(value, numbers) and name not in AT_A_TIME
    }
    for name, item in [*getmembers(loaded, isfunction), *getmembers(loaded, isclass)]:
        if item.__module__ == module:
            given = _defaults(item if isfunction(item) else getattr(item, "__init__", None))
            if given:
                found[name] = given
            if is_dataclass(item) and isclass(item):
                found[f"{name}'s fields"] = _fields(item) | {"frozen": item.__dataclass_params__.frozen}  # type: ignore[attr-defined]
    return found


# Sizes of what is done at a time, in memory or between processes: they change no value.
AT_A_TIME = {
    "AT_ONCE", "_AT_ONCE", "_BANK", "_QUERIES", "_HASHED", "_CHUNK_ELEMENTS", "_BLOCK_ELEMENTS",
    "CHUNK_ELEMENTS", "PIVOTS", "PATIENCE", "ROWS", "_OPERATIONS", "METRICS", "MERGED", "TREATMENTS",
    "PROOFS", "_RULES", "_NEAR", "BASES", "_BISECTIONS", "_STEPS",
}  # fmt: skip
MODULES = [found.name for found in walk_packages(fullrank.collapse.__path__, "fullrank.collapse.")]

CASES: dict[str, Case] = {
    f"declared in {module.removeprefix('fullrank.collapse.')}": partial(declarations, module)
    for module in MODULES
}
