"""A declaration that cannot be used is refused where it is made, in one line with what would be right."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from torch import Generator, Tensor, nn, randn, zeros

import fullrank
from fullrank.collapse.metrics import METRICS, metric
from fullrank.errors import UnknownNameError, UsageError
from fullrank.labs import LABS, Job, Lab, Result, Results
from fullrank.labs._common.run import make_plan
from fullrank.methods import METHODS, Method, MethodConfig, Step, register
from labs.toy import Toy

SAID = {"blind": "all", "reference": "nobody"}


@pytest.mark.parametrize(
    ("declared", "line"),
    [
        ({"needs": "spectra"}, r"`needs` of metric 'x' \(.*declared_by_none\).*did you mean 'spectrum'"),
        ({"sees": "DX"}, "`sees` of .* 'X'"),
        ({"better": "hihg"}, "did you mean 'high'"),
        ({"needs": "spectrum"}, "needs spectrum: `spectrum` says which one"),
        ({"needs": "spectrum", "spectrum": "centered"}, "did you mean 'centred'"),
        ({"lable": "x"}, "did you mean 'label'"),
        ({"blind": None}, "does not say its blind"),
    ],
)
def test_a_metric(declared: dict[str, Any], line: str) -> None:
    def declared_by_none(z: Tensor) -> float:
        return float(z.sum())

    words = {key: value for key, value in (SAID | declared).items() if value is not None}
    with pytest.raises(UsageError, match=line):
        metric("x", **words)(declared_by_none)
    assert "x" not in METRICS


def test_a_name_of_a_metric_that_is_taken() -> None:
    with pytest.raises(UsageError, match=r"defined already, in fullrank\.collapse\.metrics\.level"):
        metric("level", **SAID)(lambda z: 0.0)


def test_a_value_that_is_not_finite_is_none() -> None:
    try:
        metric("x", **SAID)(lambda z: float("nan"))
        assert METRICS["x"](zeros(2, 2)) is None
    finally:
        METRICS.pop("x", None)


class Whole(Method):
    paper, year, mechanism = "1", 2, "none"
    Config = MethodConfig

    def loss(self, views: Any) -> Any:
        return zeros(())


class NoPaper(Method):
    Config = MethodConfig

    def loss(self, views: Any) -> Step:
        return Step(zeros(()), {})


class NoLoss(Whole):
    loss: Any = Method.loss


@dataclass(frozen=True)
class OutOfRange(MethodConfig):
    tau_base: float = 1.5


@dataclass(frozen=True)
class WrongType(MethodConfig):
    rho: int = 0.5  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("cls", "line"),
    [
        (nn.Linear, "no subclass of Method"),
        (NoPaper, "lacks paper, year, mechanism"),
        (NoLoss, "lacks loss"),
        (type("A", (Whole,), {"Config": OutOfRange}), "default of method 'toy' .* option tau-base"),
        (type("B", (Whole,), {"Config": WrongType}), "option rho takes a whole number"),
        (type("C", (Whole,), {}), None),
    ],
)
def test_a_method(monkeypatch: pytest.MonkeyPatch, cls: Any, line: str | None) -> None:
    monkeypatch.setattr(METHODS, "_items", dict(METHODS._items))
    if line is not None:
        with pytest.raises(UsageError, match=line):
            register("toy")(cls)
        return
    register("toy")(cls)
    with pytest.raises(UsageError, match=r"toy\.loss returns a Tensor; return a Step"):
        cls(nn.Flatten(), 4, MethodConfig())([])


def test_a_name_of_a_method_that_is_taken_names_both_modules() -> None:
    with pytest.raises(UsageError, match=rf"by fullrank\.methods\.swav and by {__name__}"):
        register("swav")(Whole)


def test_a_lab_without_jobs() -> None:
    class NoJobs(Lab):
        title = paper = says = "x"

    with pytest.raises(UsageError, match=r"lab 'toy' .* lacks presets, analyse, jobs"):
        LABS.register("toy")(NoJobs)  # type: ignore[type-abstract]


def test_an_arm_that_no_job_has() -> None:
    found = Results([Result("", "high", 0, Path(), {"x": 1.0})], ["high", "low"])
    assert found.values("low", "x") == []
    with pytest.raises(UnknownNameError, match="did you mean 'high'"):
        found.of("").values("hihg", "x")


def test_a_preset_without_jobs_and_a_plan_from_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class Idle(Toy):
        presets = Toy.presets | {"laptop": {"bad": "", "study_every": 3}}

        def jobs(self, preset: Any, part: str, seed: int) -> Any:
            return [Job("a", seed, part=part)] if "diagnostics_every" in preset else []

    monkeypatch.setitem(LABS._items, "idle", Idle)
    with pytest.raises(UsageError, match="lab idle has no jobs for preset laptop"):
        make_plan("idle", tmp_path)
    monkeypatch.setattr(Idle, "presets", {"laptop": {"diagnostics_every": 3}})
    settings = {"lab": "idle", "preset": "laptop", "settings": {"study_every": 3}, "parts": [], "seeds": [0]}
    (tmp_path / "plan.json").write_text(json.dumps(settings))
    assert make_plan("idle", tmp_path).values["seeds"] == [0]


def test_metrics_that_were_asked_for_are_in_the_table() -> None:
    rows = randn(64, 4, generator=Generator().manual_seed(0))
    assert "condition number" in repr(fullrank.audit(rows, metrics=["condition_number"]))
