"""Headers of numpy's arrays, checked against the file before memory is taken."""

from __future__ import annotations

import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from fullrank.errors import DataError
from fullrank.untrusted.parsing import refusing
from fullrank.untrusted.paths import require_regular

MAX_HEADER = 1 << 16  # bytes; numpy itself evaluates 10,000 characters
_VERSIONS: dict[bytes, tuple[int, Any]] = {
    b"\x01\x00": (2, np.lib.format.read_array_header_1_0),
    b"\x02\x00": (4, np.lib.format.read_array_header_2_0),
}


@dataclass(frozen=True)
class NpyHeader:
    """Header of an array: shape, dtype, order, and its own length in bytes."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    length: int

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers, as Python's integers: no overflow."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


def read_npy_header(file: IO[bytes], where: str, size: int) -> NpyHeader:
    """Read the header at a file's beginning, and check it against the file's size.

    Args:
        where: what is read, for messages.
        size: bytes of the file, header included.

    Raises:
        DataError: no array of numpy, or one that is longer than the file. Python objects pass, with their
            dtype: nothing of them is read here.

    Example:
        >>> np.save(file := io.BytesIO(), np.zeros((3, 2), np.float32))
        >>> _ = file.seek(0)
        >>> print(read_npy_header(file, "z.npy", 152))
        float32 [3, 2]
    """
    with refusing(f"{where} is no array of numpy, or damaged"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on files of Python 2
        magic = file.read(8)
        if magic[:6] != b"\x93NUMPY" or magic[6:] not in _VERSIONS:
            raise ValueError("it does not begin as one")
        width, parse = _VERSIONS[magic[6:]]
        prefix = file.read(width)
        length = int.from_bytes(prefix, "little")
        if len(prefix) < width or length > MAX_HEADER:
            raise ValueError(f"its header would have {length:,} bytes")
        shape, fortran, dtype = parse(io.BytesIO(prefix + file.read(length)))
        if any(isinstance(side, bool) or side < 0 for side in shape):
            raise ValueError(f"its shape is {shape}")
    header = NpyHeader(tuple(shape), dtype, fortran and len(shape) > 1, 8 + width + length)
    if not dtype.hasobject and header.length + header.nbytes > size:
        raise DataError(f"{where} is cut short: its header promises {header}")
    return header


def load_npy(path: Path) -> np.ndarray:
    """Read one array whole, as large as its file; Python objects are refused.

    Raises:
        DataError: no regular file, no array, cut short, or Python objects.
    """
    with require_regular(path).open("rb") as file:
        header = read_npy_header(file, str(path), path.stat().st_size)
        if header.dtype.hasobject:
            raise DataError(f"{path} holds Python objects, which are never unpickled")
        with refusing(f"{path} is damaged"):
            flat = np.fromfile(file, header.dtype, math.prod(header.shape))
            return flat.reshape(header.shape, order="F" if header.fortran else "C")
