"""Options and the closing table of the golden comparisons."""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--golden", metavar="DIR", default=None, help="compare with the recorded cases in DIR instead of ours"
    )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    from golden.harness import ROWS

    if not ROWS:
        return
    terminalreporter.section("golden: largest deviation from the references")
    head = ("item", "case", "precision", "arrays", "deviation", "allowed")
    terminalreporter.line(f"{head[0]:<24}{head[1]:<32}{head[2]:<10}{head[3]:>7}{head[4]:>12}{head[5]:>12}")
    for item, case, precision, count, deviation, allowed, good in ROWS:
        line = f"{item:<24}{case:<32}{precision:<10}{count:>7}{deviation:>12.2e}{allowed:>12.2e}"
        terminalreporter.line(line + ("" if good else "   beyond"))
