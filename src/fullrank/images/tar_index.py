"""Index of tar shards: where each image lies, from their headers."""

from __future__ import annotations

import tarfile
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from fullrank.errors import DataError, first_line, printable
from fullrank.images.formats import why_not_read
from fullrank.images.index_files import Index, open_index
from fullrank.images.shard_labels import MOST_LABEL_BYTES, Label, UnusableLabelError, label_in, numbered
from fullrank.progress import report_progress
from fullrank.untrusted.paths import require_regular

LARGEST = (1 << 32) - 1  # bytes of an image
END = bytes(tarfile.BLOCKSIZE)
MORE = (
    "a further image of its sample: members in a row are one sample where their names agree up to the first "
    "dot, and its first image is taken"
)
MOST_NAMED = 1000  # of these; all are counted
RULES = 3  # of what is an image and what its label: an index by older ones is built anew


@dataclass
class Scan:
    """Images of some shards, and what is wrong with them.

    Attributes:
        counts: images of each shard.
        labels: of each image, as its `cls` or `json` has it.
        unusable: the first image whose label cannot be used, and that label.
        faults: where something is not read, and why.
        damaged: shards that do not reach their end.
        more: images beside the first of their sample, which are not read.
        lost: samples whose image is missing, empty, or one too many.
    """

    shards: array[int] = field(default_factory=lambda: array("i"))
    offsets: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("I"))
    counts: list[int] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    unusable: str = ""
    faults: dict[str, str] = field(default_factory=dict)
    damaged: set[int] = field(default_factory=set)
    more: int = 0
    lost: int = 0


@dataclass
class _Sample:
    """Members in a row that share a name up to its first dot."""

    key: str | None = None
    image: tuple[str, int, int] | None = None  # ending, offset, bytes
    label: Label = None
    unusable: str = ""
    suffixes: set[str] = field(default_factory=set)


def scan_shards(paths: Sequence[Path]) -> Scan:
    """Find the images of tar shards by reading their headers, and their labels.

    Members in a row whose names agree up to the first dot are a sample, as WebDataset has it. Its image is
    the first member with an image's ending, its label the number or the word in `cls`, or under a usual name
    in `json`. A shard that is cut short or damaged gives the images before that place.

    Raises:
        DataError: a shard is compressed, or no regular file.
    """
    scan = Scan()
    for number, path in enumerate(paths):
        before = len(scan.offsets)
        if why := _scan_one(scan, number, path):
            scan.faults[printable(str(path))] = why
            scan.damaged.add(number)
        scan.counts.append(len(scan.offsets) - before)
        report_progress("reading the headers of shards", number + 1, len(paths))
    return scan


def _scan_one(scan: Scan, number: int, path: Path) -> str:
    """Add a shard's images; return why it is not whole, or nothing."""
    with require_regular(path).open("rb", buffering=1 << 16) as file:
        _refuse_compressed(path, file.read(6))
        end = path.stat().st_size
        file.seek(0)
        sample, why = _Sample(), ""
        try:
            for member in _members(file, end):
                sample = _next(scan, number, path, sample, member, file)
        except Exception as error:  # of tarfile, on bytes of any kind; what came before stays
            why = first_line(error, 120)
        if sample.image or not why:
            _finish(scan, number, path, sample)
    return why


def _members(file: IO[bytes], end: int) -> Iterator[tarfile.TarInfo]:
    """Regular members in turn.

    Raises:
        DataError: the file is empty, cut short, or goes on after a member with what is no header.
    """
    if not end:
        raise DataError("the file is empty")
    with tarfile.open(fileobj=file, mode="r:", errorlevel=2) as tar:
        at = -1
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined]  # else it keeps all of them
            if member.size < 0 or tar.offset <= at:
                raise DataError(f"its header at byte {member.offset:,} leads back")
            at = tar.offset
            if member.offset_data + member.size > end and member.isreg():
                raise DataError(f"it is cut short within {printable(member.name)}")
            if member.issparse():
                raise DataError(f"{printable(member.name)} is a sparse file, which is not read here")
            if member.isreg():
                yield member
        at = tar.offset  # where tarfile gave up, be it at the end or in what it cannot read
    file.seek(at)
    block = file.read(tarfile.BLOCKSIZE)
    if not block:
        raise DataError("it is cut short: the mark of its end is missing")
    if block != END:
        raise DataError(f"it is damaged, or cut short, at byte {at:,}")


def _refuse_compressed(path: Path, head: bytes) -> None:
    kinds = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
    for begins, kind in kinds.items():
        if head.startswith(begins):
            raise DataError(
                f"{path} is compressed with {kind}, so that images cannot be read from its middle: unpack it "
                f"to a plain .tar (images are compressed already)"
            )


def _next(
    scan: Scan, number: int, path: Path, sample: _Sample, member: tarfile.TarInfo, file: IO[bytes]
) -> _Sample:
    """The sample that a member belongs to: the one before it, or a new one."""
    from webdataset.tariterators import base_plus_ext

    key, suffix = base_plus_ext(member.name)
    if key is None or (member.name.startswith("__") and member.name.endswith("__")):
        return sample
    if key != sample.key:
        _finish(scan, number, path, sample)
        sample = _Sample(key)
    suffix = suffix.lower()
    where = printable(f"{path} {member.name}")
    if suffix in sample.suffixes:
        if where in scan.faults:  # one name again and again: each counts
            where += f" at byte {member.offset:,}"
        scan.faults[where] = f"a second .{suffix} of the same sample"
        scan.lost += not why_not_read(f".{suffix.rpartition('.')[2]}")
        return sample
    sample.suffixes.add(suffix)
    if not why_not_read(f".{suffix.rpartition('.')[2]}"):
        if sample.image is None:
            sample.image = suffix, member.offset_data, member.size
        else:
            scan.more += 1
            if scan.more <= MOST_NAMED:
                scan.faults[where] = MORE
    elif suffix in ("cls", "json") and (suffix == "cls" or sample.label is None):
        _add_label(sample, suffix, file, member)
    return sample


def _finish(scan: Scan, number: int, path: Path, sample: _Sample) -> None:
    where = printable(f"{path} {sample.key}")
    if sample.image is None:
        if sample.suffixes:
            scan.faults[where] = "no image among ." + ", .".join(sorted(sample.suffixes))
            scan.lost += bool(sample.suffixes & {"cls", "json"})  # another file is no sample
        return
    suffix, offset, size = sample.image
    if not 0 < size <= LARGEST:
        scan.faults[f"{where}.{suffix}"] = "the image is empty" if not size else "the image is too large"
        scan.lost += 1
        return
    scan.shards.append(number)
    scan.offsets.append(offset)
    scan.sizes.append(size)
    scan.labels.append(sample.label)
    if sample.label is None and sample.unusable and not scan.unusable:
        scan.unusable = f"{where}: {sample.unusable}"


def _add_label(sample: _Sample, suffix: str, file: IO[bytes], member: tarfile.TarInfo) -> None:
    """Give a sample the label in a `cls` or `json` member, or note why there is none."""
    if member.size > MOST_LABEL_BYTES:
        sample.unusable = sample.unusable or f"a .{suffix} of {member.size:,} bytes"
        return
    back = file.tell()
    file.seek(member.offset_data)
    content = file.read(member.size)
    file.seek(back)
    try:
        label = label_in(suffix, content)
    except UnusableLabelError as error:
        sample.unusable = sample.unusable or str(error)
        return
    sample.label = sample.label if label is None else label


def estimated_loss(scan: Scan) -> int:
    """Images that are lost: those known to be, and what damaged shards are short of.

    A damaged shard is thought to have held as many as whole ones do on average, and one more than was found
    at least.
    """
    whole = [count for number, count in enumerate(scan.counts) if number not in scan.damaged]
    usual = round(sum(whole) / len(whole)) if whole else 0
    return scan.lost + sum(max(1, usual - scan.counts[number]) for number in scan.damaged)


def open_tar_index(paths: Sequence[Path]) -> Index:
    """Index of shards: images' shards, offsets, sizes and labels, built once.

    It holds as long as the names, sizes and times of modification of all shards do.
    """
    stamps = [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in paths]

    def build() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        scan = scan_shards(paths)
        labels, classes = numbered(scan.labels)
        arrays: dict[str, np.ndarray] = {
            "shards": np.array(scan.shards, np.int32),
            "offsets": np.array(scan.offsets, np.int64),
            "sizes": np.array(scan.sizes, np.uint32),
            "starts": np.cumsum([0, *scan.counts], dtype=np.int64),
        }
        arrays |= {} if labels is None else {"labels": labels}
        facts = {"rules": RULES, "stamps": stamps, "classes": classes, "faults": scan.faults}
        facts |= {"unusable": scan.unusable, "unlabelled": scan.labels.count(None)}
        return arrays, {
            **facts,
            "lost": estimated_loss(scan),
            "more": scan.more,
            "damaged": len(scan.damaged),
        }

    place = "\0".join(str(path.resolve()) for path in paths)

    def is_current(index: Index) -> bool:
        return index.facts.get("rules") == RULES and index.facts.get("stamps") == stamps

    return open_index("tar", place, is_current, build)
