"""Tar shards of tiny images whose pixels are their numbers."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from torch import Tensor

Member = tuple[str, bytes]


def pixels(number: int, size: int = 2) -> bytes:
    """A whole image file, in colours that spell its number."""
    colour = bytes((number % 256, number // 256 % 256, number // 65536))
    return b"P6 %d %d 255\n" % (size, size) + colour * size * size


def numbers_of(images: Tensor) -> list[int]:
    """Numbers of images uint8 [b, 3, h, w]."""
    red, green, blue = images[:, :, 0, 0].long().T
    return [int(number) for number in red + 256 * green + 65536 * blue]


def write_members(path: Path, members: Iterable[Member]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
            tar.members.clear()  # type: ignore[attr-defined]
    return path


def write_shards(folder: Path, sizes: Sequence[int], labels: int = 0, prefix: str = "part") -> list[Path]:
    """Shards of so many images each, numbered through; with `labels`, `cls` is the number modulo it."""
    first, paths = 0, []
    for shard, size in enumerate(sizes):
        members: list[Member] = []
        for number in range(first, first + size):
            members.append((f"{number:07}.ppm", pixels(number)))
            if labels:
                members.append((f"{number:07}.cls", str(number % labels).encode()))
        paths.append(write_members(folder / f"{prefix}-{shard:05}.tar", members))
        first += size
    return paths
