"""Matrices as PNG pictures inside a page, one colour a cell."""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

import numpy as np

from fullrank.figures.description import Number

# ColorBrewer's RdBu from blue to red, and Cividis (Nunez et al. 2018), at even distances
DIVERGING = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"
SEQUENTIAL = "00204d 00306f 2a406c 48526b 5e626e 727374 878479 9e9677 b6a971 d0be67 ead357 ffea46"
FINE, FINEST = 1200, 5  # pixels along an axis of uneven cells, in all, and for each of many
FEW = 24  # cells


def colours(diverging: bool) -> np.ndarray:
    """256 colours, uint8 [256, 3]."""
    stops = (DIVERGING if diverging else SEQUENTIAL).split()
    rgb = np.array([[int(stop[i : i + 2], 16) for i in (0, 2, 4)] for stop in stops], float)
    at = np.linspace(0, len(stops) - 1, 256)
    return (
        np.stack([np.interp(at, np.arange(len(stops)), rgb[:, c]) for c in range(3)], 1)
        .round()
        .astype(np.uint8)
    )


def picture(
    z: Sequence[Sequence[Number]],
    columns: Sequence[float],
    rows: Sequence[float],
    low: float,
    high: float,
    diverging: bool,
) -> str:
    """A matrix as a data URI; what is missing is transparent.

    Args:
        z: rows, top to bottom.
        columns, rows: edges between the cells.
        low, high: what the first and the last colour stand for.
        diverging: colours from blue to red.
    """
    values = np.array([[np.nan if v is None else v for v in row] for row in z], float)
    for axis, edges in ((1, columns), (0, rows)):
        widths = np.diff(edges)
        if not np.allclose(widths, widths[0], rtol=1e-3):
            at = np.linspace(edges[0], edges[-1], _pixels(len(widths)) + 1)
            place = np.searchsorted(np.asarray(edges[1:-1]), (at[1:] + at[:-1]) / 2)
            values = values.take(place, axis)
    missing = ~np.isfinite(values)
    index = np.clip((np.where(missing, low, values) - low) / (high - low), 0, 1) * 254 + 1
    return _png(np.where(missing, 0, index.round()).astype(np.uint8), colours(diverging))


def _pixels(cells: int) -> int:
    """Pixels along an axis of uneven cells; many are much alike."""
    return FINE if cells < FEW else min(FINE, FINEST * cells)


def colour_bar(diverging: bool) -> str:
    """All colours from top to bottom as a data URI."""
    return _png(np.arange(255, 0, -1, dtype=np.uint8)[:, None], colours(diverging))


def _png(index: np.ndarray, palette: np.ndarray) -> str:
    """Palette PNG of uint8 [h, w] whose colour 0 is transparent."""
    h, w = index.shape
    body = np.concatenate([np.zeros((h, 1), np.uint8), index], 1).tobytes()
    parts = {
        b"IHDR": struct.pack(">IIBBBBB", w, h, 8, 3, 0, 0, 0),
        b"PLTE": palette.tobytes(),
        b"tRNS": b"\0",
        b"IDAT": zlib.compress(body, 9),
        b"IEND": b"",
    }
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
