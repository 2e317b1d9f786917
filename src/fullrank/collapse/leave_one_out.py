"""Moments and spectra of all rows but one, without another decomposition.

Taking a row x out of n turns the eigenvalues s_k of a scatter into the roots t of
`1 = sum_k (v_k . x)^2 / (s_k - t)`, one between each two neighbours (Golub 1973, SIAM Review 15, section 5).
Where n is near d the row has nearly a direction to itself: a first-order change of the eigenvalues would miss
most of what its absence does.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.moments import Moments, unit_rows
from fullrank.collapse.row_sums import RowSums

_NEAR = (-1, 0, 1, 2)  # places of the nearest terms, from that of the root's upper neighbour
_BISECTIONS = 16  # to 1e-5 of the way between two neighbours
_TINY = 1e-300


def roots_below(eigenvalues: Tensor, shares: Tensor) -> Tensor:
    """Eigenvalues [m, k] of `S - x x^T` for m rows x, largest first.

    Of the sum the four nearest terms stand as they are and all others as their tangent at the middle between
    two neighbours; all steps together are then scaled to the trace, which is known.

    Args:
        eigenvalues: [k], of S, largest first, not negative.
        shares: [m, k], `(v_k . x)^2` for each row and eigenvector.

    Example:
        >>> values, shares = torch.tensor([4.0, 1.0]), torch.tensor([[3.0, 0.0], [0.0, 1.0]])
        >>> roots_below(values, shares).round(decimals=3).tolist()
        [[1.0, 1.0], [4.0, 0.0]]
    """
    s = eigenvalues
    low, high = torch.cat([s[1:], s.new_zeros(1)]).expand_as(shares), s.expand_as(shares)
    gap, middle = high - low, (high + low) / 2
    away = 1 / (s - middle[0, :, None])
    near = []
    for apart in _NEAR:
        away.diagonal(apart).zero_()
        near.append((_shifted(s, apart), _shifted(shares, apart)))
    away = torch.where(away.isfinite(), away, 0.0)
    level, slope = 1 - shares @ away.T, shares @ away.square().T
    for _ in range(_BISECTIONS):
        t = (low + high) / 2
        value = level - slope * (t - middle)
        for pole, share in near:
            value -= share / torch.where(pole == t, _TINY, pole - t)
        low, high = torch.where(value > 0, t, low), torch.where(value > 0, high, t)
    step = torch.where(shares > 0, s - (low + high) / 2, 0.0)
    total = step.sum(1, keepdim=True)
    step = torch.where(total > 0, step * (shares.sum(1, keepdim=True) / total), step)
    return s - torch.minimum(step, gap)


def _shifted(values: Tensor, places: int) -> Tensor:
    """The values moved to the left along the last dimension, zeros coming in."""
    moved = values.roll(-places, -1)
    if places > 0:
        moved[..., -places:] = 0.0
    elif places < 0:
        moved[..., :-places] = 0.0
    return moved


class Removal:
    """The spectra of sums without each of some rows.

    Args:
        sums: of all rows, two at least.
        rows: [m, d], float64, those that are left out, each alone.
    """

    def __init__(self, sums: RowSums, rows: Tensor) -> None:
        self.sums, self.rows = sums, rows

    @cached_property
    def centred(self) -> np.ndarray:
        """[m, min(n - 1, d)] singular values of the centred rows."""
        return self._singular_values(True)

    @cached_property
    def uncentred(self) -> np.ndarray:
        """[m, min(n - 1, d)] singular values of the rows as they are."""
        return self._singular_values(False)

    def _singular_values(self, centred: bool) -> np.ndarray:
        sums = self.sums
        n, size = sums.count, min(sums.count - 1, sums.dim)
        squares = self.rows.new_zeros(len(self.rows), size)
        if not sums.constant:
            values, shares = sums.decomposed(centred, self.rows)
            left = roots_below(values, shares * n / (n - 1) if centred else shares)[:, :size]
            squares[:, : left.shape[1]] = left
            squares[:, max(n - 1 - centred, 0) :] = 0.0  # so few rows span no more
        found: np.ndarray = squares.sqrt().cpu().numpy()
        return found


class _WithoutRow(RowSums):
    """Sums of all rows but one."""

    def leave_out(self, removal: Removal, which: int) -> None:
        """Become the sums without that row."""
        self._removal, self._which = removal, which
        whole, row = removal.sums, removal.rows[which]
        self.count, self.shift = whole.count - 1, whole.shift
        self.offset = whole.offset - (row - whole.shift)
        self._apart = (row - whole.mean) * (whole.count / self.count) ** 0.5

    @property
    def scatter(self) -> Tensor:
        """[d, d], the sum of outer products of the rows less their mean."""
        return self._removal.sums.scatter.addr(self._apart, self._apart, alpha=-1)

    @property
    def scatters(self) -> Tensor:
        """[d], the diagonal of `scatter`."""
        left: Tensor = self._removal.sums.scatters - self._apart.square()
        return left.clamp_min(0)

    @property
    def outer_norm_squared(self) -> float:
        """`||outer||_F^2`, the sum of squared products of each two rows."""
        return float((self.singular_values(centred=False) ** 4).sum())

    def singular_values(self, centred: bool = True) -> np.ndarray:
        """Singular values of the row matrix, largest first."""
        if self.constant:
            return super().singular_values(centred)
        found: np.ndarray = (self._removal.centred if centred else self._removal.uncentred)[self._which]
        return found


class MomentsWithoutRow(_WithoutRow, Moments):
    """Moments of all rows but one.

    Example:
        >>> z = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> left = leave_one_out(Moments.of(z), z[:1])[0]
        >>> left.count, torch.allclose(left.covariance, Moments.of(z[1:]).covariance)
        (99, True)
    """

    def __init__(self, removal: Removal, of_unit: Removal, which: int) -> None:
        super().__init__(removal.sums.dim, removal.sums.shift.device)
        self.leave_out(removal, which)
        unit = _WithoutRow(self.dim, self.shift.device)
        unit.leave_out(of_unit, which)
        self.unit = unit


def leave_one_out(moments: Moments, rows: Tensor) -> list[Moments]:
    """Moments without each of some rows [m, d], alone, of three or more in all."""
    rows = rows.to(moments.shift)
    removal, of_unit = Removal(moments, rows), Removal(moments.unit, unit_rows(rows))
    return [MomentsWithoutRow(removal, of_unit, k) for k in range(len(rows))]
