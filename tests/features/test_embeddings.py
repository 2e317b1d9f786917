"""Embeddings of every format come back as the rows that were saved; what is none is one clear line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from pyarrow.csv import write_csv
from pyarrow.feather import write_feather
from safetensors.torch import save_file

from features.embedding_writers import (
    WITHOUT_LABELS,
    D,
    N,
    Writer,
    Y,
    Z,
    csv_with_names,
    every_format,
    hdf5,
    npy,
    npy_fortran,
    npz,
    npz_compressed,
    parquet_fixed_lists,
    parquet_lists,
    parquet_one_group,
    pt,
    safetensors,
    save,
    shards,
    tsv_of_numbers,
    zarr_array,
)
from fullrank.features.embeddings import open_embeddings


@every_format
def test_every_format_gives_back_its_rows_as_often_as_wanted(writer: Writer, tmp_path: Path) -> None:
    rows = open_embeddings(writer(tmp_path, Z, Y))
    text = writer in (csv_with_names, tsv_of_numbers)
    assert (rows.n, rows.d, rows.dtype) == (N, D, torch.float64 if text else torch.float32)
    for size in (None, 1, 17, 1000):
        parts = list(rows.chunks(size))
        assert all(len(part) <= (size or N) and part.is_contiguous() for part in parts)
        assert torch.equal(torch.cat(parts), torch.from_numpy(Z).to(rows.dtype))
    assert torch.equal(torch.cat(list(rows)), torch.from_numpy(Z).to(rows.dtype))


@every_format
def test_every_format_gives_single_rows(writer: Writer, tmp_path: Path) -> None:
    rows = open_embeddings(writer(tmp_path, Z, Y))
    for index in ([], [0], [N - 1], [3, 4, 50, 99], list(range(0, N, 2)), list(range(N))):
        assert torch.equal(rows.rows(index), torch.from_numpy(Z[index]).to(rows.dtype)), index


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


def test_in_text_a_column_of_whole_numbers_is_a_coordinate_and_one_that_counts_rows_is_not(
    tmp_path: Path,
) -> None:
    (tmp_path / "z.csv").write_text("id,a,b\n0,0,0.5\n1,0,1.5\n2,nan,2.5\n")
    rows = open_embeddings(tmp_path / "z.csv")
    assert torch.cat(list(rows))[:2].tolist() == [[0.0, 0.5], [0.0, 1.5]]
    assert rows.rows([2]).isnan().tolist() == [[True, False]]
    assert any("1 other column is left out: id" in note for note in rows.notes)


def test_in_text_whole_numbers_may_be_followed_by_others(tmp_path: Path) -> None:
    lines = ["0;1"] * 400_000 + ["0.5;2"]  # far behind the first block, from which types are read
    (tmp_path / "z.csv").write_text("\n".join(lines))
    rows = open_embeddings(tmp_path / "z.csv")
    assert rows.n == 400_001 and rows.rows([400_000]).tolist() == [[0.5, 2.0]]


def test_text_beside_arrays_is_not_taken_for_rows(tmp_path: Path) -> None:
    folder = shards(tmp_path, Z, Y)
    (folder / "about.csv").write_text("file,when\na,b\n")
    assert open_embeddings(folder).n == N


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["name"], "1 other column is left out: name"),
        (["name", "city", "split"], "3 other columns are left out: name, city, split"),
        (
            ["name", "city", "split", "note", "date"],
            "5 other columns are left out: name, city, split and 2 more",
        ),
    ],
)
def test_columns_of_words_are_left_out_and_said_with_their_number(
    words: list[str], said: str, tmp_path: Path
) -> None:
    rows = [",".join([*("x" * len(words)), "0.5", str(i / 7)]) for i in range(5)]
    (tmp_path / "z.csv").write_text("\n".join([",".join([*words, "a", "b"]), *rows]))
    opened = open_embeddings(tmp_path / "z.csv")
    assert (opened.n, opened.d) == (5, 2)
    assert any(note.endswith(said) for note in opened.notes)


PLANE = {"x": [0.5, 1.25, -2.0, 3.0], "y": [0.0, 1.0, 0.5, 2.0]}
WHOLE = [3, 1, 0, 2]


def _write_columns(folder: Path, suffix: str, columns: dict[str, list[Any]]) -> Path:
    path, table = folder / f"map{suffix}", pa.table(columns)
    write: Any = {".csv": write_csv, ".parquet": parquet.write_table, ".feather": write_feather}[suffix]
    write(table, path)
    return path


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".feather"])
@pytest.mark.parametrize(
    ("columns", "d", "labels"),
    [
        (PLANE, 2, None),
        ({"x": PLANE["x"], "target": PLANE["y"], "z": PLANE["x"]}, 3, None),
        ({"class0": PLANE["x"], "class1": PLANE["y"]}, 2, None),
        ({**PLANE, "label": WHOLE}, 2, "label"),
        ({**PLANE, "label": ["b", "a", "b", "a"]}, 2, "label"),
        ({"x": PLANE["x"], "y": [1.0, 0.0, 1.0, 0.0]}, 1, "y"),
        ({"x": PLANE["x"], "y": WHOLE}, 1, "y"),
        ({"name": ["a", "b", "c", "d"], "X": PLANE["x"], "Y": WHOLE, "Z": PLANE["y"]}, 3, None),
        ({**PLANE, "label": WHOLE, "class": ["b", "a", "b", "a"]}, 2, None),
    ],
)
def test_a_column_of_fractions_or_between_x_and_z_is_a_dimension_whatever_it_is_called(
    columns: dict[str, list[Any]], d: int, labels: str | None, suffix: str, tmp_path: Path
) -> None:
    rows = open_embeddings(_write_columns(tmp_path, suffix, columns))
    dimensions = [name for name in columns if name not in ("name", "label", "class", labels)]
    assert rows.d == d == len(dimensions)
    assert torch.cat(list(rows)).T.tolist() == [columns[name] for name in dimensions]
    assert (rows.labels is None) is (labels is None)
    said = [note for note in rows.notes if "labels are taken from" in note]
    assert [note.split("'")[-2] for note in said] == [name for name in (labels,) if name]


@pytest.mark.parametrize(
    ("columns", "said"), [(1, "1 column of numbers is"), (2, "2 columns of numbers are")]
)
def test_columns_are_counted_in_words_that_fit(columns: int, said: str, tmp_path: Path) -> None:
    path = _write_columns(tmp_path, ".csv", {f"f{i}": [0.5, 1.5] for i in range(columns)})
    assert any(f"{said} read" in note for note in open_embeddings(path).notes)


@pytest.mark.parametrize(("first", "n"), [("cat.jpg,-0.5,1.25", 3), ("cat.jpg,0.512,1", 3), ("name,0,1", 2)])
def test_a_first_line_of_words_and_coordinates_is_a_row(first: str, n: int, tmp_path: Path) -> None:
    (tmp_path / "z.csv").write_text(f"{first}\ndog.jpg,0.25,0.5\ncow.jpg,0.125,0.75\n")
    assert open_embeddings(tmp_path / "z.csv").n == n
