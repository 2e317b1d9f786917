"""An error of one line, soon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from fullrank.errors import UsageError


@contextmanager
def assert_refused(words: str, seconds: float = 5.0) -> Iterator[None]:
    """What is done within raises an error of one line with some words, soon."""
    start = time.perf_counter()
    with pytest.raises(UsageError, match=words) as caught:
        yield
    assert "\n" not in str(caught.value)
    assert time.perf_counter() - start < seconds
