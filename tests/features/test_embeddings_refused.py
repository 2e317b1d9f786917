"""What holds no embeddings, or would run code, is refused in one line; labels that fit are read."""

from __future__ import annotations

import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from safetensors.torch import save_file

from encoders.foreign_layouts import ShellTrap, Trap
from features.embedding_writers import (
    N,
    Writer,
    Y,
    Z,
    feather,
    hdf5,
    npy,
    npz,
    npz_compressed,
    parquet_lists,
    pt,
    safetensors,
    save,
)
from fullrank.encoders.torch_files import load_torch_file
from fullrank.errors import DataError, UnknownNameError, UsageError
from fullrank.features.embeddings import open_embeddings
from fullrank.features.labels import open_labels


def assert_refused(what: Any, *words: str, key: str | None = None) -> None:
    with pytest.raises(UsageError) as caught:
        open_embeddings(what, key)
    line = str(caught.value)
    assert "\n" not in line and len(line) < 400
    for word in words:
        assert re.search(word, line), line


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
    assert_refused(save(tmp_path, "z.npy", array), words)
    np.savez_compressed(tmp_path / "z.npz", z=array)
    assert_refused(tmp_path / "z.npz", words)
    if array.dtype.kind in "fcb":
        torch.save(torch.as_tensor(array), tmp_path / "z.pt")
        assert_refused(tmp_path / "z.pt", words)
        assert_refused(torch.as_tensor(array), words)
    assert_refused(array, words)


def test_several_matrices_are_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", a=Z, b=Z, y=Y)
    assert_refused(tmp_path / "z.npz", r"--key: a float32 \[103, 7\], b float32 \[103, 7\]$")
    assert open_embeddings(tmp_path / "z.npz", "b").origin.endswith("[b], labels from y")
    with pytest.raises(UnknownNameError, match=r"unknown key 'c'.*known: a, b, y"):
        open_embeddings(tmp_path / "z.npz", "c")
    assert_refused(tmp_path / "z.npz", r"z.npz\[y\] .*shape \[103\]", key="y")


def test_a_usual_name_settles_which_matrix_it_is(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2, 2), "out/Features": torch.from_numpy(Z)}, tmp_path / "z.pt")
    assert open_embeddings(tmp_path / "z.pt").n == N


def test_a_models_weights_are_no_embeddings(tmp_path: Path) -> None:
    torch.save(
        torch.nn.Sequential(*(torch.nn.Linear(3, 3) for _ in range(3))).state_dict(), tmp_path / "m.pt"
    )
    assert_refused(tmp_path / "m.pt", "weights of a model")


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    npy(tmp_path, Z, Y)
    assert_refused(
        tmp_path / "zz.npy", rf"does not exist; did you mean {re.escape(str(tmp_path / 'z.npy'))}\?"
    )
    assert_refused(tmp_path / "nowhere" / "z.npy", "there is no folder")


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".pt", ".safetensors", ".parquet", ".arrow", ".h5"])
def test_an_empty_or_damaged_file(suffix: str, tmp_path: Path) -> None:
    if suffix == ".h5":
        pytest.importorskip("h5py")
    path = tmp_path / f"z{suffix}"
    path.touch()
    assert_refused(path, "is empty")
    path.write_bytes(b"not what the ending says, but long enough to be looked into " * 20)
    assert_refused(path, "is no ")


@pytest.mark.parametrize("writer", [npy, npz, npz_compressed, pt, safetensors, parquet_lists, feather, hdf5])
def test_a_file_that_was_cut_short(writer: Writer, tmp_path: Path) -> None:
    path = writer(tmp_path, np.tile(Z, (20, 1)), np.tile(Y, 20))
    path.write_bytes(path.read_bytes()[:-3000])
    assert_refused(path, "damaged|cut short")


def test_other_endings_are_told_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "z.mat").write_text("1,2\n")
    assert_refused(tmp_path / "z.mat", r"\.npy, \.npz")
    (tmp_path / "z.pkl").write_bytes(pickle.dumps(Z))
    assert_refused(tmp_path / "z.pkl", "never opened")


def test_a_folder_of_unlike_shards(tmp_path: Path) -> None:
    assert_refused(tmp_path, "holds no embedding files")
    save(tmp_path, "0.npy", Z)
    save(tmp_path, "1.npy", Z[:, :3])
    assert_refused(tmp_path, r"1\.npy has rows of width 3, 0\.npy of 7")
    (tmp_path / "1.npy").unlink()
    pt(tmp_path, Z, Y)
    assert_refused(tmp_path, r"several kinds \(\.npy, \.pt\)")


def test_parquet_rows_of_unlike_length_or_missing(tmp_path: Path) -> None:
    for cells, words in (
        ([[1.0, 2.0], [3.0]], "row 1 has 1 numbers, row 0 has 2"),
        ([[1.0, 2.0], None], "row 1 is missing"),
        ([[1.0, None], [1.0, 2.0]], "missing numbers"),
    ):
        parquet.write_table(pa.table({"z": cells}), tmp_path / "z.parquet")
        with pytest.raises(DataError, match=words):
            list(open_embeddings(tmp_path / "z.parquet"))


def test_text_that_is_no_table_of_numbers(tmp_path: Path) -> None:
    for text, words in (
        ("a,b\n1,2\n3\n", "is no CSV file, or damaged: .*Expected 2 columns, got 1"),
        ("a,b\n" + "1,2\n" * 400_000 + "3,x\n", "is no CSV file, or damaged: .*conversion error"),
        ("name,when\nx,y\n", "has no column of numbers or of lists of them: name, when"),
        ("a,b\n", "holds no rows|no column of numbers"),
    ):
        (tmp_path / "z.csv").write_text(text)
        assert_refused(tmp_path / "z.csv", words)
    (tmp_path / "z.csv").write_text("a,b\n1,2\n3,\n")
    with pytest.raises(DataError, match=r"z\.csv\[b\] row 1 is missing"):
        list(open_embeddings(tmp_path / "z.csv"))


def test_a_wrong_index_is_refused(tmp_path: Path) -> None:
    rows = open_embeddings(Z)
    for index in ([3, 2], [1, 1], [-1], [N]):
        with pytest.raises(UsageError, match="sorted index"):
            rows.rows(index)
    with pytest.raises(UsageError, match="at least 1"):
        rows.chunks(0)


# nothing in a file is ever run


@pytest.mark.parametrize("trap", [Trap, ShellTrap])
@pytest.mark.parametrize("legacy", [True, False])
def test_no_pickle_is_run(trap: type[Trap], legacy: bool, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    content = {"z": torch.from_numpy(Z), "extra": trap(sprung)}
    torch.save(content, tmp_path / "z.pt", _use_new_zipfile_serialization=not legacy)
    assert_refused(tmp_path / "z.pt", "asks for .* to be run, which is refused")
    for name in ("z.pkl", "z.npy", "plain.pt", "z.safetensors", "z.parquet", "z.npz"):
        (tmp_path / name).write_bytes(pickle.dumps(trap(sprung)))
        assert_refused(tmp_path / name)
    objects = np.empty((2, 2), object)
    objects[:] = trap(sprung)
    assert_refused(save(tmp_path, "o.npy", objects), "never unpickled")
    np.savez(tmp_path / "o.npz", z=objects)
    assert_refused(tmp_path / "o.npz", "never unpickled")
    np.savez(tmp_path / "y.npz", z=Z, labels=np.array([trap(sprung)] * N, object))
    assert open_embeddings(tmp_path / "y.npz").labels is None
    torch.save({"z": Z, "o": objects}, tmp_path / "o.pt")
    assert_refused(tmp_path / "o.pt")
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
    assert_refused(tmp_path / "z", "pickle")
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


def test_an_empty_line_of_a_single_column_is_a_row_without_a_label(tmp_path: Path) -> None:
    (tmp_path / "y.csv").write_text("label\ncat\n\ndog\n\n")
    assert open_labels(tmp_path / "y.csv", 3).tolist() == [0, -1, 1]


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
        ("o.npy", "never unpickled"),
        ("wide.csv", "without a heading"),
        ("z.npy", "does not exist"),
    ):
        with pytest.raises(DataError, match=words):
            open_labels(tmp_path / name, 9)
    assert not (tmp_path / "sprung").exists()


# memory


def test_a_table_with_a_column_twice_is_refused_in_a_line(tmp_path: Path) -> None:
    file = tmp_path / "rows.csv"
    file.write_text("a,b,a\n1.5,2.5,3.5\n4.5,5.5,6.5\n")
    with pytest.raises(DataError, match="several columns called 'a': rename them"):
        open_embeddings(file)
