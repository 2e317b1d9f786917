"""What tests of every room expect."""

from __future__ import annotations

from typing import TypeVar

T = TypeVar("T")


def known(value: T | None) -> T:
    """The value, which must be defined."""
    assert value is not None
    return value
