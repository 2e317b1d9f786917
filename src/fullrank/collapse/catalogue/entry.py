"""What a catalogue says of a metric, and how it is computed from what was seen of an embedding."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
from torch import Tensor

from fullrank.collapse.metrics import moments_of
from fullrank.collapse.moments import Moments
from fullrank.errors import UsageError

__all__ = ["COLLAPSES", "NEEDS", "Entry", "Need", "Spectra", "class_name"]

Need = Literal[
    "spectrum",
    "unit spectrum",
    "moments",
    "points",
    "neighbours",
    "pairs",
    "views",
    "labels",
    "classifier",
    "scores",
    "tokens",
]

NEEDS: dict[Need, str] = {
    "spectrum": "the spectrum of the rows, from their moments in one pass",
    "unit spectrum": "the spectrum of the rows at unit length, from their moments in one pass",
    "moments": "the moments of the rows, raw and at unit length, in one pass",
    "points": "a bounded sample of rows [n, d]",
    "neighbours": "a bounded sample of rows [n, d] and the distances of their nearest neighbours",
    "pairs": "two views [n, d] and [n, d] of the same images, row by row",
    "views": "q views of each image, [n, q, d], or their sums in one pass",
    "labels": "rows [n, d] and one integer label, or cluster, a row",
    "classifier": "rows [n, d], labels [n], and the weights [K, d] and biases [K] of a linear classifier",
    "scores": "scores (logits) over K codes, [n, K], or a `CodeUsage` in one pass",
    "tokens": "the tokens of each image, [images, t, d]",
}
"""What a metric can be computed from."""

COLLAPSES = {
    "C": "complete: a constant",
    "D": "dimensional: a low rank",
    "K": "cluster: few clusters or codes in use",
    "I": "intra-cluster: no variation within clusters",
    "L": "local: a low dimension around every point",
    "U": "anisotropic or not uniform; for codes, uniform assignments",
}
"""The letters of `Entry.sees`."""

ROW_CHANGES = frozenset({"rotation", "scale", "permutation", "replication"})
"""Changes of the rows that leave a spectrum as it is, up to scale."""

CENTRED = ROW_CHANGES | {"translation"}
"""The same for a centred spectrum."""

ALL_CHANGES = CENTRED
"""Every change that `Entry.invariances` speaks of."""

_FROM_MOMENTS = ("spectrum", "unit spectrum", "moments")


class Spectra:
    """The spectra of one embedding, each computed once, however many metrics read it.

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
        """Those of rows [n, d] or of their moments."""
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
class Entry:
    """One metric.

    Attributes:
        name: as panels and files have it.
        function: the pure function; it takes what `needs` says and keyword options.
        needs: a key of `NEEDS`.
        spectrum: for metrics of a spectrum, which one: "centred", "uncentred" or "unit".
        power: 1 for a function of singular values, 2 for one of eigenvalues.
        options: fixed keyword arguments of the function, which make the variant.
        part: the field of the function's result that is the value, where that has several.
        low: least value as an expression in n, d, K (codes), C (classes), sqrt, log, min, max, inf.
        high: largest value, likewise.
        better: "high" or "low", or what is aimed at in words.
        sees: letters of `COLLAPSES`.
        blind: what it does not see, or what misleads it.
        cost: operations, as a formula.
        reference: the paper.
        invariances: changes of the rows that leave it as it is: "rotation", "scale", "translation",
            "permutation" of rows, "replication" of all rows.
    """

    name: str
    function: Callable[..., Any]
    needs: Need
    spectrum: Literal["centred", "uncentred", "unit", ""] = ""
    power: int = 1
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str = ""
    low: str
    high: str
    better: str
    sees: str
    blind: str
    cost: str
    reference: str
    invariances: frozenset[str] = frozenset()

    @property
    def variant(self) -> str:
        """What it is computed from, in words: spectrum, centring, rows, options."""
        options = ", ".join(f"{key} {value}" for key, value in self.options.items())
        source: str = self.needs
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

    def result(self, *inputs: Any, **options: Any) -> Any:
        """All that the function returns, such as the fit range and R2 of `alpha_req`; None if undefined.

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
        options = {**self.options, **options}
        if self.needs not in _FROM_MOMENTS:
            return self.function(*inputs, **options)
        (source,) = inputs
        spectra = Spectra.of(source)
        if not self.spectrum:
            return self.function(spectra.moments, **options)
        n, d = spectra.moments.count, spectra.moments.dim
        sizes = {"n": n, "dim": d, "size": min(n, d)}
        wanted = inspect.signature(self.function).parameters
        sizes = {name: size for name, size in sizes.items() if name in wanted}
        return self.function(getattr(spectra, self.spectrum) ** self.power, **sizes, **options)

    def __call__(self, *inputs: Any, **options: Any) -> float | None:
        """The value, None where it is not defined; arguments as those of `result`."""
        result = self.result(*inputs, **options)
        if result is not None and self.part:
            result = getattr(result, self.part)
        return None if result is None else float(result)


def class_name(name: str) -> str:
    """The streaming class of a metric.

    Example:
        >>> class_name("erank_centred"), class_name("nc1_variability")
        ('ErankCentred', 'Nc1Variability')
    """
    return "".join(part.capitalize() for part in name.split("_"))
