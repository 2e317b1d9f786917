"""Headers that promise what a file does not hold are refused before memory is taken."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from faults.refusals import assert_refused
from features.embedding_writers import N, Z, npz, npz_compressed, pt
from fullrank.encoders.torch_files import load_torch_file
from fullrank.features.embeddings import open_embeddings
from fullrank.features.labels import open_labels

# headers that lie


def header(shape: tuple[Any, ...], descr: str = "<f4", fortran: bool = False) -> bytes:
    file = io.BytesIO()
    said = {"descr": descr, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(file, said)
    return file.getvalue()


def archive(path: Path, content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        file.writestr("z.npy", content)
        file.writestr("behind.npy", header((50, 4)) + bytes(800))
    return path


LYING = [(10**12, 512), (2**62, 2**62), (-1, 4), (True, 4), (3, 2**63)]


@pytest.mark.parametrize("shape", LYING, ids=str)
def test_an_npy_that_promises_more_than_the_file_holds(shape: tuple[Any, ...], tmp_path: Path) -> None:
    (tmp_path / "z.npy").write_bytes(header(shape) + bytes(4000))
    with assert_refused("cut short|damaged"):
        open_embeddings(tmp_path / "z.npy")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("shape", [*LYING, (40, 4)], ids=str)
def test_a_member_shorter_than_its_header_is_not_read_on_into_the_archive(
    shape: tuple[Any, ...], method: int, tmp_path: Path
) -> None:
    path = archive(tmp_path / "z.npz", header(shape) + bytes(16 * 30), method)
    with assert_refused("cut short|damaged"):
        open_embeddings(path, "z")


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "z.npy").write_bytes(b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1) + b"{" * 5000)
    with assert_refused("its header would have 4,294,967,295 bytes"):
        open_embeddings(tmp_path / "z.npy")


@pytest.mark.parametrize(
    "text", [b"(" * 9000, b"{'descr': '<f4'", b"\x00" * 100, b"[" * 200 + b"]" * 200, b"\xff" * 90]
)
def test_a_header_that_is_no_python_is_one_line(text: bytes, tmp_path: Path) -> None:
    (tmp_path / "z.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    with assert_refused("no array of numpy, or damaged"):
        open_embeddings(tmp_path / "z.npy")


def test_bytes_behind_an_array_are_told(tmp_path: Path) -> None:
    (tmp_path / "z.npy").write_bytes(header((2, 4)) + bytes(320))
    assert open_embeddings(tmp_path / "z.npy").notes == [
        f"{tmp_path}/z.npy holds 288 bytes behind its array, which are not read"
    ]


def bomb(folder: Path, fortran: bool = True) -> Path:
    """A file of 130 kB that is 134 MB once it is decompressed."""
    packer = zlib.compressobj(9, wbits=-15)
    zeros, checksum = bytes(1 << 20), 0
    begin = header((1 << 13, 1 << 12), fortran=fortran)
    packed, checksum = packer.compress(begin), zlib.crc32(begin)
    for _ in range(1 << 7):
        packed, checksum = packed + packer.compress(zeros), zlib.crc32(zeros, checksum)
    packed += packer.flush()
    size = len(begin) + (1 << 27)
    name = b"z.npy"
    local = struct.pack(
        "<4s5H3I2H", b"PK\x03\x04", 20, 0, 8, 0, 33, checksum, len(packed), size, len(name), 0
    )
    entry = struct.pack(
        "<4s6H3I5H2I",
        b"PK\x01\x02",
        20,
        20,
        0,
        8,
        0,
        33,
        checksum,
        len(packed),
        size,
        len(name),
        0,
        0,
        0,
        0,
        0,
        0,
    )
    start = len(local) + len(name) + len(packed)
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(entry) + len(name), start, 0)
    path = folder / "bomb.npz"
    path.write_bytes(local + name + packed + entry + name + end)
    assert path.stat().st_size < 1 << 18
    return path


def test_an_archive_that_unpacks_to_a_thousand_times_its_size_is_held_to_the_budget(
    tmp_path: Path,
) -> None:
    with assert_refused(r"asks for 134\.22 MB of memory at once; --max-bytes allows 10\.00 MB"):
        open_embeddings(bomb(tmp_path), max_bytes=10**7)


def test_an_entry_that_promises_more_than_deflate_can_hold_is_refused(tmp_path: Path) -> None:
    path = npz_compressed(tmp_path, Z, np.arange(N))
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as file:
        size = file.getinfo("features.npy").file_size
    at = data.rindex(struct.pack("<I", size))
    data[at : at + 4] = struct.pack("<I", 2**31)
    path.write_bytes(data)
    with assert_refused("damaged"):
        open_embeddings(path)


@pytest.mark.parametrize("writer", [npz, npz_compressed])
def test_a_changed_byte_in_an_archive_is_found_by_its_checksum(writer: Any, tmp_path: Path) -> None:
    path = writer(tmp_path, Z, np.arange(N))
    with zipfile.ZipFile(path) as file:
        entry = file.getinfo("features.npy")
    data = bytearray(path.read_bytes())
    data[entry.header_offset + 30 + len("features.npy") + entry.compress_size - 9] ^= 1
    path.write_bytes(data)
    with assert_refused("damaged"):
        list(open_embeddings(path))


def test_a_member_that_is_no_array_is_told(tmp_path: Path) -> None:
    path = npz(tmp_path, Z, np.arange(N))
    path.write_bytes(path.read_bytes().replace(b"labels.npy", b"labels_npy"))
    assert f"{path} holds 1 members that are no arrays: left out" in open_embeddings(path).notes


def test_hdf5_that_declares_rows_and_stores_none(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    for name, options in (("chunked", {"chunks": (100, 512)}), ("flat", {})):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file.create_dataset("z", (10**10, 512), "f4", **options)
        with assert_refused("not all there|cut short"):
            open_embeddings(tmp_path / f"{name}.h5")


def test_hdf5_whose_numbers_lie_in_other_files_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    (tmp_path / "secret").write_bytes(bytes(800))
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file.create_dataset("z", (100, 2), "f4", external=[(str(tmp_path / "secret"), 0, 800)])
    with assert_refused("numbers of other files"):
        open_embeddings(tmp_path / "z.h5")


def test_a_chunk_of_hdf5_larger_than_the_budget_is_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file.create_dataset("z", data=np.zeros((2000, 1000), "f4"), chunks=(2000, 1000), compression="gzip")
    with assert_refused("asks for 8.00 MB"):
        open_embeddings(tmp_path / "z.h5", max_bytes=10**6)


def test_zarr_that_declares_rows_and_stores_none_is_refused_and_a_gap_is_told(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.open(str(tmp_path / "none"), mode="w", shape=(10**12, 4), chunks=(10, 4), dtype="f4")
    with assert_refused("not all there"):
        open_embeddings(tmp_path / "none")
    array = zarr.open(str(tmp_path / "gap"), mode="w", shape=(40, 4), chunks=(10, 4), dtype="f4")
    array[:30] = 1
    assert "1 of 4 chunks are not stored, and read as 0.0" in open_embeddings(tmp_path / "gap").notes[0]


def test_a_tensor_whose_shape_says_more_than_its_storage(tmp_path: Path) -> None:
    torch.save(torch.zeros(1, 4).expand(10**9, 4), tmp_path / "z.pt")
    with assert_refused("fewer numbers than its shape says"):
        open_embeddings(tmp_path / "z.pt")


@pytest.mark.parametrize("kind", ["itself", "many times over"])
def test_lists_within_lists_of_a_torch_file_come_to_an_end(kind: str, tmp_path: Path) -> None:
    content: list[Any] = [torch.ones(2)]
    if kind == "itself":
        content.append(content)
    for _ in range(20 if kind != "itself" else 0):
        content = [content] * 20
    torch.save(content, tmp_path / "z.pt")
    with assert_refused("nested more than 64 deep, or holds too many lists", seconds=30):
        load_torch_file(tmp_path / "z.pt")


def test_a_torch_file_with_compressed_members_is_refused(tmp_path: Path) -> None:
    pt(tmp_path, Z, Z)
    with (
        zipfile.ZipFile(tmp_path / "z.pt") as old,
        zipfile.ZipFile(tmp_path / "y.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with assert_refused("its members are compressed"):
        open_embeddings(tmp_path / "y.pt")


def test_a_line_of_text_that_does_not_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "z.csv").write_text("1," * (1 << 20))
    with assert_refused("its first line has more than"):
        open_embeddings(tmp_path / "z.csv")
    (tmp_path / "y.csv").write_text('label\n"' + "x" * (1 << 18) + '"\n')
    with assert_refused("holds no labels|labels for"):
        open_labels(tmp_path / "y.csv", 3)


def test_an_archive_that_says_to_span_several_disks_is_damaged(tmp_path: Path) -> None:
    torch.save({"z": torch.ones(2, 3)}, path := tmp_path / "z.pt")
    content = bytearray(path.read_bytes())
    locator = content.index(b"PK\x06\x07")
    struct.pack_into("<I", content, locator + 16, 2)
    path.write_bytes(content)
    with assert_refused("z.pt is damaged or cut short"):
        load_torch_file(path)
