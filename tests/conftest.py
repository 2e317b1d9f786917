"""Options and the closing tables of the golden comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import pytest

from browsing import browser
from fullrank.images.shapes import shapes

__all__ = ["browser"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", metavar="DIR", default=None, help="compare with the recorded cases in DIR instead of ours"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from golden.harness import FINISHED, deviations, left_over

    if not FINISHED:
        return
    terminalreporter.section("golden: largest deviation from the references")
    for line in deviations():
        terminalreporter.line(line)
    terminalreporter.section("golden: recorded, but not compared")
    for line in left_over():
        terminalreporter.line(line)


@pytest.fixture(autouse=True, scope="session")
def _index_files_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep index files of the tests' data out of the caches of who runs them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FULLRANK_INDEX", str(tmp_path_factory.mktemp("indexes")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _shapes_are_made_once() -> Iterator[None]:
    """Hand out copies of the generated images: hundreds of tests open all 5,000, a fifth of a second each."""
    made = lru_cache(maxsize=4)(shapes)

    def copied(n: int, seed: int, size: int = 16) -> tuple[Any, Any]:
        images, labels = made(n, seed, size)
        return images.copy(), labels.copy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fullrank.images.named.shapes", copied)
        yield
