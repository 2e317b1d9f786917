"""Sums of rows around a shift, and the spectrum that follows from them.

A sum of z z^T around zero holds the mean squared beside the variance, and loses what is smaller than its
rounding: rows with a mean a hundred thousand times their spread would read as a constant. Here every chunk is
summed around a row of its own kind and centred before it is added, so nothing large is ever subtracted
(Chan, Golub and LeVeque 1983, equation 2.1).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from fullrank.collapse.gram_matrix import DominantMean, GramMatrix
from fullrank.collapse.products import gram
from fullrank.errors import UsageError

SINGLE = 2.0**-22  # twice the rounding of single precision, relative
_DOUBLE = torch.finfo(torch.float64).eps
_SAMPLE = 64  # rows of a chunk that its shift is chosen from
_FAR = 8.0  # times the variance: a shift whose squared distance from the mean is more costs digits
_DOMINANT = 100.0  # times the variance: a mean whose square is more has a direction to itself
_STEPS = 10  # of power iteration, each of which gains a factor of _DOMINANT


class RowSums:
    """Count, mean and scatter of rows, and what follows from them.

    Formula: with a shift s, one of the rows, `n`, `sum (z - s)`, and `S = sum (z - m)(z - m)^T` around the
    mean m. Parts a and b join as `S = S_a + S_b + (n_a n_b / n) (m_a - m_b)(m_a - m_b)^T`, where all terms
    are positive and `m_a - m_b` is a difference of small numbers. Paper: Chan, Golub and LeVeque 1983 (The
    American Statistician 37), equation 2.1.

    Attributes:
        count: n, the number of rows seen.
        shift: [d], s, float64.
        offset: [d], the sum of the rows less the shift.

    The derived values need `count >= 1` and raise UsageError otherwise. Rows that differ from their mean by
    no more than single precision rounds it, all together, are a constant: it has an exactly zero centred
    spectrum, never a noise rank.

    Example:
        >>> sums = RowSums.of(torch.tensor([[1.0, 0.0], [3.0, 0.0]]).double())
        >>> sums.mean.tolist(), sums.covariance.tolist()
        ([2.0, 0.0], [[2.0, 0.0], [0.0, 0.0]])
        >>> sums.singular_values(centred=False).round(4).tolist()
        [3.1623, 0.0]
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.shift = torch.zeros(dim, dtype=torch.float64, device=device)
        self.offset = torch.zeros_like(self.shift)
        self._scatter: Tensor | None = None  # None while it is zero, or not yet made of `_few`
        self._few: list[Tensor] = []  # the rows themselves, while they are fewer than d
        self._centred: Tensor | None = None  # `_few` less their mean, once they are taken
        self._products: Tensor | None = None  # and of each two of these
        self._squares: Tensor | None = None  # and the sums of squares of their coordinates
        self._found: dict[bool, Tensor] = {}  # squared singular values, centred or not, that were kept

    @classmethod
    def of(cls, rows: Tensor) -> RowSums:
        """Sums of float64 rows [n, d] that are known to be finite."""
        sums = cls(rows.shape[1], rows.device)
        sums.add(rows)
        return sums

    @classmethod
    def around(cls, count: int, shift: Tensor, offset: Tensor, scatter: Tensor) -> RowSums:
        """Sums with the given parts, which they hold and do not copy.

        Example:
            >>> RowSums.around(4, torch.ones(2).double(), torch.zeros(2), torch.eye(2)).mean.tolist()
            [1.0, 1.0]
        """
        sums = cls(0, shift.device)
        sums.replace(count, shift, offset, scatter)
        return sums

    def replace(self, count: int, shift: Tensor, offset: Tensor, scatter: Tensor) -> None:
        """Take the given parts in place of those of before."""
        self.count, self.shift, self.offset, self._scatter = count, shift, offset, scatter
        self._few, self._found = [], {}
        self._centred = self._products = self._squares = None

    @property
    def dim(self) -> int:
        """The width d of a row."""
        return len(self.shift)

    def keeps(self, n: int) -> bool:
        """Whether n more rows would be kept as they are: all there are, and fewer than d."""
        return self.count + n < self.dim and sum(map(len, self._few)) == self.count

    def add(self, rows: Tensor) -> None:
        """Add float64 rows [n, d] that are known to be finite; they may be kept."""
        self.move_shift(sampled(rows))
        if self.keeps(len(rows)):
            self._few.append(rows)
            self._scatter = self._centred = self._products = self._squares = None
            self._found = {}
            self.offset = self.offset + (rows - self.shift).sum(0)
            self.count += len(rows)
        elif len(rows):
            self.add_shifted(rows - self.shift)

    def move_shift(self, sample: Tensor) -> None:
        """Choose a row in the middle of a sample as the shift, if the present one is off."""
        if not len(sample):
            return
        spread = (sample - sample.mean(0)).square().sum(1)
        if self.count:
            near = max(float(spread.mean()), float(self.scatters.sum()) / self.count)
            if float((sample.mean(0) - self.shift).square().sum()) <= _FAR * near:
                return
        shift = sample[spread.argmin()].clone()
        self.offset = self.offset + self.count * (self.shift - shift)
        self.shift = shift

    def add_shifted(self, rows: Tensor) -> None:
        """Add rows [n, d] less the shift, n at least 1; they are written on."""
        self._fold()
        n, ones = len(rows), rows.new_ones(len(rows))
        total = ones @ rows  # where a sum over rows reads memory slowly
        middle, scatter = total / n, gram(rows)
        lost = n * middle.square().sum()
        if bool(lost > _FAR * (scatter.diagonal().sum() - lost)):  # the sample missed where the rows are
            rows -= middle
            middle, scatter = ones @ rows / n, gram(rows)
        scatter.addr_(middle, middle, alpha=-n)
        self._join(n, total, scatter)

    def merge(self, other: RowSums) -> None:
        """Add the rows of other sums."""
        if not other.count:
            return
        self._fold()
        device = self.shift.device
        shift, offset = other.shift.to(device), other.offset.to(device)
        if not self.count:
            self.shift = shift.clone()
        self._join(other.count, offset + other.count * (shift - self.shift), other.scatter.to(device).clone())

    def merge_means(self, counts: Tensor, shifts: Tensor, offsets: Tensor) -> None:
        """Take count and mean of all parts, of these sums too; add up scatters after it.

        Each part's scatter is taken around the mean of all, so their plain sum is the scatter of all.

        Args:
            counts: [p], of the parts.
            shifts: [p, d].
            offsets: [p, d].
        """
        some = counts > 0
        if not bool(some.any()):
            return
        counts, shifts, offsets = counts[some], shifts[some], offsets[some]
        shift, total = shifts[0].clone(), counts.sum()
        offset = (offsets + counts[:, None] * (shifts - shift)).sum(0)
        scatter = self.scatter
        if self.count:
            apart = self.offset / self.count + (self.shift - shift) - offset / total
            scatter = scatter.addr(apart, apart, alpha=self.count)
        self.replace(int(total), shift, offset, scatter)

    @property
    def scatter(self) -> Tensor:
        """[d, d], the sum of outer products of the rows less their mean."""
        if self._scatter is None:
            zeros = self.shift.new_zeros(self.dim, self.dim)
            self._scatter = gram(self._centred_few()) if self._few else zeros
        return self._scatter

    @property
    def scatters(self) -> Tensor:
        """[d], the diagonal of `scatter`."""
        if self._scatter is None and self._few:
            if self._squares is None:
                self._squares = self._centred_few().square().sum(0)
            return self._squares
        return self.scatter.diagonal().clamp_min(0)

    @property
    def total(self) -> Tensor:
        """[d], the sum of the rows."""
        return self.count * self.shift + self.offset

    @property
    def mean(self) -> Tensor:
        """[d], the mean row."""
        return self.shift + self.offset / self._seen()

    @property
    def outer(self) -> Tensor:
        """[d, d], the sum of outer products of the rows, not centred."""
        if not self.count:
            return self.scatter.clone()
        return self.scatter.addr(self.mean, self.mean, alpha=self.count)

    @property
    def squares(self) -> Tensor:
        """[d], the sum of squares of every coordinate: the diagonal of `outer`."""
        return self.scatters + self.count * self.mean.square() if self.count else self.scatters

    @property
    def outer_norm_squared(self) -> float:
        """`||outer||_F^2`, the sum of squared products of each two rows."""
        if self._few:
            return float(self._few_products(centred=False).square().sum())
        return float(self.outer.square().sum())

    @property
    def second_moment(self) -> Tensor:
        """[d, d], `E[z z^T]`, not centred."""
        return self.outer / self._seen()

    @property
    def constant(self) -> bool:
        """Whether all rows are one, up to the rounding of single precision."""
        limit = self._seen() * SINGLE**2 * float(self.mean.square().sum())
        return float(self.scatters.sum()) <= limit

    @property
    def covariance(self) -> Tensor:
        """[d, d], centred, over n - 1; zeros for a single row and for a constant."""
        n = self._seen()
        return torch.zeros_like(self.scatter) if self.constant else self.scatter / max(n - 1, 1)

    @property
    def variances(self) -> Tensor:
        """[d], the diagonal of the covariance, exactly 0 where a coordinate is constant."""
        n, mean = self._seen(), self.mean
        if self.constant:
            return torch.zeros_like(mean)
        variance = self.scatters / max(n - 1, 1)
        return torch.where(variance > (_FAR * _DOUBLE * mean).square(), variance, 0.0)

    @property
    def centred_share(self) -> float:
        """`tr(Cov) / E||z||^2` in [0, 1], 1/n covariance; 0 for a constant."""
        if self.constant:
            return 0.0
        spread = float(self.scatters.sum()) / self._seen()
        return spread / (spread + float(self.mean.square().sum()))

    def singular_values(self, centred: bool = True) -> np.ndarray:
        """Singular values of the row matrix [n, d], largest first.

        Args:
            centred: subtract the mean row first; otherwise `sigma_i = sqrt(n lambda_i)` of the second moment.

        Returns:
            min(n, d) values, float64, as `svd` would give them, without ever holding the rows. Values below
            about 1e-7 of the largest one are rounding noise and read 0; the direction of a mean that
            outweighs the spread does not count as that largest one.
        """
        n = self._seen()
        size = min(n, self.dim)
        if (found := self._found.get(centred)) is None:
            found = (
                self.mean.new_zeros(0)
                if centred and self.constant
                else self._gram_matrix(centred).eigenvalues()
            )
        squares = self.mean.new_zeros(size)
        squares[: len(found)] = found[:size]
        if centred and n <= self.dim:
            squares[n - 1 :] = 0.0  # n centred rows span n - 1 directions
        values: np.ndarray = squares.sqrt().cpu().numpy()
        return values

    def decomposed(self, centred: bool, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Squared singular values, and what rows share with their directions.

        The values are kept for `singular_values`, for which they then need not be found again.

        Args:
            centred: subtract the mean row first.
            rows: [m, d], float64.

        Returns:
            [k], largest first, and [m, k], the squared coordinate of each row along each direction.
        """
        self._found[centred], shares = self._gram_matrix(centred).shares(rows)
        return self._found[centred], shares

    def _gram_matrix(self, centred: bool) -> GramMatrix:
        """The matrix that the spectrum is found from."""
        n, mean, noise = self.count, self.mean, self._noise
        few = self._centred_few() if self._few else None
        if centred:
            return GramMatrix(self.scatter if few is None else self._few_products(), few, mean, noise)
        squared, spread = float(n * mean.square().sum()), float(self.scatters.sum())
        if self.constant:
            length = mean.norm()
            along = mean / length if float(length) > 0 else mean
            return GramMatrix(
                mean.new_zeros(0, 0), None, mean, noise, DominantMean(mean.new_tensor(squared), along, mean)
            )
        if squared <= _DOMINANT * spread:
            matrix = self.outer if few is None else self._few_products(centred=False)
            return GramMatrix(matrix, None if few is None else few + mean, torch.zeros_like(mean), noise)
        # The mean dominates: its direction v, the first eigenvector, is taken out exactly, so that what is
        # left is not measured with the rounding of the mean's square.

        def applied(x: Tensor) -> Tensor:
            return self.scatter @ x if few is None else few.T @ (few @ x)

        v = mean / mean.norm()
        for _ in range(_STEPS):
            v = applied(v) + n * (mean @ v) * mean
            v = v / v.norm()
        turned, along = applied(v), mean @ v
        first = v @ turned + n * along * along
        turned_off = turned - (v @ turned) * v
        mean_off = -turned_off / (n * along)  # the mean less its part along v: such that v is an eigenvector
        dominant = DominantMean(first, v, mean_off)
        if few is not None:
            few = few - torch.outer(few @ v, v) + mean_off
            return GramMatrix(gram(few.T), few, mean, noise, dominant)
        half = turned - (v @ turned) / 2 * v
        rest = self.scatter.addr(v, half, alpha=-1).addr_(half, v, alpha=-1)
        return GramMatrix(rest.addr_(mean_off, mean_off, alpha=n), None, mean, noise, dominant)

    @property
    def _noise(self) -> float:
        """Relative rounding error of eigenvalues of a sum of outer products, times six.

        Measured: at most 1.5 eps for chunks, whatever n and d up to 1024, and 0.05 sqrt(n) eps row by row.
        """
        return (4 + math.sqrt(max(self.count, self.dim)) / 4) * _DOUBLE

    def _centred_few(self) -> Tensor:
        if self._centred is None:
            rows = torch.cat(self._few) - self.shift
            self._centred = rows - rows.mean(0)
        return self._centred

    def _few_products(self, centred: bool = True) -> Tensor:
        """[n, n], products of each two of the few rows, less their mean or as they are."""
        if self._products is None:
            self._products = gram(self._centred_few().T)
        if centred:
            return self._products
        mean = self.mean
        along = self._centred_few() @ mean + mean.square().sum() / 2
        return self._products + along[:, None] + along

    def _fold(self) -> None:
        """Bring the scatter up to date, and forget the rows themselves."""
        if self._few:
            _ = self.scatter
            self._few, self._centred, self._products, self._squares = [], None, None, None

    def _join(self, n: int, offset: Tensor, scatter: Tensor) -> None:
        """Add n rows with these parts around the shift; the scatter is written on."""
        if self.count:
            apart = offset / n - self.offset / self.count
            scatter.addr_(apart, apart, alpha=n * self.count / (n + self.count))
            scatter += self.scatter
        self.replace(self.count + n, self.shift, self.offset + offset, scatter)

    def _seen(self) -> int:
        if self.count == 0:
            raise UsageError("no embedding rows were seen, so there is nothing to measure")
        return self.count


def sampled(rows: Tensor) -> Tensor:
    """At most 64 of the rows, evenly spread."""
    return rows[:: -(-len(rows) // _SAMPLE) or 1]
