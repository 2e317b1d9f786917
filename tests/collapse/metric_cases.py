"""Every metric: its declaration, its baselines, and its value of rows of uneven sizes."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from collapse.inputs import QUICK, around, drawn, example, rows_of
from fullrank.collapse import streaming
from fullrank.collapse.baselines import baseline
from fullrank.collapse.metrics import METRICS, Metric, class_name
from fullrank.errors import FullrankError
from recorded import Case

# Options other than the defaults, one at a time.
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "alpha_req": [{"first": 3, "last": 6}],
    "cluster_learnability": [{"clusters": 3, "seeds": 1}],
    "dense_score": [{"clusters": 2, "clusters_per_image": 3}],
    "dime": [{"order": 2.0, "pairings": 1}, {"pairings": 3, "seed": 2}],
    "lidar": [{"eps": 1e-2}, {"relative": False}, {"delta": 0.1}],
    "local_dimension": [{"k": 2}],
    "local_dimension_moments": [{"k": 3}],
    "mixture_entropy": [{"components": 3, "samples": 50, "repeats": 3, "seed": 1}],
    "numerical_rank": [{"tol": 0.3}],
    "sigreg_ratio": [{"directions": 5, "seed": 3}],
    "two_nn_fit": [{"discard": 0.35}],
    "uniformity": [{"t": 3.5}],
    "visreg_shape": [{"directions": 5, "seed": 1}],
}
SIZES = ((37, 5, 3), (11, 13, 4), (64, 12, 5))  # rows, width, seed
COSTLY = ("legacy_mixture_entropy", "mixture_entropy")  # with as many samples as usual


def declared(entry: Metric) -> dict[str, Any]:
    names = (
        "label", "unit", "needs", "spectrum", "power", "options", "part", "low", "high", "better", "sees",
        "blind", "invariances", "panel", "threshold", "slow", "diagnostics", "variant",
    )  # fmt: skip
    parameters = inspect.signature(entry.function).parameters
    found = {name: getattr(entry, name) for name in names}
    found["knobs"] = {name: parameters[name].default for name in entry.knobs}
    found["bounds"] = [entry.bounds(n, d, K=7, C=4) for n, d in ((23, 5), (4, 9), (1, 1))]
    return found


def baselines(name: str) -> dict[str, Any]:
    sizes = ((23, 5, None), (9, 14, 6), (600, 3, 40))
    return {
        f"{n} x {d}, {kind}": baseline(name, n, d, points, views=3, kind=kind)
        for n, d, points in sizes
        for kind in ("isotropic", "power-law")
    }


def values(name: str) -> list[Any]:
    """The whole result, which of several parts may be a record."""
    entry = METRICS[name]
    return [entry.result(*example(entry, *size), **QUICK.get(name, {})) for size in SIZES]


def other_options(name: str) -> list[Any]:
    entry = METRICS[name]
    inputs = example(entry, 37, 7, 6)
    found = [entry.result(*inputs, **options) for options in OPTIONS.get(name, [])]
    return found if name in COSTLY else [*found, entry.result(*inputs)]


def of_odd_rows(name: str) -> dict[str, Any]:
    """Of rows with copies, of single precision, a large mean, a zero row, one or two rows."""
    entry = METRICS[name]
    z = drawn(24, 4, seed=8)
    zero = z.clone()
    zero[5] = 0.0
    odd = {
        "copies": z[torch.arange(24) % 7],
        "float32": z.float(),
        "large mean": z + 300.0,
        "zero row": zero,
        "one row": z[:1],
        "two rows": z[:2],
        "three rows": z[:3],
        "one dimension": z[:, :1],
        "two signs": z[:, :1].sign(),
        "a lattice": torch.arange(24.0).double()[:, None] * torch.ones(4).double(),
        "rank two": z[:, :2] @ drawn(2, 4, seed=9),
        "one class": z + 0.5,
    }
    return {case: _or_error(partial(entry.result, **QUICK.get(name, {})), *around(entry, rows))
            for case, rows in odd.items()}  # fmt: skip


def _or_error(function: Callable[..., Any], *inputs: Tensor) -> Any:
    try:
        return function(*inputs)
    except FullrankError as error:
        return str(error)


def refusals(name: str) -> list[Any]:
    """What is said of inputs that are none."""
    entry = METRICS[name]
    first, *rest = example(entry, 12, 4, 0)
    holes = first.clone()
    holes.reshape(-1)[7] = float("nan")
    wrong = [first[0, 0], first[..., :0], holes, first.to(torch.complex64)]
    said = [_or_error(entry.result, each, *rest) for each in wrong]
    if rows_of(entry) == 2:
        said += [_or_error(entry.result, first, rest[0][:5], *rest[1:])]
        said += [_or_error(entry.result, first, rest[0].double() + 0.5, *rest[1:])]
    said += [_or_error(partial(entry.result, **{knob: -1}), first, *rest)
             for knob in entry.knobs if knob not in ("seed", "eps", "delta", "bias")]  # fmt: skip
    return said


def streamed(name: str) -> Any:
    """In three chunks, with a sample smaller than the rows."""
    entry = METRICS[name]
    inputs = example(entry, 37, 5, 7)
    shape: dict[str, Any] = {"dim": inputs[0].shape[-1]}
    if entry.needs == "scores":
        shape = {"codes": 5}
    elif entry.needs == "tokens":
        shape |= {"tokens": 3}
    elif entry.needs == "classifier":
        shape = {"weight": inputs[2], "bias": inputs[3]}
    if entry.needs not in ("moments", "spectrum", "unit spectrum", "scores", "views"):
        shape["capacity"] = 30
    metric = getattr(streaming, class_name(name))(**shape, **QUICK.get(name, {}))
    for part in zip(*(z.split(13) for z in inputs[: rows_of(entry)]), strict=True):
        metric.update(*part)
    return [metric.compute(), metric.higher_is_better, (metric.__doc__ or "").partition("\n")[0]]


CASES: dict[str, Case] = {
    f"{function.__name__.replace('_', ' ')}, {name}": partial(function, name)
    for function in (values, other_options, of_odd_rows, refusals, streamed, baselines)
    for name in METRICS
}
CASES |= {f"declaration of {name}": partial(declared, entry) for name, entry in METRICS.items()}
