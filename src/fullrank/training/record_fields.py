"""What the fields of a run's records hold, checked where a log is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], bool]
MOST = 1e30  # larger numbers are no measures of anything
MOST_COUNTED = 2**53


def is_number(value: Any) -> bool:
    """Whether a value is a number of usual size, or null.

    Example:
        >>> [is_number(value) for value in (0.5, None, "0.5", True, 10**400)]
        [True, True, False, False, False]
    """
    if value is None:
        return True
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= MOST


def is_count(value: Any) -> bool:
    """Whether a value is a whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_COUNTED


def is_text(value: Any) -> bool:
    """Whether a value is a text, or null."""
    return value is None or isinstance(value, str)


def _maybe(check: Check) -> Check:
    return lambda value: value is None or check(value)


def _each(check: Check) -> Check:
    """A mapping with values of one kind."""
    return lambda value: isinstance(value, Mapping) and all(map(check, value.values()))


def _several(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _fields(**checks: Check) -> Check:
    """A mapping whose fields fulfil what is said of them, where they are there."""
    return lambda value: (
        isinstance(value, Mapping) and all(check(value[key]) for key, check in checks.items() if key in value)
    )


def _exactly(**checks: Check) -> Check:
    inner = _fields(**checks)
    return lambda value: isinstance(value, Mapping) and value.keys() == checks.keys() and inner(value)


_MEASURES = _each(_maybe(_fields(value=is_number, null=is_number)))
_VERDICT = _fields(
    kind=is_text,
    tap=is_text,
    why=is_text,
    severity=is_number,
    probability=is_number,
    evidence=_maybe(
        _several(
            _fields(
                metric=is_text,
                value=is_number,
                null=is_number,
                threshold=is_number,
                trend=is_number,
                says=is_text,
            )
        )
    ),
    blemishes=_maybe(
        _several(_exactly(name=is_text, value=is_number, of=is_number, says=is_text, advice=is_text))
    ),
)
_PANEL = _maybe(_fields(tap=is_text, n=_maybe(is_count), d=_maybe(is_count), measures=_maybe(_MEASURES)))
FIELDS: dict[str, Check] = {
    **dict.fromkeys(
        ("loss", "lr", "score", "unique_prototypes", "rank_difference", "rate_factor"), is_number
    ),
    **dict.fromkeys(("terms", "level", "time", "usage", "values"), _each(is_number)),
    **dict.fromkeys(("knn", "probe"), _fields(top1=is_number)),
    "verdict": _VERDICT,
    "verdicts": _each(_VERDICT),
    "panels": _each(_PANEL),
    "diagnostics": _fields(measures=_each(_MEASURES)),
    "study": _fields(measures=_each(_MEASURES)),
    "warnings": _several(lambda value: isinstance(value, str)),
    "next_watch": is_count,
    "reason": is_text,
    "step": is_count,
    "epoch": is_count,
}
"""By name, of all records; null stands for what is missing."""


def fields_fit(values: Mapping[str, Any]) -> bool:
    """Whether the known fields of a record hold what they should.

    Example:
        >>> fields_fit({"epoch": 1, "loss": None}), fields_fit({"epoch": 1, "loss": "low"})
        (True, False)
    """
    return all(value is None or name not in FIELDS or FIELDS[name](value) for name, value in values.items())
