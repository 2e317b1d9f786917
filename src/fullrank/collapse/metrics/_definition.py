"""Definition of a metric: input, range, baseline; and the table of all.

A metric is declared once, above its function. Lists, documentation, panels, audits, streaming classes and
tests are made from the table, so a file in this folder with a decorated function is all that a metric needs.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Literal, TypeVar

import numpy as np
from torch import Tensor

from fullrank.collapse.moments import Moments, moments_of
from fullrank.errors import UnknownNameError, UsageError

F = TypeVar("F", bound=Callable[..., Any])

NEEDS: dict[str, str] = {
    "moments": "the moments of the rows, raw and at unit length, in one pass",
    "spectrum": "the spectrum of the rows, from their moments in one pass",
    "unit spectrum": "the spectrum of the rows at unit length, from their moments in one pass",
    "points": "a bounded sample of rows [n, d]",
    "neighbours": "a bounded sample of rows [n, d] and the distances of their nearest neighbours",
    "clusters": "a bounded sample of rows [n, d] whose distances are sorted",
    "pairs": "two views [n, d] and [n, d] of the same images, row by row",
    "views": "q views of each image, [n, q, d], or their sums in one pass",
    "labels": "rows [n, d] and one integer label, or cluster, a row",
    "classifier": "rows [n, d], labels [n], and the weights [K, d] and biases [K] of a linear classifier",
    "scores": "scores (logits) over K codes, [n, K], or a `CodeUsage` in one pass",
    "tokens": "the tokens of each image, [images, t, d]",
}
"""What a metric can be computed from."""

OF_MOMENTS = ("moments", "spectrum", "unit spectrum")
"""Those of `NEEDS` that the moments of the rows are enough for."""

COLLAPSES = {
    "C": "complete: a constant",
    "D": "dimensional: a low rank",
    "K": "cluster: few clusters or codes in use",
    "I": "intra-cluster: no variation within clusters",
    "L": "local: a low dimension around every point",
    "U": "anisotropic or not uniform; for codes, uniform assignments",
}
"""The letters of `Metric.sees`."""

SCALE_FREE = "C: noise around a constant has a full rank"
"""What every function of a centred spectrum is blind to."""

LARGE_MEAN = "a large common mean lowers it although no direction is lost"
"""What functions of rows that are not centred are misled by."""

ROW_CHANGES = frozenset({"rotation", "scale", "permutation", "replication"})
"""Changes of the rows that leave a spectrum as it is, up to scale."""

ALL_CHANGES = ROW_CHANGES | {"translation"}
"""Every change that `Metric.invariances` speaks of; a centred spectrum is left as it is by all."""


class Spectra:
    """The spectra of one embedding, each computed once, however many metrics need it.

    Args:
        moments: of its rows.

    Example:
        >>> import torch
        >>> spectra = Spectra.of(torch.tensor([[3.0, 0.0], [1.0, 0.0]]))
        >>> spectra.centred.round(4).tolist(), spectra.uncentred.round(4).tolist()
        ([1.4142, 0.0], [3.1623, 0.0])
    """

    def __init__(self, moments: Moments) -> None:
        self.moments = moments_of(moments)

    @classmethod
    def of(cls, z: Tensor | Moments | Spectra) -> Spectra:
        """Spectra of rows [n, d] or of their moments."""
        return z if isinstance(z, Spectra) else cls(moments_of(z))

    @cached_property
    def centred(self) -> np.ndarray:
        """Singular values of the centred rows."""
        return self.moments.singular_values()

    @cached_property
    def uncentred(self) -> np.ndarray:
        """Singular values of the rows as they are."""
        return self.moments.singular_values(centred=False)

    @cached_property
    def unit(self) -> np.ndarray:
        """Singular values of the rows at unit length, not centred."""
        return self.moments.unit.singular_values(centred=False)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Definition of a metric: input, range and baseline.

    Attributes:
        name: as panels and files have it.
        function: the pure function; it takes what `needs` says and keyword options.
        label: what it is called in words; the name by default.
        unit: of the value, where it has one.
        needs: a key of `NEEDS`.
        spectrum: for metrics of a spectrum, which one: "centred", "uncentred" or "unit".
        power: 1 for a function of singular values, 2 for one of eigenvalues.
        options: fixed keyword arguments of the function, which make the variant.
        part: the field of the function's result that is the value, where that has several.
        low: least value as an expression in n, d, K (codes), C (classes), sqrt, log, min, max, inf.
        high: largest value, likewise.
        better: "high" or "low", "none", or what is aimed at in words.
        sees: letters of `COLLAPSES`.
        blind: what it does not see, or what misleads it.
        cost: operations, as a formula.
        reference: the paper.
        invariances: changes of the rows that leave it as it is: "rotation", "scale", "translation",
            "permutation" of rows, "replication" of all rows.
        baseline: its value for isotropic Gaussian rows: a closed form of n and d, "spectrum" for the function
            of their Marchenko-Pastur spectrum, "cloud" for the value of one such cloud, "measured" where
            it is found together with the value. See `fullrank.collapse.baselines`.
        panel: its place in a `Panel`, from 1; 0 for a metric that is not in it.
        threshold: the field of `Thresholds` that it is judged by, if it is.
        slow: takes minutes where others take seconds, so an audit leaves it out unless it is named.
        diagnostics: whether `Diagnostics` add it to the panel now and then.
    """

    name: str
    function: Callable[..., Any]
    label: str = ""
    unit: str = ""
    needs: str = "points"
    spectrum: Literal["centred", "uncentred", "unit", ""] = ""
    power: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    low: str = "0"
    high: str = "inf"
    better: str = "high"
    sees: str = ""
    blind: str
    cost: str = "n d^2 + d^3"
    reference: str
    invariances: frozenset[str] = ALL_CHANGES
    baseline: Callable[[int, int], float | None] | Literal["spectrum", "cloud", "measured"] = "cloud"
    panel: int = 0
    threshold: str = ""
    slow: bool = False
    diagnostics: bool = False

    @property
    def variant(self) -> str:
        """Input in words: spectrum, centring, rows, options."""
        options = ", ".join(f"{key} {value}" for key, value in self.options.items())
        source = self.needs
        if self.spectrum:
            values = "singular values" if self.power == 1 else "eigenvalues"
            rows = "unit rows" if self.spectrum == "unit" else "raw rows"
            source = f"{values}, {rows}, {'centred' if self.spectrum == 'centred' else 'not centred'}"
        return f"{source}, {options}" if options else source

    @property
    def knobs(self) -> tuple[str, ...]:
        """The options that a caller may set."""
        fixed = {*self.options, "n", "dim", "size"}
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.default is not p.empty and p.name not in fixed)

    def bounds(self, n: int, d: int, **sizes: int) -> tuple[float, float]:
        """Least and largest value for rows of this size, infinite where there is none.

        Args:
            n: rows.
            d: their width.
            sizes: K codes and C classes, for metrics whose range depends on them.

        Example:
            >>> METRICS["erank_centred"].bounds(100, 8), METRICS["mean_cosine"].bounds(101, 8)
            ((1.0, 8.0), (-0.01, 1.0))
        """
        names = {"n": n, "d": d, **sizes, "min": min, "inf": math.inf, "exp": math.exp}
        names |= {"sqrt": math.sqrt, "log": math.log}
        ends = []
        for text in (self.low, self.high):
            try:
                ends.append(float(eval(text, {"__builtins__": {}}, names)))
            except ZeroDivisionError:  # of a single row, for which nothing can be beyond the range
                ends.append(-math.inf if text.startswith("-") else math.inf)
        return ends[0], ends[1]

    def result(self, *inputs: Any, **options: Any) -> Any:
        """Full result of the function, such as the fit of `alpha_req`.

        Args:
            inputs: what `needs` says; for metrics of moments rows [n, d], `Moments` or `Spectra`.
            options: some of `knobs`.

        Raises:
            UsageError: an unknown option, or input that the function refuses.
        """
        unknown = [name for name in options if name not in self.knobs]
        if unknown:
            known = ", ".join(self.knobs) or "none"
            raise UsageError(f"{self.name} has no option {unknown[0]!r} (options: {known})")
        if self.needs not in OF_MOMENTS:
            return self.function(*inputs, **self.options, **options)
        (source,) = inputs
        spectra = Spectra.of(source)
        if not self.spectrum:
            return self.function(spectra.moments, **self.options, **options)
        moments = spectra.moments
        return self.of_spectrum(getattr(spectra, self.spectrum), moments.count, moments.dim, **options)

    def of_spectrum(self, singular_values: np.ndarray, n: int, dim: int, **options: Any) -> Any:
        """Result of the function for the spectrum of n rows of width `dim`."""
        sizes = {"n": n, "dim": dim, "size": min(n, dim)}
        sizes = {name: sizes[name] for name in self._sizes}
        return self.function(singular_values**self.power, **sizes, **self.options, **options)

    @cached_property
    def _sizes(self) -> tuple[str, ...]:
        """Which of the sizes of the rows the function takes, looked up once."""
        wanted = inspect.signature(self.function).parameters
        return tuple(name for name in ("n", "dim", "size") if name in wanted)

    def value_of(self, result: Any) -> float | None:
        """The value in what the function returned, None where that is not finite."""
        if result is not None and self.part:
            result = getattr(result, self.part)
        return float(result) if result is not None and math.isfinite(result) else None

    def __call__(self, *inputs: Any, **options: Any) -> float | None:
        """The value, None where it is not defined; arguments as those of `result`."""
        return self.value_of(self.result(*inputs, **options))


class _Table(dict[str, Metric]):
    """Metrics by name; an unknown one is answered with the nearest."""

    def __missing__(self, name: str) -> Metric:
        raise UnknownNameError("metric", name, self)

    def sort(self) -> None:
        """Bring the metrics into the order of reading: by input, panel, place."""
        needs, places = list(NEEDS), list(self)

        def key(metric: Metric) -> tuple[Any, ...]:
            function = inspect.unwrap(metric.function)
            line = function.__code__.co_firstlineno
            place = needs.index(metric.needs), metric.panel or len(self), function.__module__, line
            return *place, -places.index(metric.name)  # of stacked decorators the last one runs first

        ordered = sorted(self.values(), key=key)
        self.clear()
        self.update({metric.name: metric for metric in ordered})


METRICS = _Table()
"""Name to metric, in the order of reading."""


def metric(name: str, **declared: Any) -> Callable[[F], F]:
    """Return a decorator that enters its function into `METRICS`.

    Args:
        name: of the metric.
        declared: attributes of `Metric`; `blind` and `reference` at least.

    Raises:
        UsageError: the name is taken by another function, or an attribute is none or has no such value.

    Example:
        >>> @metric("spread", blind="everything", reference="nobody")
        ... def spread(z: Tensor) -> float:
        ...     return float(z.std())
        >>> METRICS.pop("spread").needs
        'points'
    """

    def enter(function: F) -> F:
        here = f"metric {name!r} ({function.__module__}.{function.__qualname__})"
        _check(here, declared)
        if name in METRICS and (other := METRICS[name].function).__qualname__ != function.__qualname__:
            raise UsageError(f"{here} is defined already, in {other.__module__}: take another name")
        METRICS[name] = Metric(
            **{"label": name.replace("_", " "), **declared, "name": name, "function": function}
        )
        return function

    return enter


def _check(here: str, declared: Mapping[str, Any]) -> None:
    """Raise UsageError for a declaration that no table could be made of."""
    for key in declared:
        if key not in (known := {each.name for each in fields(Metric)}):
            raise UnknownNameError(f"attribute of {here}:", key, known)
    if missing := {"blind", "reference"} - {*declared}:
        raise UsageError(f"{here} does not say its {' and its '.join(sorted(missing))}")
    needs, spectrum = declared.get("needs", "points"), declared.get("spectrum", "")
    better = declared.get("better", "high")
    words: list[tuple[str, str, Collection[str]]] = [("needs", needs, NEEDS)]
    words += [("sees", letter, COLLAPSES) for letter in declared.get("sees", "")]
    words += [("invariances", change, ALL_CHANGES) for change in declared.get("invariances", ())]
    words += [("spectrum", spectrum, ("centred", "uncentred", "unit"))] * bool(spectrum)
    words += [("better", better, ("high", "low", "none"))] * (" " not in better)
    for key, word, choices in words:
        if word not in choices:
            raise UnknownNameError(f"`{key}` of {here}:", word, choices)
    if bool(spectrum) != (needs in ("spectrum", "unit spectrum")):
        raise UsageError(
            f"{here} needs {needs}: `spectrum` says which one for those of a spectrum, and only those"
        )


def class_name(name: str) -> str:
    """The streaming class of a metric.

    Example:
        >>> class_name("erank_centred"), class_name("nc1_variability")
        ('ErankCentred', 'Nc1Variability')
    """
    return "".join(part.capitalize() for part in name.split("_"))
