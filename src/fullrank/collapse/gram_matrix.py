"""Eigenvalues of a scatter from its smaller side, and shares of rows in them."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fullrank.collapse.products import eigenvalues, eigenvectors


class DominantMean(NamedTuple):
    """The direction of a mean that outweighs the spread, taken out of a matrix.

    Attributes:
        value: its eigenvalue, a number.
        direction: [d], unit.
        off: [d], the mean less its part along it.
    """

    value: Tensor
    direction: Tensor
    off: Tensor


class GramMatrix(NamedTuple):
    """A symmetric matrix whose eigenvalues are the squared singular values of rows.

    Attributes:
        matrix: [d, d], the scatter of the rows, or [n, n], the products of each two.
        rows: [n, d], of which these are the products; None for a scatter.
        middle: [d], what is taken off a row to compare it with the matrix.
        noise: share of the matrix that its eigenvalues are known to.
        dominant: what was taken out before, if anything.

    Example:
        >>> gram = GramMatrix(torch.diag(torch.tensor([1.0, 4.0])), None, torch.zeros(2), 1e-12)
        >>> values, shares = gram.shares(torch.tensor([[3.0, 1.0]]))
        >>> values.tolist(), shares.tolist()
        ([4.0, 1.0], [[1.0, 9.0]])
    """

    matrix: Tensor
    rows: Tensor | None
    middle: Tensor
    noise: float
    dominant: DominantMean | None = None

    def eigenvalues(self) -> Tensor:
        """All eigenvalues, largest first, those of noise 0."""
        found = self._above_noise(eigenvalues(self.matrix).flip(0))
        return found if self.dominant is None else torch.cat([self.dominant.value[None], found[:-1]])

    def shares(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Eigenvalues [k], and squared coordinates [m, k] of rows along directions."""
        values, vectors = eigenvectors(self.matrix)
        values, vectors = self._above_noise(values.flip(0)), vectors.flip(1)
        apart = rows - self.middle
        if self.dominant is not None:
            v = self.dominant.direction
            apart = apart - torch.outer(apart @ v, v) + self.dominant.off
        if self.rows is None:
            shares = (apart @ vectors).square()
        else:
            shares = ((apart @ self.rows.T) @ vectors).square() / torch.where(values > 0, values, 1.0)
        shares = torch.where(values > 0, shares, 0.0)
        if self.dominant is None:
            return values, shares
        first = (rows @ self.dominant.direction).square()[:, None]
        values = torch.cat([self.dominant.value[None], values[:-1]])
        return values, torch.cat([first, shares[:, :-1]], dim=1)

    def _above_noise(self, found: Tensor) -> Tensor:
        # The Frobenius norm bounds the largest eigenvalue cheaply, and tightly where one direction rules.
        return torch.where(found > self.noise * torch.linalg.matrix_norm(self.matrix), found, 0.0)
