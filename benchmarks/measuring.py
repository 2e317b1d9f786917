"""What every benchmark shares: ways that take turns, rows of the table, and what they were measured on."""

from __future__ import annotations

import ctypes
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeVar

from fullrank.malloc import keep_freed_memory

T = TypeVar("T")
SETTLED = {-1: 2**26, -3: 2**25, -4: 2**16}  # where glibc's own adapting trim and mmap settings end
PACKAGES = (
    "fullrank", "torch", "torchvision", "lightly", "stable-pretraining", "lightning", "kornia", "faiss-cpu",
    "scikit-learn", "numpy", "pillow",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        what: was measured.
        beside: whom or what it is compared with; empty for a plain figure.
        turns: the compared value in every turn, whose median counts.
        bar: what the median must reach, or stay under where `at_most`; None for information.
        at_most: see bar.
        unit: of the value; empty for a ratio.
        ours: median of our side, in `measure`.
        theirs: median of the other side.
        measure: the unit of both.
        note: what a reader should know, as who found what.
    """

    what: str
    beside: str
    turns: tuple[float, ...]
    bar: float | None = None
    at_most: bool = False
    unit: str = ""
    ours: float | None = None
    theirs: float | None = None
    measure: str = "s"
    note: str = ""

    @property
    def value(self) -> float:
        """The median of all turns."""
        return statistics.median(self.turns)

    @property
    def mark(self) -> str:
        """`short` where the bar is missed, else nothing."""
        missed = self.bar is not None and (self.value > self.bar if self.at_most else self.value < self.bar)
        return "short" if missed else ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; the mark is there only where the bar is missed."""
        return {**asdict(self), "value": self.value, **({"mark": self.mark} if self.mark else {})}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Row:
        """The inverse of `as_dict`; keys that are no attributes are left out."""
        known = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        return cls(**{**known, "turns": tuple(known["turns"])})


def in_turns(
    repeats: int, ways: Mapping[str, Callable[[], Any]]
) -> tuple[dict[str, list[float]], dict[str, list[Any]]]:
    """Seconds and outcomes of every way, once a turn; every turn begins with another way."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[Any]] = {name: [] for name in ways}
    names = list(ways)
    for turn in range(repeats):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            start = time.perf_counter()
            found[name].append(ways[name]())
            seconds[name].append(time.perf_counter() - start)
    return seconds, found


def as_shipped(block: Callable[[], T]) -> Callable[[], T]:
    """The block with memory given back to the system as glibc does unasked; ours asks it to keep memory."""
    if not keep_freed_memory():
        return block
    mallopt = ctypes.CDLL(None).mallopt

    def plain() -> T:
        for parameter, value in SETTLED.items():
            mallopt(parameter, value)
        try:
            return block()
        finally:
            keep_freed_memory()

    return plain


def beside(
    what: str,
    seconds: Mapping[str, Sequence[float]],
    peer: str,
    bar: float | None = None,
    *,
    work: float = 0,
    measure: str = "s",
    note: str = "",
) -> Row:
    """How many times as fast `ours` was as `peer`, by turns; shown as `work` a second where that is given."""

    def shown(name: str) -> float:
        median = statistics.median(seconds[name])
        return work / median if work else median

    turns = tuple(other / own for own, other in zip(seconds["ours"], seconds[peer], strict=True))
    return Row(what, peer, turns, bar, ours=shown("ours"), theirs=shown(peer), measure=measure, note=note)


def table(rows: Sequence[Row]) -> str:
    """All rows as text, one line each; a row that misses its bar ends in `short`."""

    def quantity(value: float | None, unit: str) -> str:
        return "" if value is None else f"{value:.4g} {unit}".rstrip()

    lines = [("", "beside", "ours", "theirs", "value", "bar", "")]
    for row in rows:
        sign = "<=" if row.at_most else ">="
        ours, theirs = quantity(row.ours, row.measure), quantity(row.theirs, row.measure)
        bar = "" if row.bar is None else f"{sign} {row.bar:g}"
        last = f"{row.note}  {row.mark}".strip()
        lines.append((row.what, row.beside, ours, theirs, quantity(row.value, row.unit), bar, last))
    widths = [max(len(line[k]) for line in lines) for k in range(6)]
    return "\n".join(
        "  ".join([*(cell.ljust(w) for cell, w in zip(line[:6], widths, strict=True)), line[6]]).rstrip()
        for line in lines
    )


def machine() -> dict[str, Any]:
    """The processor's name, the cores that this process may use, and memory in GB."""
    cpu, memory = platform.processor() or platform.machine(), 0.0
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1] for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0].strip() if names else cpu
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": cpu, "cores": cores, "memory_gb": round(memory, 1), "system": platform.system()}


def versions() -> dict[str, str]:
    """Python and every package that takes part; what is not installed is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
