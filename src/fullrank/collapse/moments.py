"""Moments of an embedding: float64 sums that every spectrum follows from.

Every part of the state only ever adds up, so chunks, data-loader workers and processes combine exactly, and
one pass over the rows with one reduction over processes at its end gives the global value.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.blocks import rows_of_a_block
from fullrank.collapse.peers import Peers
from fullrank.collapse.row_sums import RowSums, sampled
from fullrank.errors import BadRowsError, UsageError

_CHUNK_ELEMENTS = 1 << 23  # a Gram matrix at a time: two float64 copies of 64 MB


class Moments(RowSums):
    """Streaming moments of raw rows and, in `unit`, of rows at unit length.

    Formula: count, mean and scatter (`RowSums`) of z and of `u = z / ||z||`; a zero row stays zero.
    State is 2 d (d + 2) float64 numbers (67 MB at d = 2048), or the rows themselves while they are fewer
    than d, whose spectra are then those of [n, n] matrices. A mean up to a million times the spread costs no
    digits of the spectrum.

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
        self._scratch = self.shift.new_empty(2, 0, dim)

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
            if len(part):
                self._take(part)

    def merge(self, other: RowSums) -> None:
        """Add the rows of other moments."""
        if not isinstance(other, Moments):
            raise UsageError(f"moments merge with moments, not with a {type(other).__name__}")
        if other.dim != self.dim:
            raise UsageError(f"cannot merge moments of {other.dim} dimensions into moments of {self.dim}")
        super().merge(other)
        self.unit.merge(other.unit)

    def all_reduce(self, peers: Peers | None = None) -> None:
        """Add up the sums of all processes: means first, then scatters around theirs."""
        peers = peers or Peers()
        if peers.size == 1:
            return
        self.take_means(peers.gather(self.means()))
        scatters = peers.reduce(torch.stack([self.scatter, self.unit.scatter]))
        for sums, scatter in zip((self, self.unit), scatters, strict=True):
            sums.replace(sums.count, sums.shift, sums.offset, scatter.clone())

    def means(self) -> Tensor:
        """[1 + 4 d], the count, and shift and offset of raw and of unit rows."""
        parts = (self.shift, self.offset, self.unit.shift, self.unit.offset)
        return torch.cat([self.shift.new_tensor([self.count]), *parts])

    def take_means(self, parts: Tensor) -> None:
        """Take the means of all parts [p, 1 + 4 d]; scatters wait to be added up."""
        d = self.dim
        counts, shift, offset, unit_shift, unit_offset = torch.split(parts, [1, d, d, d, d], dim=1)
        self.merge_means(counts[:, 0], shift, offset)
        self.unit.merge_means(counts[:, 0], unit_shift, unit_offset)

    def state_dict(self) -> dict[str, Any]:
        """The sums, ready for `torch.save`."""
        state: dict[str, Any] = {"dim": self.dim, "count": self.count}
        for prefix, sums in (("", self), ("unit_", self.unit)):
            for name in ("shift", "offset", "scatter"):
                state[prefix + name] = getattr(sums, name).cpu().clone()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Replace the sums by those of a `state_dict`, also of one around zero.

        Raises:
            UsageError: it is of another width, or holds something else.
        """
        if state.get("dim") != self.dim:
            raise UsageError(f"the saved moments have {state.get('dim')} dimensions, these have {self.dim}")
        d, device = self.dim, self.shift.device
        if "sums" in state:  # as they were saved before there was a shift
            packed = state["sums"].to(device)
            total, outer, unit_total, unit_outer = torch.split(packed[1:], [d, d * d, d, d * d])
            self.replace(*around_a_shift(packed[0], total, outer.reshape(d, d)))
            self.unit.replace(*around_a_shift(packed[0], unit_total, unit_outer.reshape(d, d)))
            return
        names = [prefix + name for prefix in ("", "unit_") for name in ("shift", "offset", "scatter")]
        if missing := [name for name in ("count", *names) if name not in state]:
            raise UsageError(f"saved moments have {missing[0]!r}, these have only {', '.join(state)}")
        parts = [state[name].to(device, copy=True) for name in names]
        self.replace(int(state["count"]), *parts[:3])
        self.unit.replace(int(state["count"]), *parts[3:])

    def _take(self, part: Tensor) -> None:
        """Add a chunk [n, d], n at least 1, of finite rows."""
        rows, unit = self._room(len(part))
        sample = sampled(part).to(rows)
        kept = self.keeps(len(part))
        if not kept:
            self.move_shift(sample)
            self.unit.move_shift(unit_rows(sample))
        blocks = (torch.split(x, rows_of_a_block(rows)) for x in (rows, part, unit))
        for own, given, scaled in zip(*blocks, strict=True):
            torch.div(own.copy_(given), _lengths(own), out=scaled)
            if not kept:
                own -= self.shift
                scaled -= self.unit.shift
        for sums, made in ((self, rows), (self.unit, unit)):
            if kept:
                sums.add(made)
            else:
                sums.add_shifted(made)

    def _room(self, n: int) -> tuple[Tensor, Tensor]:
        """Twice [n, d] in float64 to write on, the same memory every time."""
        if self.keeps(n):
            return self.shift.new_empty(n, self.dim), self.shift.new_empty(n, self.dim)
        if self._scratch.shape[1] < n:
            self._scratch = self.shift.new_empty(2, n, self.dim)
        return self._scratch[0, :n], self._scratch[1, :n]


def around_a_shift(count: Tensor, total: Tensor, outer: Tensor) -> tuple[int, Tensor, Tensor, Tensor]:
    """Parts of `RowSums` from sums around zero: count, shift 0, total and scatter."""
    n = int(count)
    scatter = outer.addr(total, total, alpha=-1 / n) if n else outer.clone()
    return n, torch.zeros_like(total), total.clone(), scatter


def moments_of(z: Tensor | Moments) -> Moments:
    """Moments as they are, or those of rows [n, d], of which there are some."""
    moments = z if isinstance(z, Moments) else Moments.of(z)
    _ = moments.mean  # says that no rows were seen
    return moments


def check_rows(z: Tensor, dim: int | None = None) -> None:
    """Raise UsageError where `z` is no real matrix [n, d] of width `dim`."""
    if not isinstance(z, Tensor):
        raise UsageError(f"an embedding is a torch tensor [n, d], not a {type(z).__name__}")
    if why := why_not_numbers(z):
        raise UsageError(f"an embedding is a plain matrix [n, d]; {why}")
    if z.ndim != 2 or z.shape[1] == 0:
        raise UsageError(
            f"an embedding is a matrix [n, d]; this one has the shape {list(z.shape)}: pool or flatten it"
        )
    if z.is_complex():
        raise UsageError("an embedding is real; this one is complex")
    if dim is not None and z.shape[1] != dim:
        raise UsageError(f"an embedding of width {z.shape[1]} came where earlier ones had the width {dim}")


def why_not_numbers(z: Tensor) -> str:
    """Why a tensor holds no numbers to read, and the remedy; or nothing.

    Example:
        >>> why_not_numbers(torch.zeros(3, 2, device="meta"))
        'the tensor is on the device meta, where it has no values: compute it on a real one'
        >>> why_not_numbers(torch.eye(2))
        ''
    """
    if z.is_nested:
        return "the tensor is nested: pad it with torch.nested.to_padded_tensor"
    if z.layout != torch.strided:
        return "the tensor is sparse: make it dense with .to_dense()"
    if z.is_meta:
        return "the tensor is on the device meta, where it has no values: compute it on a real one"
    if z.is_quantized:
        return "the tensor is quantized: make it plain with .dequantize()"
    return "the tensor holds booleans: make numbers of them with .float()" if z.dtype == torch.bool else ""


def plain_floats(z: Tensor) -> Tensor:
    """The same numbers, of 8 bits as float32: nothing is computed in them.

    Example:
        >>> plain_floats(torch.eye(2).to(torch.float8_e4m3fn)).dtype, plain_floats(torch.eye(2).half()).dtype
        (torch.float32, torch.float16)
    """
    return z.float() if z.is_floating_point() and z.dtype.itemsize == 1 else z


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


def _check_finite(z: Tensor) -> None:
    """Raise UsageError with the number of rows that are not finite."""
    if not all_finite(z):
        bad = int((~z.isfinite().all(1)).sum())
        raise BadRowsError(
            f"{bad} of {len(z)} embedding rows are not finite (NaN or infinite): "
            "training has diverged, or a file needs mending"
        )
