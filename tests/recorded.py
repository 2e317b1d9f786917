"""Recorded results: what measures, verdicts and methods gave for fixed inputs.

`python -m recorded` in `tests/` writes them anew; a change of a number is then seen in the diff.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

HERE = Path(__file__).parent
RELATIVE, ABSOLUTE = 1e-4, 1e-7  # processors round differently, and some sums are of single precision
LISTED = 12  # numbers of an array that are written; of more there are sums

Case = Callable[[], Any]


def plain(value: Any) -> Any:
    """What JSON can hold of a result."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return _array(value)
    if isinstance(value, float | np.floating):
        return float(f"{value:.6g}") if math.isfinite(value) else str(float(value))
    if value is None or isinstance(value, bool | int | str):
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {each.name: plain(getattr(value, each.name)) for each in fields(value)}
    if hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(value)
    if isinstance(value, Sequence):
        return [plain(each) for each in value]
    return str(value)


def _array(value: np.ndarray) -> Any:
    if value.size <= LISTED:
        return plain(value.tolist())
    flat = value.astype(np.float64).reshape(-1)
    waves = np.sin(1.0 + np.arange(flat.size))  # a sum that tells one order from another
    return {"shape": list(value.shape), "sum": plain(flat.sum()), "wave": plain(flat @ waves)}


def differences(found: Any, known: Any, place: str = "") -> Iterator[str]:
    """Where a result is not the recorded one."""
    if isinstance(found, dict) and isinstance(known, dict) and found.keys() == known.keys():
        for key in found:
            yield from differences(found[key], known[key], f"{place}.{key}")
    elif isinstance(found, list) and isinstance(known, list) and len(found) == len(known):
        for number, pair in enumerate(zip(found, known, strict=True)):
            yield from differences(*pair, f"{place}[{number}]")
    elif not _same(found, known):
        yield f"{place or 'it'} is {found!r}, not {known!r}"


def _same(found: Any, known: Any) -> bool:
    if isinstance(found, float) and isinstance(known, float | int):
        return math.isclose(found, known, rel_tol=RELATIVE, abs_tol=ABSOLUTE)
    return type(found) is type(known) and bool(found == known)


def read(kind: str) -> dict[str, Any]:
    """The recorded results of one kind, by case."""
    path = HERE / f"{kind}.json"
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return known


def write(kind: str, cases: Mapping[str, Case]) -> None:
    """Record the results of one kind, a case a line."""
    rows = [f"{json.dumps(name)}: {json.dumps(plain(case()))}" for name, case in cases.items()]
    path = HERE / f"{kind}.json"
    path.write_text("{\n" + ",\n".join(rows) + "\n}\n", encoding="utf-8")


def main() -> None:
    from collapse import declared_cases, metric_cases, part_cases, verdict_cases
    from methods import method_cases

    torch.set_num_threads(1)
    write("collapse/recorded_metrics", metric_cases.CASES)
    write("collapse/recorded_verdicts", verdict_cases.CASES)
    write("collapse/recorded_parts", part_cases.CASES | declared_cases.CASES)
    write("methods/recorded_methods", method_cases.CASES)


if __name__ == "__main__":
    main()
