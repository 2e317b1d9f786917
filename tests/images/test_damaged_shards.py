"""Shards that are damaged: what is lost is counted, named, and skipped within --max-corrupt."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.errors import DataError, UsageError
from fullrank.images.loader import Batches
from fullrank.images.opening import open_data
from fullrank.images.sources import LazySource
from fullrank.images.tar_index import MORE, estimated_loss, scan_shards
from images.shard_writer import numbers_of, pixels, write_members, write_shards

BLOCK = 512
PER_IMAGE = 2 * BLOCK  # of a tar of tiny images: header and content


def cut(content: bytes, at: int) -> bytes:
    return content[:at]


DAMAGE: dict[str, tuple[Callable[[bytes], bytes], str, int]] = {
    "cut in a header": (lambda c: cut(c, 10 * PER_IMAGE + 100), "cut short, at byte 10,240", 10),
    "cut in a member": (lambda c: cut(c, 10 * PER_IMAGE + BLOCK + 5), "cut short within 00000.0.ppm", 10),
    "cut in padding": (lambda c: cut(c, 11 * PER_IMAGE - 3), "unexpected end of data", 11),
    "cut between members": (lambda c: cut(c, 10 * PER_IMAGE), "the mark of its end is missing", 10),
    "empty": (lambda c: b"", "the file is empty", 0),
    "garbage": (lambda c: b"\x81garbage" * 3000, "", 0),
    "a page of a web server": (lambda c: b"<html>404</html>", "", 0),
    "garbage within": (
        lambda c: c[: 10 * PER_IMAGE] + b"\xff" * BLOCK + c[10 * PER_IMAGE + BLOCK :], "at byte 10,240", 10
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_shard_gives_what_comes_before_and_is_named(tmp_path: Path, kind: str) -> None:
    spoil, says, left = DAMAGE[kind]
    paths = write_shards(tmp_path, [20] * 10)
    paths[4].write_bytes(spoil(paths[4].read_bytes()))
    data = open_data(f"shards:{tmp_path}", max_corrupt=0.15)
    numbers = {int(i) for s in (data.train, data.held_out) for i in s.index}  # type: ignore[attr-defined]
    assert len(numbers) == 180 + left
    (where, why), *others = data.skipped.items()
    assert where == str(paths[4]) and not others
    if says and "within" not in says:
        assert says in why
    assert any(str(paths[4]) in note for note in data.notes)


@pytest.mark.parametrize(("allowed", "opens"), [(0.06, True), (0.04, False)])
def test_what_a_cut_shard_lost_counts_against_what_is_tolerated(
    tmp_path: Path, allowed: float, opens: bool
) -> None:
    paths = write_shards(tmp_path, [20] * 10)
    paths[0].write_bytes(paths[0].read_bytes()[: 10 * PER_IMAGE])  # 10 of 200 images
    if opens:
        assert len(open_data(f"shards:{tmp_path}", max_corrupt=allowed).skipped) == 1
    else:
        with pytest.raises(
            DataError, match=r"about 10 of 200 images are missing.*part-00000.tar.*max-corrupt"
        ):
            open_data(f"shards:{tmp_path}", max_corrupt=allowed)


def test_a_limit_does_not_blow_up_the_share_that_is_lost(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, [100] * 20)
    paths[0].write_bytes(b"")
    assert len(open_data(f"shards:{tmp_path}", limit=100, max_corrupt=0.1).train) == 100


def test_members_that_are_no_images_and_samples_without_one(tmp_path: Path) -> None:
    members = [
        ("README.txt", b"of the set"),
        ("__meta__", b"{}"),
        ("noending", b"x"),
        *[(f"{k:03}.ppm", pixels(k)) for k in range(40)],
        ("100.cls", b"1"),  # its image is missing
        ("101.ppm", b""),  # is empty
        ("102.ppm", pixels(102)),
        ("102.ppm", pixels(103)),  # comes twice
        ("040.ppm", pixels(40)),
        ("040.seg.ppm", pixels(41)),  # belongs to the same sample
        ("dir.d/041.PPM", pixels(42)),
    ]
    scan = scan_shards([write_members(tmp_path / "x.tar", members)])
    assert (len(scan.offsets), scan.lost, scan.damaged) == (43, 3, set())
    assert sorted(scan.faults.values()) == [
        MORE,
        "a second .ppm of the same sample",
        "no image among .cls",
        "no image among .txt",
        "the image is empty",
    ]
    assert estimated_loss(scan) == 3


def test_names_that_come_again_later_are_images_of_their_own(tmp_path: Path) -> None:
    for shard in range(2):
        members = [(f"{k:03}.ppm", pixels(k + 50 * shard)) for k in range(50)]
        write_members(tmp_path / f"{shard}.tar", members)
    data = open_data(f"shards:{tmp_path}")
    assert len(data.train) + len(data.held_out) == 100 and not data.skipped


def test_images_that_cannot_be_decoded_are_counted_while_training(tmp_path: Path) -> None:
    bad = {30, 60}
    members = [(f"{k:03}.ppm", b"P6 2 2 255\n" if k in bad else pixels(k)) for k in range(200)]
    write_members(tmp_path / "x.tar", members)
    data = open_data(f"shards:{tmp_path}", max_corrupt=0.05)
    assert isinstance(data.train, LazySource)
    loader = Batches(data.train, 20, 0, workers=2)
    list(loader.epoch(0))
    met = [where for where in data.skipped if "x.tar" in where]
    assert len(met) == len(bad & set(data.train.index.tolist()))
    assert all(where.rpartition(" ")[2] in ("030.ppm", "060.ppm") for where in met)


def test_a_shard_that_shrinks_while_it_is_read_is_counted(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, [60, 60])
    data = open_data(f"shards:{tmp_path}", max_corrupt=0.5)
    paths[1].write_bytes(paths[1].read_bytes()[: 30 * PER_IMAGE])
    seen = [n for _, (_, z) in Batches(data.train, 4, 0).epoch(0) for n in numbers_of(z)]  # type: ignore[arg-type]
    assert max(seen) < 90 and any("shorter" in why for why in data.skipped.values())


@pytest.mark.parametrize(("name", "pack"), [("x.tar", gzip.compress), ("y.tar", lambda c: b"BZh9" + c)])
def test_compressed_shards_are_refused(tmp_path: Path, name: str, pack: Callable[[bytes], bytes]) -> None:
    path = write_shards(tmp_path / "plain", [5])[0]
    (tmp_path / name).write_bytes(pack(path.read_bytes()))
    with pytest.raises(DataError, match=r"is compressed with .*unpack it"):
        open_data(f"shards:{tmp_path / name}")


def test_nothing_but_damaged_shards_is_one_line(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.tar").write_bytes(b"garbage")
    with pytest.raises(DataError, match="no images in 3 shards") as caught:
        open_data(f"shards:{tmp_path}", max_corrupt=0.9)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
def test_long_names_of_either_format_are_read(tmp_path: Path, kind: int) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=kind) as tar:
        for k in range(60):
            info = tarfile.TarInfo(f"{'folder/' * 40}{k:03}ü.ppm")
            info.size = len(pixels(k))
            tar.addfile(info, io.BytesIO(pixels(k)))
    train = open_data(f"shards:{tmp_path}").train
    assert isinstance(train, LazySource)
    assert [numbers_of(train.load(i)[None])[0] for i in range(len(train))] == train.index.tolist()


def test_links_and_folders_within_are_passed_over(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.LNKTYPE):
            info = tarfile.TarInfo(f"{kind.decode()}.ppm")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
    write_shards(tmp_path, [20])
    data = open_data(f"shards:{tmp_path}", max_corrupt=0.5)
    assert len(data.train) + len(data.held_out) == 20


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_bytes_end_in_images_or_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("any")
    content = bytearray(write_shards(folder, [6], labels=2)[0].read_bytes())
    for at, byte in data.draw(
        st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=12)
    ):
        content[at] = byte
    end = data.draw(st.integers(0, len(content)))
    (folder / "part-00000.tar").write_bytes(bytes(content[:end]))
    scan = scan_shards([folder / "part-00000.tar"])
    assert len(scan.offsets) <= 7
    said = ""
    try:
        source = open_data(f"shards:{folder}", max_corrupt=0.9).train
        for i in range(len(source)):
            source.load(i)
    except UsageError as error:
        said = str(error)
    assert "\n" not in said
