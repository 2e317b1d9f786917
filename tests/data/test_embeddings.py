"""Embeddings of every format come back as the rows that were saved; what is none is one clear line."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import save_file

from fullrank.data.embedding_labels import open_labels
from fullrank.data.embeddings import open_embeddings
from fullrank.data.torch_files import load_torch_file
from fullrank.errors import DataError, UnknownNameError, UsageError

N, D = 103, 7
Z = np.random.default_rng(0).standard_normal((N, D)).astype(np.float32)
Y = np.arange(N) % 5
Writer = Callable[[Path, np.ndarray, np.ndarray], Path]


def npy(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    np.save(folder / "z.npy", z)
    return folder / "z.npy"


def npy_fortran(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    return npy(folder, np.asfortranarray(z), y)


def npy_big_endian(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    return npy(folder, z.astype(z.dtype.newbyteorder(">")), y)


def npz(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    np.savez(folder / "z.npz", labels=y, features=z)
    return folder / "z.npz"


def npz_fortran(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    return npz(folder, np.asfortranarray(z), y)


def npz_compressed(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    np.savez_compressed(folder / "z.npz", labels=y, features=z)
    return folder / "z.npz"


def npz_compressed_fortran(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    return npz_compressed(folder, np.asfortranarray(z), y)


def pt(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    torch.save(torch.from_numpy(z), folder / "z.pt")
    return folder / "z.pt"


def pt_dict(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    torch.save({"feats": torch.from_numpy(z), "targets": torch.from_numpy(y), "epoch": 3}, folder / "z.pth")
    return folder / "z.pth"


def pt_transposed(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    torch.save(torch.from_numpy(np.ascontiguousarray(z.T)).T, folder / "z.pt")
    return folder / "z.pt"


def pt_legacy(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    content = (torch.from_numpy(z), torch.from_numpy(y))
    torch.save(content, folder / "z.pt", _use_new_zipfile_serialization=False)
    return folder / "z.pt"


def pt_of_numpy(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    torch.save({"train": {"z": z, "y": y}}, folder / "z.pt")
    return folder / "z.pt"


def safetensors(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    save_file({"z": torch.from_numpy(z), "labels": torch.from_numpy(y)}, folder / "z.safetensors")
    return folder / "z.safetensors"


def parquet_lists(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    table = pa.table({"embedding": list(z), "label": y})
    parquet.write_table(table, folder / "z.parquet", row_group_size=40)
    return folder / "z.parquet"


def parquet_one_group(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    parquet.write_table(pa.table({"embedding": list(z)}), folder / "z.parquet", compression="zstd")
    return folder / "z.parquet"


def parquet_fixed_lists(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    column = pa.FixedSizeListArray.from_arrays(pa.array(z.reshape(-1)), z.shape[1])
    parquet.write_table(
        pa.table({"file": ["a"] * len(z), "z": column}), folder / "z.parquet", row_group_size=40
    )
    return folder / "z.parquet"


def parquet_columns(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    columns = {f"f{i}": z[:, i] for i in range(z.shape[1])}
    parquet.write_table(pa.table({"id": np.arange(len(z)), **columns, "label": y}), folder / "z.parquet")
    return folder / "z.parquet"


def hdf5(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    h5py = pytest.importorskip("h5py")
    with h5py.File(folder / "z.h5", "w") as file:
        file.create_dataset("val/features", data=z, chunks=(min(len(z), 16), z.shape[1]), compression="gzip")
        file["val/labels"] = y
        file["val/names"] = ["x"] * len(z)
    return folder / "z.h5"


def zarr_array(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    zarr = pytest.importorskip("zarr")
    array = zarr.open(str(folder / "z"), mode="w", shape=z.shape, chunks=(16, z.shape[1]), dtype=z.dtype)
    array[:] = z
    return folder / "z"


def zarr_group(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    zarr = pytest.importorskip("zarr")
    group = zarr.open_group(str(folder / "z.zarr"), mode="w")
    for name, array in (("features", z), ("labels", y)):
        group.require_group("val").create_array(name, shape=array.shape, dtype=array.dtype)[:] = array
    return folder / "z.zarr"


def shards(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    (folder / "shards").mkdir()
    for k, start in enumerate(range(0, len(z), 10)):
        np.save(folder / "shards" / f"part-{k}.npy", z[start : start + 10])  # part-10 comes behind part-9
    np.save(folder / "shards" / "labels.npy", y)
    (folder / "shards" / "notes.txt").write_text("made by hand")
    return folder / "shards"


def shards_with_labels_inside(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    (folder / "shards").mkdir()
    for k, start in enumerate(range(0, len(z), 60)):
        part = {"z": torch.from_numpy(z[start : start + 60]), "y": torch.from_numpy(y[start : start + 60])}
        save_file(part, folder / "shards" / f"{k}.safetensors")
    return folder / "shards"


WRITERS = [
    npy, npy_fortran, npy_big_endian, npz, npz_fortran, npz_compressed, npz_compressed_fortran, pt, pt_dict,
    pt_transposed, pt_legacy, pt_of_numpy, safetensors, parquet_lists, parquet_fixed_lists, parquet_columns,
    hdf5, zarr_array, zarr_group, shards, shards_with_labels_inside,
]  # fmt: skip
WITHOUT_LABELS = {
    npy,
    npy_fortran,
    npy_big_endian,
    pt,
    pt_transposed,
    pt_legacy,
    parquet_fixed_lists,
    zarr_array,
}
every_format = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)


@every_format
def test_every_format_gives_back_its_rows_as_often_as_wanted(writer: Writer, tmp_path: Path) -> None:
    rows = open_embeddings(writer(tmp_path, Z, Y))
    assert (rows.n, rows.d, rows.dtype) == (N, D, torch.float32)
    for size in (None, 1, 17, 1000):
        parts = list(rows.chunks(size))
        assert all(len(part) <= (size or N) and part.is_contiguous() for part in parts)
        assert torch.equal(torch.cat(parts), torch.from_numpy(Z))
    assert torch.equal(torch.cat(list(rows)), torch.from_numpy(Z))


@every_format
def test_every_format_gives_single_rows(writer: Writer, tmp_path: Path) -> None:
    rows = open_embeddings(writer(tmp_path, Z, Y))
    for index in ([], [0], [N - 1], [3, 4, 50, 99], list(range(0, N, 2)), list(range(N))):
        assert torch.equal(rows.rows(index), torch.from_numpy(Z[index])), index


@every_format
def test_labels_within_a_file_come_along(writer: Writer, tmp_path: Path) -> None:
    rows = open_embeddings(writer(tmp_path, Z, Y))
    if writer in WITHOUT_LABELS:
        assert rows.labels is None
    else:
        assert rows.labels is not None and rows.labels.tolist() == Y.tolist()


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("writer", [npy, npz_compressed, pt, safetensors, parquet_lists, hdf5, zarr_array])
def test_floating_point_stays_as_it_is(writer: Writer, dtype: Any, tmp_path: Path) -> None:
    z = Z.astype(dtype)
    rows = open_embeddings(writer(tmp_path, z, Y))
    assert torch.equal(torch.cat(list(rows)), torch.from_numpy(z)) and not rows.notes[1:]


def test_bfloat16_stays_as_it_is(tmp_path: Path) -> None:
    z = torch.from_numpy(Z).bfloat16()
    torch.save(z, tmp_path / "z.pt")
    save_file({"z": z}, tmp_path / "z.safetensors")
    for name in ("z.pt", "z.safetensors"):
        assert torch.equal(torch.cat(list(open_embeddings(tmp_path / name))), z)


@pytest.mark.parametrize(
    ("dtype", "read_as"), [("int8", torch.float32), ("uint8", torch.float32), ("int64", torch.float64)]
)
@pytest.mark.parametrize("writer", [npy, npz_compressed, pt, safetensors, parquet_lists, hdf5])
def test_integers_are_converted_exactly_with_a_note(
    writer: Writer, dtype: str, read_as: torch.dtype, tmp_path: Path
) -> None:
    z = np.arange(24).reshape(8, 3).astype(dtype)
    rows = open_embeddings(writer(tmp_path, z, np.zeros(8, int)))
    assert any("integers" in note for note in rows.notes)
    got = torch.cat(list(rows))
    assert got.dtype == read_as and got.tolist() == z.tolist()


def test_rows_that_are_not_finite_are_handed_on(tmp_path: Path) -> None:
    z = Z.copy()
    z[5, 2], z[6, 0] = np.nan, np.inf
    found = torch.cat(list(open_embeddings(npy(tmp_path, z, Y))))
    assert torch.equal(found.nan_to_num(1e9, 1e8), torch.from_numpy(z).nan_to_num(1e9, 1e8))


def test_what_is_in_memory_is_taken_as_it_is() -> None:
    for source in (Z, torch.from_numpy(Z), torch.from_numpy(Z).requires_grad_(), np.asfortranarray(Z)):
        rows = open_embeddings(source)
        assert torch.equal(torch.cat(list(rows)), torch.from_numpy(Z))
        assert not next(iter(rows)).requires_grad
    assert open_embeddings(rows) is rows


def test_the_origin_says_what_was_read(tmp_path: Path) -> None:
    rows = open_embeddings(npz(tmp_path, Z, Y))
    assert rows.origin == f"{tmp_path / 'z.npz'}[features], labels from labels"


# what cannot be read is one line


def refused(what: Any, *words: str, key: str | None = None) -> None:
    with pytest.raises(UsageError) as caught:
        open_embeddings(what, key)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    for word in words:
        assert re.search(word, line), line


def save(folder: Path, name: str, array: Any) -> Path:
    np.save(folder / name, array, allow_pickle=True)
    return folder / name


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros(10), r"shape \[10\].*matrix \[n, d\]"),
        (np.zeros((5, 3, 2)), r"shape \[5, 3, 2\].*class token"),
        (np.zeros((5, 3, 2, 2)), r"shape \[5, 3, 2, 2\].*pool"),
        (np.zeros((0, 4)), "no rows"),
        (np.zeros((4, 0)), "without columns"),
        (np.float32(3), r"shape \[\]"),
        (np.zeros((3, 2), bool), "booleans"),
        (np.zeros((3, 2), complex), "complex"),
        (np.full((3, 2), "a"), "text"),
        (np.array([[object()]]), "Python objects, which are never unpickled"),
        (np.zeros((3, 2), [("a", "f4")]), "elements of type"),
    ],
)
def test_an_array_that_is_no_matrix_of_numbers(array: Any, words: str, tmp_path: Path) -> None:
    refused(save(tmp_path, "z.npy", array), words)
    np.savez_compressed(tmp_path / "z.npz", z=array)
    refused(tmp_path / "z.npz", words)
    if array.dtype.kind in "fcb":
        torch.save(torch.as_tensor(array), tmp_path / "z.pt")
        refused(tmp_path / "z.pt", words)
        refused(torch.as_tensor(array), words)
    refused(array, words)


def test_several_matrices_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", a=Z, b=Z, y=Y)
    refused(tmp_path / "z.npz", r"--key: a float32 \[103, 7\], b float32 \[103, 7\]$")
    assert open_embeddings(tmp_path / "z.npz", "b").origin.endswith("[b], labels from y")
    with pytest.raises(UnknownNameError, match=r"unknown key 'c'.*known: a, b, y"):
        open_embeddings(tmp_path / "z.npz", "c")
    refused(tmp_path / "z.npz", r"z.npz\[y\] .*shape \[103\]", key="y")


def test_a_usual_name_settles_which_matrix_it_is(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2, 2), "out/Features": torch.from_numpy(Z)}, tmp_path / "z.pt")
    assert open_embeddings(tmp_path / "z.pt").n == N


def test_a_models_weights_are_no_embeddings(tmp_path: Path) -> None:
    torch.save(
        torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(3))).state_dict(), tmp_path / "m.pt"
    )
    refused(tmp_path / "m.pt", "weights of a model")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    npy(tmp_path, Z, Y)
    refused(tmp_path / "zz.npy", r"does not exist; did you mean z\.npy\?")
    refused(tmp_path / "nowhere" / "z.npy", "there is no folder")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors", ".parquet", ".h5"])
def test_an_empty_or_damaged_file(suffix: str, tmp_path: Path) -> None:
    if suffix == ".h5":
        pytest.importorskip("h5py")
    path = tmp_path / f"z{suffix}"
    path.touch()
    refused(path, "is empty")
    path.write_bytes(b"not what the ending says, but long enough to be looked into " * 20)
    refused(path, "is no ")


@pytest.mark.parametrize("writer", [npy, npz, npz_compressed, pt, safetensors, parquet_lists, hdf5])
def test_a_file_that_was_cut_short(writer: Writer, tmp_path: Path) -> None:
    path = writer(tmp_path, np.tile(Z, (20, 1)), np.tile(Y, 20))
    path.write_bytes(path.read_bytes()[:-3000])
    refused(path, "damaged|cut short")


def test_other_endings_are_told_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "z.csv").write_text("1,2\n")
    refused(tmp_path / "z.csv", r"\.npy, \.npz")
    (tmp_path / "z.pkl").write_bytes(pickle.dumps(Z))
    refused(tmp_path / "z.pkl", "never opened")


def test_a_folder_of_unlike_shards(tmp_path: Path) -> None:
    refused(tmp_path, "holds no embedding files")
    save(tmp_path, "0.npy", Z)
    save(tmp_path, "1.npy", Z[:, :3])
    refused(tmp_path, r"1\.npy has rows of width 3, 0\.npy of 7")
    (tmp_path / "1.npy").unlink()
    pt(tmp_path, Z, Y)
    refused(tmp_path, r"several kinds \(\.npy, \.pt\)")


def test_parquet_rows_of_unlike_length_or_missing(tmp_path: Path) -> None:
    for cells, words in (
        ([[1.0, 2.0], [3.0]], "row 1 has 1 numbers, row 0 has 2"),
        ([[1.0, 2.0], None], "row 1 is missing"),
        ([[1.0, None], [1.0, 2.0]], "missing numbers"),
    ):
        parquet.write_table(pa.table({"z": cells}), tmp_path / "z.parquet")
        with pytest.raises(DataError, match=words):
            list(open_embeddings(tmp_path / "z.parquet"))


def test_a_wrong_index_is_refused(tmp_path: Path) -> None:
    rows = open_embeddings(Z)
    for index in ([3, 2], [1, 1], [-1], [N]):
        with pytest.raises(UsageError, match="sorted index"):
            rows.rows(index)
    with pytest.raises(UsageError, match="at least 1"):
        rows.chunks(0)


# nothing in a file is ever run


class Trap:
    """Writes a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "caught"))


class ShellTrap(Trap):
    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return (os.system, (f"touch {self.path}",))


@pytest.mark.parametrize("trap", [Trap, ShellTrap])
@pytest.mark.parametrize("legacy", [True, False])
def test_no_pickle_is_run(trap: type[Trap], legacy: bool, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    content = {"z": torch.from_numpy(Z), "extra": trap(sprung)}
    torch.save(content, tmp_path / "z.pt", _use_new_zipfile_serialization=not legacy)
    refused(tmp_path / "z.pt", "asks for .* to be run, which is refused")
    for name in ("z.pkl", "z.npy", "plain.pt", "z.safetensors", "z.parquet", "z.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(trap(sprung)))
        refused(tmp_path / name)
    objects = np.empty((2, 2), object)
    objects[:] = trap(sprung)
    refused(save(tmp_path, "o.npy", objects), "never unpickled")
    np.savez(tmp_path / "o.npz", z=objects)
    refused(tmp_path / "o.npz", "never unpickled")
    np.savez(tmp_path / "y.npz", z=Z, labels=np.array([trap(sprung)] * N, object))
    assert open_embeddings(tmp_path / "y.npz").labels is None
    torch.save({"z": Z, "o": objects}, tmp_path / "o.pt")
    refused(tmp_path / "o.pt")
    assert not sprung.exists()


def test_no_pickle_within_zarr_is_run(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    sprung = tmp_path / "sprung"
    array = zarr.open(
        str(tmp_path / "z"), mode="w", shape=(4, 2), chunks=(4, 2), dtype="f4", zarr_format=2, compressor=None
    )
    array[:] = 1
    meta = tmp_path / "z" / ".zarray"
    meta.write_text(
        meta.read_text().replace('"filters": null', '"filters": [{"id": "pickle", "protocol": 5}]')
    )
    assert "pickle" in meta.read_text()
    (tmp_path / "z" / "0.0").write_bytes(pickle.dumps(ShellTrap(sprung)))
    refused(tmp_path / "z", "pickle")
    assert not sprung.exists()


def test_settings_of_a_script_beside_tensors_do_no_harm(tmp_path: Path) -> None:
    import argparse

    content = {
        "z": torch.from_numpy(Z),
        "args": argparse.Namespace(arch="vit"),
        "best": np.float64(3),
        "p": Path("x"),
    }
    torch.save(content, tmp_path / "z.pt")
    assert open_embeddings(tmp_path / "z.pt").n == N
    found, _ = load_torch_file(tmp_path / "z.pt")
    assert found["args"].fields == {"arch": "vit"}


# labels of their own file


def test_labels_of_every_format(tmp_path: Path) -> None:
    texts = [f"c{label}" for label in Y]
    np.save(tmp_path / "y.npy", Y)
    np.save(tmp_path / "column.npy", Y[:, None])
    np.savez(tmp_path / "y.npz", y=Y, other=Z)
    (tmp_path / "y.txt").write_text("\n".join(map(str, Y)) + "\n")
    (tmp_path / "names.txt").write_text("\n".join(texts))
    (tmp_path / "one.csv").write_text("kind\n" + "\n".join(texts))
    (tmp_path / "bare.csv").write_text("\n".join(map(str, Y)))
    (tmp_path / "y.csv").write_text("file,label\n" + "\n".join(f"{i},{text}" for i, text in enumerate(texts)))
    parquet.write_table(pa.table({"id": np.arange(N), "label": texts}), tmp_path / "y.parquet")
    torch.save(torch.from_numpy(Y), tmp_path / "y.pt")
    save_file({"targets": torch.from_numpy(Y), "z": torch.from_numpy(Z)}, tmp_path / "y.safetensors")
    for path in tmp_path.iterdir():
        assert open_labels(path, N).tolist() == Y.tolist(), path.name


def test_missing_labels_are_minus_one(tmp_path: Path) -> None:
    parquet.write_table(pa.table({"label": ["b", None, "a"]}), tmp_path / "y.parquet")
    assert open_labels(tmp_path / "y.parquet", 3).tolist() == [1, -1, 0]
    (tmp_path / "y.csv").write_text('label\n3\n""\n5\n')
    assert open_labels(tmp_path / "y.csv", 3).tolist() == [3, -1, 5]


def test_labels_that_do_not_fit_are_one_line(tmp_path: Path) -> None:
    np.save(tmp_path / "y.npy", Y)
    np.save(tmp_path / "f.npy", Z)
    np.save(tmp_path / "half.npy", np.full(N, 0.5))
    np.savez(tmp_path / "two.npz", a=Y, b=Y)
    np.save(tmp_path / "o.npy", np.array([Trap(tmp_path / "sprung")] * N, object), allow_pickle=True)
    (tmp_path / "wide.csv").write_text("1,2\n3,4\n")
    for name, words in (
        ("y.npy", "103 labels for 9 rows"),
        ("f.npy", "one number or text a row"),
        ("half.npy", "fractions"),
        ("two.npz", "which of these.*a, b"),
        ("o.npy", "no array of labels"),
        ("wide.csv", "without a heading"),
        ("z.npy", "does not exist"),
    ):
        with pytest.raises(DataError, match=words):
            open_labels(tmp_path / name, 9)
    assert not (tmp_path / "sprung").exists()


# memory


def anonymous_memory() -> int:
    """Bytes of this process that are no pages of a file."""
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("how much memory is in use is read from /proc")
    found = re.search(r"RssAnon:\s+(\d+) kB", status.read_text())
    assert found
    return 1024 * int(found[1])


@pytest.mark.slow
@pytest.mark.parametrize(
    "writer",
    [
        npy,
        npy_fortran,
        npz,
        npz_compressed,
        pt,
        safetensors,
        parquet_lists,
        parquet_one_group,
        parquet_fixed_lists,
        hdf5,
        zarr_array,
        shards,
    ],
    ids=lambda writer: writer.__name__,
)
def test_a_file_of_200_mb_is_read_within_64_mb(writer: Writer, tmp_path: Path) -> None:
    z = np.zeros((50_000, 1024), np.float32)
    z[:, 0] = np.arange(50_000)
    path = writer(tmp_path, z, np.zeros(50_000, int)) if writer is not shards else _large_shards(tmp_path, z)
    del z
    before, most, seen = anonymous_memory(), 0, 0.0
    for part in open_embeddings(path):
        most = max(most, anonymous_memory() - before)
        seen += float(part[:, 0].double().sum())
    assert seen == 50_000 * 49_999 / 2
    assert most < 64e6, f"{most / 1e6:.0f} MB"


def _large_shards(folder: Path, z: np.ndarray) -> Path:
    for k in range(5):
        save(folder, f"{k}.npy", z[k * 10_000 : (k + 1) * 10_000])
    return folder


@every_format
def test_what_is_handed_out_can_be_written_to(writer: Writer, tmp_path: Path) -> None:
    rows = open_embeddings(writer(tmp_path, Z, Y))
    for part in rows:
        part.zero_()
    assert torch.equal(torch.cat(list(rows)), torch.from_numpy(Z))
