"""Thresholds of a verdict in a YAML or JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from fullrank.collapse.thresholds import Thresholds
from fullrank.errors import UnknownNameError, UsageError

__all__ = ["read_thresholds"]


def read_thresholds(file: Path) -> Thresholds:
    """Read thresholds; what the file does not name keeps its default."""
    if not file.is_file():
        raise UsageError(f"there is no file of thresholds {file}")
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no YAML or JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(entries, dict):
        raise UsageError(f"{file} must hold names and numbers, as in rank_share: 0.2")
    known = {name: type(value) for name, value in vars(Thresholds()).items()}
    values: dict[str, Any] = {}
    for name, value in entries.items():
        key = str(name).replace("-", "_")
        if key not in known:
            raise UnknownNameError(f"threshold in {file}", str(name), known)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (known[key] is int and not float(value).is_integer())
        ):
            raise UsageError(f"{file}: {name} takes a {'whole ' * (known[key] is int)}number, not {value!r}")
        values[key] = known[key](value)
    return Thresholds(**values)
