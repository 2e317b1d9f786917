"""Compare a recording with ours, and the tables of how far ours deviate."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import torch

from fullrank.errors import FullrankError
from golden.case import COMPARERS, HERE, Case
from golden.settings import Refused

FINISHED: list[Case] = []  # in the order of the run, for the closing tables


def file_comparers() -> None:
    """Import every module beside this one: each files what it compares."""
    for module in sorted(HERE.rglob("*.py")):
        if not module.stem.startswith("test_"):
            import_module(".".join(("golden", *module.relative_to(HERE).with_suffix("").parts)))


def compare(path: Path, dtype: torch.dtype = torch.float64) -> Case:
    """Compare one recording; the case that comes back says what failed and what was left.

    An entry of its settings that ours refuses, or that nothing takes, is a failure that names it.
    """
    file_comparers()
    case = Case.load(path, dtype)
    if case.item not in COMPARERS:
        case.failures.append(f"item {case.item} is none of {', '.join(sorted(COMPARERS))}")
        return case
    try:
        COMPARERS[case.item](case)
    except (FullrankError, Refused) as error:
        case.failures.append(f"{error}")
        return case
    case.finish()
    return case


def failure(case: Case) -> str:
    """One line that says what is wrong with a case; empty where nothing is."""
    shown = "; ".join(case.failures[:8]) + ("; ..." if len(case.failures) > 8 else "")
    return f"{case.path.name}: {shown}" if case.failures else ""


def deviations() -> list[str]:
    """The table of largest deviations, a line a case."""

    def ratio(row: tuple[str, float, float]) -> float:
        return row[1] / row[2] if row[2] else (0.0 if row[1] == 0 else float("inf"))

    head = f"{'item':<32}{'case':<32}{'precision':<10}{'arrays':>7}{'deviation':>12}{'allowed':>12}"
    lines = [head]
    for case in FINISHED:
        _, deviation, allowed = max(case.compared, key=ratio, default=("", float("nan"), float("nan")))
        precision = str(case.dtype).removeprefix("torch.")
        line = f"{case.item:<32}{case.about['case']:<32}{precision:<10}{len(case.compared):>7}"
        line += f"{deviation:>12.2e}{allowed:>12.2e}"
        lines.append(line + ("   beyond" if case.failures else ""))
    return lines


def left_over() -> list[str]:
    """Arrays that are recorded but were not compared, a line for each reason in a case."""
    lines = []
    for case in FINISHED:
        for reason in sorted({*case.left.values()}):
            names = [name for name, why in case.left.items() if why == reason]
            precision = str(case.dtype).removeprefix("torch.")
            lines.append(f"{case.item} {case.about['case']} ({precision}), {reason}: {', '.join(names)}")
    return lines
