"""Writes rows and labels in every format that embeddings come in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from pyarrow.feather import write_feather
from safetensors.torch import save_file

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


def arrow_stream(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    table = pa.table({"embedding": list(z), "label": y})
    with pa.OSFile(str(folder / "z.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=40)
    return folder / "z.arrow"


def feather(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    columns = {f"f{i}": z[:, i] for i in range(z.shape[1])}
    table = pa.table({"file": ["a"] * len(z), **columns, "label": y})
    write_feather(table, folder / "z.feather", compression="zstd", chunksize=40)
    return folder / "z.feather"


def csv_with_names(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    lines = [",".join(["", "file", *(f"f{i}" for i in range(z.shape[1])), "label"])]
    lines += [",".join([str(k), "a b", *map(repr, map(float, row)), f"k{y[k]}"]) for k, row in enumerate(z)]
    (folder / "z.csv").write_text("\n".join(lines) + "\n")
    return folder / "z.csv"


def tsv_of_numbers(folder: Path, z: np.ndarray, y: np.ndarray) -> Path:
    np.savetxt(folder / "z.tsv", z.astype(np.float64), delimiter="\t", fmt="%.17g")
    return folder / "z.tsv"


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
    arrow_stream, feather, csv_with_names, tsv_of_numbers, hdf5, zarr_array, zarr_group, shards,
    shards_with_labels_inside,
]  # fmt: skip
WITHOUT_LABELS = {
    npy,
    npy_fortran,
    npy_big_endian,
    pt,
    pt_transposed,
    pt_legacy,
    parquet_fixed_lists,
    tsv_of_numbers,
    zarr_array,
}
every_format = pytest.mark.parametrize("writer", WRITERS, ids=lambda writer: writer.__name__)


def save(folder: Path, name: str, array: Any) -> Path:
    np.save(folder / name, array, allow_pickle=True)
    return folder / name
