"""Moments of an embedding: float64 sums that every spectrum follows from.

Every part of the state only ever adds up, so chunks, data-loader workers and processes combine exactly, and
one pass over the rows with one all-reduce at its end gives the global value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import UsageError

_CHUNK_ELEMENTS = 1 << 23  # a Gram matrix at a time: two float64 copies of 64 MB
_BLOCK_ELEMENTS = 1 << 16  # copied and scaled while they are in a core's cache


class RowSums:
    """Count, sum and sum of outer products of rows, and what follows from them.

    Attributes:
        count: n, the number of rows seen.
        total: [d], the sum of the rows, float64.

    The derived values need `count >= 1` and raise UsageError otherwise. What lies below rounding noise of the
    *uncentred* second moment reads exactly 0, because centring subtracts two numbers of that size: a constant
    embedding has an exactly zero centred spectrum, never a noise rank.

    Example:
        >>> sums = Moments.of(torch.tensor([[1.0, 0.0], [3.0, 0.0]]))
        >>> sums.mean.tolist(), sums.covariance.tolist()
        ([2.0, 0.0], [[2.0, 0.0], [0.0, 0.0]])
        >>> sums.singular_values(centred=False).round(4).tolist()
        [3.1623, 0.0]
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.total = torch.zeros(dim, dtype=torch.float64, device=device)
        self._outer = torch.zeros(dim, dim, dtype=torch.float64, device=device)
        self._few: list[Tensor] = []  # the rows themselves, while they are fewer than d
        self._due = 0  # how many of the last of them are not in `_outer` yet

    @property
    def dim(self) -> int:
        """The width d of a row."""
        return len(self.total)

    def add(self, rows: Tensor) -> None:
        """Add float64 rows [n, d] that are known to be finite."""
        self.count += len(rows)
        self.total += rows.new_ones(len(rows)) @ rows  # where a sum over rows reads memory slowly
        if self._has_rows(self.count - len(rows)) and self.count < self.dim:
            self._few.append(rows)
            self._due += 1
        else:
            self._fold()
            self._few.clear()
            self._outer += _gram(rows)

    @property
    def outer(self) -> Tensor:
        """[d, d], the sum of outer products of the rows."""
        self._fold()
        return self._outer

    @outer.setter
    def outer(self, value: Tensor) -> None:
        self._outer, self._due = value, 0
        self._few.clear()

    @property
    def squares(self) -> Tensor:
        """[d], the sum of squares of every coordinate: the diagonal of `outer`."""
        if self._few and self._has_rows(self.count):
            return torch.stack([rows.square().sum(0) for rows in self._few]).sum(0)
        return self.outer.diagonal()

    def _fold(self) -> None:
        """Bring `_outer` up to date; the rows stay for their smaller Gram matrix."""
        for rows in self._few[len(self._few) - self._due :]:
            self._outer += _gram(rows)
        self._due = 0

    def _has_rows(self, count: int) -> bool:
        return sum(map(len, self._few)) == count

    @property
    def mean(self) -> Tensor:
        """[d], the mean row."""
        return self.total / self._seen()

    @property
    def second_moment(self) -> Tensor:
        """[d, d], `E[z z^T]`, not centred."""
        return self.outer / self._seen()

    @property
    def covariance(self) -> Tensor:
        """[d, d], centred, with n - 1 in the denominator; zeros for a single row."""
        n, mean = self._seen(), self.mean
        return (self.second_moment - torch.outer(mean, mean)) * (n / max(n - 1, 1))

    @property
    def variances(self) -> Tensor:
        """[d], the diagonal of the covariance, exactly 0 where a coordinate is constant."""
        n, mean, square = self._seen(), self.mean, self.squares / self._seen()
        variance = square - mean * mean
        return torch.where(variance > self._noise * square, variance, 0.0) * (n / max(n - 1, 1))

    @property
    def centred_share(self) -> float:
        """`tr(Cov) / E||z||^2` in [0, 1], 1/n covariance; 0 for a constant."""
        square = float(self.squares.sum()) / self._seen()
        share = 1 - float(self.mean.square().sum()) / square if square > 0 else 0.0
        return share if share > self._noise else 0.0

    def singular_values(self, centred: bool = True) -> np.ndarray:
        """Singular values of the row matrix [n, d], largest first.

        Args:
            centred: subtract the mean row first; otherwise `sigma_i = sqrt(n lambda_i)` of the second moment.

        Returns:
            min(n, d) values, float64, as `svd` would give them, without ever holding the rows. Values below
            about `sqrt(eps * max(n, d))` of the largest uncentred one are rounding noise and read 0.
        """
        n = self._seen()
        if self._has_rows(n):
            rows = torch.cat(self._few)
            second_moment = matrix = rows @ rows.T / n  # has the same eigenvalues, but for zeros
            if centred:
                shifted = rows - self.mean
                matrix = shifted @ shifted.T / n
        else:
            second_moment = self.second_moment
            matrix = self.covariance * (max(n - 1, 1) / n) if centred else second_moment
        eigenvalues = torch.linalg.eigvalsh(matrix).flip(0)[: min(n, self.dim)]
        # The Frobenius norm bounds the largest eigenvalue cheaply, and tightly where one direction rules.
        noise = self._noise * torch.linalg.matrix_norm(second_moment)
        sigma = torch.where(eigenvalues > noise, n * eigenvalues, 0.0).sqrt()
        if centred and n <= self.dim:
            sigma[n - 1 :] = 0.0  # n centred rows span n - 1 directions
        values: np.ndarray = sigma.cpu().numpy()
        return values

    @property
    def _noise(self) -> float:
        """Relative rounding error of a sum of outer products; grows with n."""
        return max(self.count, self.dim) * torch.finfo(torch.float64).eps

    def _seen(self) -> int:
        if self.count == 0:
            raise UsageError("no embedding rows were seen, so there is nothing to measure")
        return self.count


class Moments(RowSums):
    """Streaming moments of raw rows and, in `unit`, of rows at unit length.

    Formula: `n`, `sum z`, `sum z z^T` and `sum u`, `sum u u^T` with `u = z / ||z||`; a zero row stays zero.
    State is 2 d (d + 1) float64 numbers (67 MB at d = 2048), and beside them the rows while they are fewer
    than d, whose spectra are then those of [n, n] matrices.

    Args:
        dim: d, the width of a row.
        device: where the sums live.

    Example:
        >>> z = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> whole, part, other = Moments.of(z), Moments.of(z[:30]), Moments.of(z[30:])
        >>> part.merge(other)
        >>> part.count, torch.allclose(part.covariance, whole.covariance, rtol=1e-12)
        (100, True)
    """

    def __init__(self, dim: int, device: torch.device | str = "cpu") -> None:
        super().__init__(dim, device)
        self.unit = RowSums(dim, device)
        self._scratch = self.total.new_empty(2, 0, dim)

    @classmethod
    def of(cls, z: Tensor) -> Moments:
        """Moments of one tensor [n, d], on its device where that has float64."""
        check_rows(z)
        moments = cls(z.shape[1], "cpu" if z.device.type == "mps" else z.device)
        moments.update(z)
        return moments

    @torch.no_grad()
    def update(self, z: Tensor) -> None:
        """Add rows [n, d] of any real dtype and device, chunk by chunk.

        Raises:
            UsageError: wrong shape or width, or rows that are not finite (then nothing was taken in).
        """
        check_rows(z, self.dim)
        _check_finite(z.detach())
        for part in torch.split(z.detach(), max(1, _CHUNK_ELEMENTS // self.dim)):
            rows, unit = self._room(len(part))
            block = max(1, _BLOCK_ELEMENTS // self.dim) if rows.device.type == "cpu" else len(part)
            blocks = (torch.split(x, block) for x in (rows, part, unit))
            for own, given, scaled in zip(*blocks, strict=True):
                torch.div(own.copy_(given), _lengths(own), out=scaled)
            self.add(rows)
            self.unit.add(unit)

    def merge(self, other: Moments) -> None:
        """Add the rows of other moments."""
        if other.dim != self.dim:
            raise UsageError(f"cannot merge moments of {other.dim} dimensions into moments of {self.dim}")
        self._load(self._pack() + other._pack().to(self.total.device))

    def all_reduce(self) -> None:
        """Add up the sums of all processes, in one collective call."""
        if not in_group():
            return
        distributed, packed = torch.distributed, self._pack()
        if distributed.get_backend() == "nccl":
            packed = packed.cuda()
        distributed.all_reduce(packed)
        self._load(packed)

    def state_dict(self) -> dict[str, Any]:
        """The sums, ready for `torch.save`."""
        return {"dim": self.dim, "sums": self._pack().cpu()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the sums by those of a `state_dict`."""
        if state["dim"] != self.dim:
            raise UsageError(f"the saved moments have {state['dim']} dimensions, these have {self.dim}")
        self._load(state["sums"])

    def _room(self, n: int) -> tuple[Tensor, Tensor]:
        """Twice [n, d] in float64 to write on, the same memory every time."""
        if self.count + n < self.dim:  # these rows are kept
            return self.total.new_empty(n, self.dim), self.total.new_empty(n, self.dim)
        if self._scratch.shape[1] < n:
            self._scratch = self.total.new_empty(2, n, self.dim)
        return self._scratch[0, :n], self._scratch[1, :n]

    def _pack(self) -> Tensor:
        """All sums as one float64 vector (a count stays exact up to 2^53)."""
        sums = [part.flatten() for s in (self, self.unit) for part in (s.total, s.outer)]
        return torch.cat([self.total.new_tensor([self.count]), *sums])

    def _load(self, packed: Tensor) -> None:
        d = self.dim
        packed = packed.to(self.total.device)
        self.count = self.unit.count = int(packed[0])
        total, outer, unit_total, unit_outer = torch.split(packed[1:], [d, d * d, d, d * d])
        self.total, self.outer = total.clone(), outer.reshape(d, d).clone()
        self.unit.total, self.unit.outer = unit_total.clone(), unit_outer.reshape(d, d).clone()


def in_group() -> bool:
    """Whether this process is one of several that add up what they see."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def moments_of(z: Tensor | Moments) -> Moments:
    """Moments as they are, or those of rows [n, d], of which there are some."""
    moments = z if isinstance(z, Moments) else Moments.of(z)
    _ = moments.mean  # says that no rows were seen
    return moments


def check_rows(z: Tensor, dim: int | None = None) -> None:
    """Raise UsageError where `z` is no real matrix [n, d] of width `dim`."""
    if not isinstance(z, Tensor):
        raise UsageError(f"an embedding is a torch tensor [n, d], not a {type(z).__name__}")
    if z.ndim != 2 or z.shape[1] == 0:
        raise UsageError(
            f"an embedding is a matrix [n, d]; this one has the shape {list(z.shape)}: pool or flatten it"
        )
    if z.is_complex():
        raise UsageError("an embedding is real; this one is complex")
    if dim is not None and z.shape[1] != dim:
        raise UsageError(f"an embedding of width {z.shape[1]} came where earlier ones had the width {dim}")


def finite_rows(z: Tensor) -> Tensor:
    """Rows [n, d] in float64; raises UsageError where some are not finite."""
    check_rows(z)
    rows = (z.detach().cpu() if z.device.type == "mps" else z.detach()).double()
    _check_finite(rows)
    return rows


def unit_rows(rows: Tensor) -> Tensor:
    """The rows [n, d] at unit L2 length; a zero row stays zero."""
    return rows / _lengths(rows)


def centred_rows(rows: Tensor) -> Tensor:
    """Rows less their mean; exactly 0 where they are identical."""
    shifted = rows - rows[:1]
    return shifted - shifted.mean(0)


def all_finite(z: Tensor) -> bool:
    """Whether no value is NaN or infinite, in one quick pass where that is so."""
    wide = torch.float32 if z.dtype in (torch.float16, torch.bfloat16) else None
    return bool(z.sum(dtype=wide).isfinite()) or bool(z.isfinite().all())


def _lengths(rows: Tensor) -> Tensor:
    """Length of every row, [n, 1]; 1 for a zero row."""
    length = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return torch.where(length > 0, length, 1.0)


def _gram(rows: Tensor) -> Tensor:
    """`rows^T rows`; on a CPU by NumPy, which mirrors one half."""
    if rows.device.type != "cpu":
        return rows.T @ rows
    array = rows.numpy()
    return torch.from_numpy(array.T @ array)


def _check_finite(z: Tensor) -> None:
    """Raise UsageError with the number of rows that are not finite."""
    if not all_finite(z):
        bad = int((~z.isfinite().all(1)).sum())
        raise UsageError(
            f"{bad} of {len(z)} embedding rows are not finite (NaN or infinite): "
            "training has diverged, or a file needs mending"
        )
