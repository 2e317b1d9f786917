"""Options and the closing tables of the golden comparisons."""

from __future__ import annotations

import pytest


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
