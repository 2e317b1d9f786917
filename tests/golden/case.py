"""One recorded case: its arrays, what is compared with them, and what is left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from golden.settings import Refused, Settings

HERE = Path(__file__).parent
COMPARERS: dict[str, Callable[[Case], None]] = {}
SINGLE_RTOL, SINGLE_ATOL = 2e-4, 1e-5  # what the recordings allow their own single-precision files
SINGLE_MARGIN = 20.0  # on a reference's own deviation in single precision, or its spread
LAST_BIT = 2.0**-24  # of single precision, relative
DRAWS = 4  # of last-bit changes
UNDECIDED = 0.5  # share of the largest value; where a spread would allow more, rounding decides the array
Array = np.ndarray[Any, Any]


@dataclass
class Case:
    """One recorded case and every comparison made with it.

    Attributes:
        path: of the .npz file.
        arrays: by name.
        about: what the .json file says.
        dtype: precision in which ours is computed.
        probing: collects what is obtained in `obtained` instead of comparing it.
        compared: name, largest deviation and what is allowed.
        failures: what is wrong, one line each.
        left: arrays that were not compared, and why.
    """

    path: Path
    arrays: dict[str, Array]
    about: dict[str, Any]
    dtype: torch.dtype = torch.float64
    probing: bool = False
    compared: list[tuple[str, float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    obtained: dict[str, Array] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)

    @classmethod
    def load(cls, path: Path, dtype: torch.dtype = torch.float64) -> Case:
        with np.load(path, allow_pickle=False) as arrays:
            return cls(path, dict(arrays), json.loads(path.with_suffix(".json").read_text()), dtype)

    @property
    def item(self) -> str:
        return str(self.about["item"])

    @cached_property
    def settings(self) -> Settings:
        return Settings(self.about.get("settings") or {})

    def names(self, start: str) -> list[str]:
        """Arrays whose name starts so, without that."""
        return sorted(name.removeprefix(start) for name in self.arrays if name.startswith(start))

    def tensor(self, name: str) -> Tensor:
        """An array in the precision of ours; integers as they are."""
        if name not in self.arrays:
            raise Refused(f"array {name} is missing, without which nothing can be computed")
        self.used.add(name)
        array = self.arrays[name]
        tensor = torch.from_numpy(array)
        return tensor.to(self.dtype if array.dtype.kind == "f" else tensor.dtype, copy=True)

    def inputs(self, *names: str) -> list[Tensor]:
        return [self.tensor(f"in.{name}").requires_grad_() for name in names]

    def rule(self, name: str) -> tuple[float, float] | None:
        """Recorded tolerances of an array; None where it is not to be compared."""
        given = self.about["tolerance"]
        rule = given.get("per_array", {}).get(name, given["default"])
        if rule is None or rule.get("rtol") is None or rule.get("atol") is None:
            return None
        return float(rule["rtol"]), float(rule["atol"])

    def tolerance(self, name: str) -> tuple[float, float] | None:
        """Tolerances of an array in the precision of ours."""
        rule = self.rule(name)
        if rule is None or self.dtype == torch.float64:
            return rule
        known = self.about.get("single_precision_deviation", {}).get(name.removeprefix("out."), 0.0)
        return max(rule[0], SINGLE_RTOL, SINGLE_MARGIN * float(known)), max(rule[1], SINGLE_ATOL)

    def skip(self, name: str, why: str) -> None:
        """Note an array that is knowingly not compared."""
        self.used.add(name)
        self.left[name] = why

    def check(self, name: str, obtained: Any, slack: Any = 0.0) -> None:
        """Compare with the array `name`, if it is recorded; failures are collected.

        `slack` is added to what is allowed, element by element or for all.
        """
        if name not in self.arrays:
            return
        self.used.add(name)
        rule = self.tolerance(name)
        if rule is None:  # before anything else: what is not to be compared may have any shape
            self.left[name] = "recorded for information"
            return
        expected = np.asarray(self.arrays[name])
        obtained = np.asarray(obtained.detach().numpy() if isinstance(obtained, Tensor) else obtained)
        if self.probing:
            self.obtained[name] = obtained.copy()  # ours may go on in place
            return
        if obtained.shape != expected.shape:
            self.failures.append(f"{name}: ours has shape {obtained.shape}, the recording {expected.shape}")
            return
        finite = np.isfinite(expected)
        if expected.size and not finite.any():
            self.left[name] = "not finite in the reference"
            return
        if (wrong := int((~np.isfinite(obtained[finite])).sum())) > 0:
            self.failures.append(f"{name}: {wrong} of ours are not finite where the reference is")
            return
        scale = float(np.abs(expected[finite]).max(initial=0))
        allowed = np.full(expected.shape, rule[0] * scale + rule[1] if expected.dtype.kind == "f" else 0.0)
        self._judge(name, expected, obtained, finite, allowed + slack)

    def _judge(self, name: str, expected: Array, obtained: Array, finite: Array, allowed: Array) -> None:
        deviation = np.where(finite, np.abs(np.where(finite, obtained, 0) - np.where(finite, expected, 0)), 0)
        if self.dtype != torch.float64 and (deviation > allowed).any() and self._spread_decides(name):
            spread = np.where(finite, self.spreads[name], 0)
            if expected.dtype.kind != "f":  # what moves is a tie that rounding breaks
                deviation = np.where(spread > 0, 0, deviation)
            else:
                wider = SINGLE_MARGIN * float(spread.max(initial=0))
                if wider > UNDECIDED * float(np.abs(expected[finite]).max(initial=0)):
                    self.left[name] = "decided by rounding in single precision"
                    return
                allowed = np.maximum(allowed, wider)
        excess = deviation - allowed
        worst = int(excess.argmax()) if excess.size else 0
        row = (float(deviation.flat[worst]), float(allowed.flat[worst])) if excess.size else (0.0, 0.0)
        self.compared.append((name, *row))
        if (excess > 0).any():
            self.failures.append(f"{name}: deviation {row[0]:.3g}, allowed {row[1]:.3g}")

    def _spread_decides(self, name: str) -> bool:
        recorded = name.removeprefix("out.") in self.about.get("single_precision_deviation", {})
        return not recorded and name in self.spreads

    @cached_property
    def spreads(self) -> dict[str, Array]:
        """How far every output moves when all inputs move by a last bit of single precision, up or down.

        In double precision, where ours is the reference's formula; the largest of some corners of that box.
        """
        spreads: dict[str, Array] = {}
        for draw in range(DRAWS):
            generator = np.random.default_rng(draw)
            arrays = dict(self.arrays)
            for name, array in self.arrays.items():
                if name.startswith("in.") and array.dtype.kind == "f":
                    signs = generator.choice([-1.0, 1.0], size=array.shape)
                    arrays[name] = np.asarray(array.astype(np.float64) * (1 + LAST_BIT * signs))
            probe = Case(self.path, arrays, self.about, probing=True)
            COMPARERS[self.item](probe)
            for name, obtained in probe.obtained.items():
                if obtained.shape == self.arrays[name].shape:
                    moved = np.abs(obtained.astype(np.float64) - self.arrays[name])
                    spreads[name] = np.fmax(spreads.get(name, 0.0), np.nan_to_num(moved, nan=np.inf))
        return spreads

    def check_gradients(self, output: str, value: Tensor, **inputs: Tensor) -> None:
        """Compare `value` and those of its gradients with respect to the named inputs that are recorded."""
        self.check(f"out.{output}", value)
        output = output.removesuffix("/loss")
        names = [name for name in inputs if f"grad.{output}/{name}" in self.arrays]
        self._gradients(value, {name: (f"grad.{output}/{name}", inputs[name]) for name in names})

    def check_variant(self, name: str, value: Tensor, **inputs: Tensor) -> None:
        """Compare with a recorded variant and its gradients, `alt.NAME` and `alt.NAME/grad_INPUT`."""
        self.check(f"alt.{name}", value)
        named = {key: (f"alt.{name}/grad_{key}", tensor) for key, tensor in inputs.items()}
        self._gradients(value, {key: pair for key, pair in named.items() if pair[0] in self.arrays})

    def _gradients(self, value: Tensor, named: dict[str, tuple[str, Tensor]]) -> None:
        if not named:
            return
        tensors = [tensor for _, tensor in named.values()]
        gradients: tuple[Tensor | None, ...] = (None,) * len(tensors)
        if value.requires_grad:
            gradients = torch.autograd.grad(value, tensors, retain_graph=True, allow_unused=True)
        for (name, tensor), gradient in zip(named.values(), gradients, strict=True):
            self.check(name, torch.zeros_like(tensor) if gradient is None else gradient)

    def finish(self) -> None:
        """Note what was not compared, and collect what nothing of ours took."""
        for name in self.arrays:
            if name.startswith("in."):
                if name not in self.used:
                    self.left[name] = "input that nothing took"
            elif name not in self.used:
                informative = self.rule(name) is None
                self.left[name] = (
                    "recorded for information" if informative else "nothing of ours answers to it"
                )
        self.failures += [f"{entry}: nothing of ours takes it" for entry in self.settings.unread()]
        if not self.compared and not self.failures:
            self.failures.append("nothing was compared")


def comparer(item: str) -> Callable[[Callable[[Case], None]], Callable[[Case], None]]:
    """File the function that compares one item."""

    def file(function: Callable[[Case], None]) -> Callable[[Case], None]:
        COMPARERS[item] = function
        return function

    return file


def golden_files(directory: Path) -> Iterator[Path]:
    """Every recorded case in a directory."""
    paths = sorted(directory.glob("*.npz"))
    if not paths:
        raise FileNotFoundError(f"{directory} holds no recordings: files ITEM__CASE.npz and ITEM__CASE.json")
    for path in paths:
        if not path.with_suffix(".json").exists():
            raise FileNotFoundError(f"{path} has no description {path.with_suffix('.json').name} beside it")
    yield from paths
