"""Loads recorded reference outputs and keeps the table of how far ours deviate."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.methods import Method

HERE = Path(__file__).parent
COMPARERS: dict[str, Callable[[Case], None]] = {}
ROWS: list[tuple[str, str, str, int, float, float, bool]] = []
SINGLE_RTOL = 2e-4  # what the recordings allow their own single-precision files
SINGLE_MARGIN = 20.0  # on a reference's own deviation in single precision


@dataclass
class Case:
    """One recorded case: its arrays, its description, and every comparison made with it."""

    path: Path
    arrays: dict[str, np.ndarray]
    about: dict[str, Any]
    dtype: torch.dtype = torch.float64
    compared: list[tuple[str, float, float]] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype = torch.float64) -> Case:
        with np.load(path) as arrays:
            return cls(path, dict(arrays), json.loads(path.with_suffix(".json").read_text()), dtype)

    @property
    def item(self) -> str:
        return str(self.about["item"])

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.about["settings"])

    def tensor(self, name: str) -> Tensor:
        array = self.arrays[name]
        tensor = torch.from_numpy(array)
        return tensor.to(self.dtype if array.dtype.kind == "f" else tensor.dtype, copy=True)

    def inputs(self, *names: str) -> list[Tensor]:
        return [self.tensor(f"in.{name}").requires_grad_() for name in names]

    def tolerance(self, name: str) -> tuple[float, float] | None:
        given = self.about["tolerance"]
        rule = given["per_array"].get(name, given["default"])
        if rule is None or rule.get("rtol") is None or rule.get("atol") is None:
            return None
        rtol, atol = float(rule["rtol"]), float(rule["atol"])
        if self.dtype == torch.float64:
            return rtol, atol
        known = self.about.get("single_precision_deviation", {}).get(name.removeprefix("out."), 0.0)
        return max(rtol, SINGLE_RTOL, SINGLE_MARGIN * float(known)), max(atol, 1e-5)

    def check(self, name: str, obtained: Any) -> None:
        """Compares with the array `name`; collects a failure instead of stopping at the first."""
        expected = np.asarray(self.arrays[name])
        if isinstance(obtained, Tensor):
            obtained = obtained.detach().numpy()
        obtained = np.asarray(obtained)
        assert obtained.shape == expected.shape, f"{name}: shape {obtained.shape}, expected {expected.shape}"
        rule = self.tolerance(name)
        if rule is None:
            return
        finite = np.isfinite(expected)
        expected, obtained = expected[finite], obtained[finite]
        scale = float(np.abs(expected).max(initial=0.0))
        deviation = float(np.abs(expected - obtained).max(initial=0.0))
        allowed = rule[0] * scale + rule[1] if expected.dtype.kind == "f" else 0.0
        self.compared.append((name, deviation, allowed))

    def check_gradients(self, output: str, value: Tensor, **inputs: Tensor) -> None:
        """Compares `value` and its recorded gradients with respect to the named inputs, at least one."""
        self.check(f"out.{output}", value)
        output = output.removesuffix("/loss")
        names = [name for name in inputs if f"grad.{output}/{name}" in self.arrays]
        assert names, f"no gradient of {output} is recorded for any of {', '.join(inputs)}"
        gradients = torch.autograd.grad(value, [inputs[name] for name in names], retain_graph=True)
        for name, gradient in zip(names, gradients, strict=True):
            self.check(f"grad.{output}/{name}", gradient)

    def finish(self) -> None:
        """Files the row of the table; raises on any deviation beyond its tolerance."""
        assert self.compared, f"nothing of {self.path.name} was compared"

        def ratio(row: tuple[str, float, float]) -> float:
            return row[1] / row[2] if row[2] else (0.0 if row[1] == 0 else float("inf"))

        worst = max(self.compared, key=ratio)
        good = all(not deviation > allowed for _, deviation, allowed in self.compared)
        precision = str(self.dtype).removeprefix("torch.")
        ROWS.append((self.item, self.about["case"], precision, len(self.compared), worst[1], worst[2], good))
        bad = [
            f"{name}: deviation {deviation:.3g}, allowed {allowed:.3g}"
            for name, deviation, allowed in self.compared
            if not deviation <= allowed
        ]
        assert not bad, f"{self.path.name}: " + "; ".join(bad[:8])


def comparer(item: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """Files the function that compares one item."""

    def file(function: Callable[[Case], None]) -> Callable[[Case], None]:
        COMPARERS[item] = function
        return function

    return file


def golden_files(directory: Path) -> Iterator[Path]:
    """Every recorded case in a directory."""
    yield from sorted(path for path in directory.glob("*.npz") if path.with_suffix(".json").exists())


EachStep = Callable[[Method, Case, int], None]


@dataclass(frozen=True)
class Answer:
    """How one of our methods becomes the one of a recorded trajectory.

    Attributes:
        method: its name.
        options: from the reference's options to ours.
        first: the tap that `out.first_z1` holds, or what gives it from the first view.
        each_step: called before every step, for what a recording fixes that is random in ours.
    """

    method: str
    options: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    first: str | Callable[[Method, Tensor], Tensor] = "projector"
    each_step: EachStep | None = None


ANSWERS: dict[str, Answer] = {}


def answers(
    case: str,
    method: str,
    options: Callable[[Mapping[str, Any]], Mapping[str, Any]],
    first: str | Callable[[Method, Tensor], Tensor] = "projector",
    each_step: EachStep | None = None,
) -> None:
    """Files which method of ours, with which options, answers to a recorded trajectory."""
    ANSWERS[case] = Answer(method, options, first, each_step)
