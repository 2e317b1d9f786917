"""Whole numbers that nothing can hold are refused by their flag before anything begins."""

from __future__ import annotations

import dataclasses
from typing import get_type_hints

import pytest

from fullrank.errors import UsageError
from fullrank.ranges import MOST, MOST_COUNTED
from fullrank.training.config import TrainConfig

HINTS = get_type_hints(TrainConfig)
WHOLE = [field.name for field in dataclasses.fields(TrainConfig) if HINTS[field.name] is int]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("beyond", [1, 10**30, 10**3000], ids=["1", "1e30", "1e3000"])
@pytest.mark.parametrize("sign", [1, -1])
def test_a_number_beyond_the_largest_is_refused_by_its_flag_in_a_short_line(
    name: str, beyond: int, sign: int
) -> None:
    value = sign * (MOST.get(name, MOST_COUNTED) + beyond)
    with pytest.raises(UsageError, match=f"--{name.replace('_', '-')} ") as caught:
        TrainConfig(**{name: value})  # type: ignore[arg-type]
    assert sign < 0 or len(str(caught.value)) < 150


@pytest.mark.parametrize("key", ["seed", "epochs"])
def test_numbers_of_files_are_refused_alike(key: str) -> None:
    with pytest.raises(UsageError, match=f"{key} .*not a?"):
        TrainConfig.from_dict({key: 10**25})
