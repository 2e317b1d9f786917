"""Comparison of the files of one matrix between the processes that share them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fullrank.agreement import REMEDY
from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError, printable
from fullrank.features.shard_files import ShardFile, ShardList
from fullrank.images.fingerprints import digest

MOST_READ = 256  # files, evenly spaced, whose bytes are compared; of all others names and sizes
OUTLINES = (".zarray", ".zgroup", "zarr.json")
BLOCK = 4096  # bytes that are compared of the beginning, the middle and the end of a file


def check_same_files(shards: ShardList, peers: Peers) -> None:
    """See that all processes list the same files; each of them calls it.

    Names, sizes, and some bytes are compared, not where the files lie; of a single file its name may differ.

    Raises:
        UsageError: they do not, in all processes alike.
    """
    if peers.size == 1:
        return
    own = [*_outlines(shards.files), *_outlines(shards.labels)]
    parts = [part.encode(errors="surrogateescape") for each in own for part in each]
    digests = peers.tell(digest(*parts))
    rank = next((rank for rank, each in enumerate(digests) if each != digests[0]), None)
    if rank is None:
        return
    lists = peers.tell([own, shards.where])
    raise UsageError(printable(f"rank {rank} {_difference(lists[0], lists[rank])}: {REMEDY}"))


def _outlines(files: Sequence[ShardFile]) -> list[list[str]]:
    """Name, bytes, and digest of some of them, of each file."""
    chosen = set(np.linspace(0, len(files) - 1, min(len(files), MOST_READ)).astype(int).tolist())
    names = [file.name if len(files) > 1 else "" for file in files]
    return [
        [name, str(file.size), _content(file) if place in chosen else ""]
        for place, (name, file) in enumerate(zip(names, files, strict=True))
    ]


def _content(file: ShardFile) -> str:
    """Digest of three blocks of a file, or of a store's outline; empty if remote."""
    if file.path is None:
        return ""
    if file.path.is_dir():
        inside = sorted(file.path.iterdir())
        outline = [path.read_bytes() for path in inside if path.name in OUTLINES]
        return digest(*(path.name.encode() for path in inside), *outline)
    blocks = []
    with file.path.open("rb") as opened:
        for start in (0, file.size // 2, max(file.size - BLOCK, 0)):
            opened.seek(start)
            blocks.append(opened.read(BLOCK))
    return digest(*blocks)


def _difference(first: tuple[list[list[str]], str], other: tuple[list[list[str]], str]) -> str:
    """What a process reads that the first does not."""
    (ours, where), (theirs, there) = first, other
    if len(ours) != len(theirs):
        return f"reads {len(theirs):,} files of {there}, rank 0 {len(ours):,} of {where}"
    one, two = next((one, two) for one, two in zip(ours, theirs, strict=True) if one != two)
    if one[0] != two[0]:
        return f"reads {two[0]} of {there}, where rank 0 reads {one[0]}"
    name = one[0] or there
    if one[1] != two[1]:
        return f"reads {name} of {int(two[1]):,} bytes, rank 0 {one[0] or where} of {int(one[1]):,}"
    return f"reads {name}, whose content is not that of {one[0] or where} on rank 0"
