"""What is no regular file is not opened, large images are skipped, and nothing in a file is ever run."""

from __future__ import annotations

import json
import os
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch

from encoders.foreign_layouts import ShellTrap, Trap
from faults.refusals import assert_refused
from features.embedding_writers import N, Z
from fullrank.encoders.libraries import from_timm_folder
from fullrank.features.embeddings import open_embeddings
from fullrank.features.labels import open_labels

# no regular files

SPECIAL: dict[str, Callable[[Path], Any]] = {
    "a pipe": os.mkfifo,
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a folder": Path.mkdir,
    "circle of links": lambda path: path.symlink_to(path),
}


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize(
    "suffix", [".npy", ".npz", ".pt", ".safetensors", ".parquet", ".arrow", ".csv", ".h5"]
)
def test_what_is_no_regular_file_is_not_opened(kind: str, suffix: str, tmp_path: Path) -> None:
    SPECIAL[kind](path := tmp_path / f"z{suffix}")
    with assert_refused("holds no embedding files" if kind == "a folder" else kind):
        open_embeddings(path)


def test_a_pipe_is_no_labels_no_weights_and_no_ordering(tmp_path: Path) -> None:
    from fullrank.encoders.checkpoints import read_weights
    from fullrank.images.data_order import load_ordering
    from fullrank.training.recipes import load_recipe

    for name, read in (
        ("y.npy", lambda path: open_labels(path, 3)),
        ("model.pt", read_weights),
        ("model.safetensors", read_weights),
        ("order.npy", lambda path: load_ordering(path, 3)),
        ("own.yaml", lambda path: load_recipe(str(path))),
    ):
        os.mkfifo(tmp_path / name)
        with assert_refused("a pipe|no recipe file"):
            read(tmp_path / name)


def test_nothing_in_proc_is_listed_as_images() -> None:
    from fullrank.images.opening import open_data

    for folder in ("/proc", "/sys/kernel"):
        with assert_refused("the kernel makes up"):
            open_data(folder)


def test_a_circle_of_links_is_no_folder_of_images(tmp_path: Path) -> None:
    from fullrank.images.opening import open_data

    (tmp_path / "loop").symlink_to("loop")
    with assert_refused("cannot be opened: Too many levels"):
        open_data(str(tmp_path / "loop"))


def test_circles_pipes_and_devices_among_images_are_skipped_and_named(tmp_path: Path) -> None:
    from fullrank.images.walking import list_images

    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "link.jpg").symlink_to("pipe.jpg")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    skipped: dict[str, str] = {}
    assert list_images(tmp_path, skipped) == []
    assert {Path(name).name for name in skipped} == {"loop", "pipe.jpg", "link.jpg", "zero.png"}


def test_a_pipe_among_the_chunks_of_zarr_is_found_before_it_is_read(tmp_path: Path) -> None:
    zarr = pytest.importorskip("zarr")
    zarr.open(str(tmp_path / "z"), mode="w", shape=(4, 2), chunks=(2, 2), dtype="f4")[:] = 1
    chunk = next(path for path in (tmp_path / "z" / "c").rglob("*") if path.is_file())
    chunk.unlink()
    os.mkfifo(chunk)
    with assert_refused("is a pipe"):
        open_embeddings(tmp_path / "z")


# images


def test_images_over_max_pixels_are_skipped_counted_and_named(tmp_path: Path) -> None:
    from PIL import Image

    from fullrank.images.opening import open_data

    for i in range(20):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i:02}.png")
    Image.new("RGB", (30, 30)).save(tmp_path / "large.png")
    data = open_data(str(tmp_path), max_pixels=800, max_corrupt=0.1)
    (where,) = data.skipped
    assert where.endswith("large.png")
    assert data.skipped[where] == "it has 30 x 30 pixels, more than the 800 of --max-pixels"
    assert any("1 of 21 images cannot be decoded" in note and "large.png" in note for note in data.notes)


def test_a_header_of_gigapixels_is_refused_by_its_size(tmp_path: Path) -> None:
    from PIL import Image

    from fullrank.images.decoding import decode

    Image.new("RGB", (8, 8)).save(path := tmp_path / "bomb.png")
    data = bytearray(path.read_bytes())
    data[16:24] = struct.pack(">II", 100_000, 100_000)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    path.write_bytes(data)
    with pytest.raises(OSError, match="of --max-pixels"):
        decode(path)


def test_a_row_of_a_table_names_no_file_elsewhere(tmp_path: Path) -> None:
    from fullrank.images.parquet_rows import ParquetRows

    (tmp_path / "in").mkdir()
    (tmp_path / "secret.png").touch()
    cells = [{"bytes": None, "path": path} for path in ("../secret.png", "/dev/zero", None)]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    parquet.write_table(pa.table({"image": pa.array(cells, kind)}), tmp_path / "in" / "t.parquet")
    rows = ParquetRows([tmp_path / "in" / "t.parquet"], "image")
    for i in range(3):
        with pytest.raises(OSError, match="does not lie beside its table"):
            rows[i]


# nothing is ever run: the traps of the other formats are in features/test_embeddings_refused.py


def test_pickles_as_labels_weights_and_features_are_not_run(tmp_path: Path) -> None:
    from fullrank.encoders.checkpoints import read_weights
    from fullrank.features.store import open_stored

    sprung = tmp_path / "sprung"
    trap = np.array([ShellTrap(sprung)] * N, object)
    for name, read in (
        ("y.npy", lambda path: open_labels(path, N)),
        ("y.npz", lambda path: open_labels(path, N)),
        ("y.pt", lambda path: open_labels(path, N)),
        ("model.ckpt", read_weights),
        ("model.bin", read_weights),
    ):
        (tmp_path / name).write_bytes(pickle.dumps(trap))
        with assert_refused(str(tmp_path / name)):
            read(tmp_path / name)
    np.save(tmp_path / "o.npy", trap, allow_pickle=True)
    with assert_refused("never unpickled"):
        open_labels(tmp_path / "o.npy", N)
    (tmp_path / "train").mkdir()
    (tmp_path / "embed.json").write_text('{"layout": "npy"}')
    (tmp_path / "train" / "provenance.json").write_text('{"taps": ["features"]}')
    for name in ("features", "indices"):
        np.save(tmp_path / "train" / f"{name}.npy", trap, allow_pickle=True)
    with assert_refused("never unpickled"):
        open_stored(tmp_path)
    assert not sprung.exists()


def test_pickles_within_hdf5_and_arrow_stay_bytes(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    payload = pickle.dumps(Trap(sprung := tmp_path / "sprung"))
    with h5py.File(tmp_path / "z.h5", "w") as file:
        file["z"] = Z
        file["z"].attrs["pickled"] = np.void(payload)
        file["labels"] = np.full(N, np.void(payload))
    assert open_embeddings(tmp_path / "z.h5").n == N
    table = pa.table({"z": list(Z), "label": [payload] * N})
    parquet.write_table(table.replace_schema_metadata({"pandas": payload}), tmp_path / "z.parquet")
    assert open_embeddings(tmp_path / "z.parquet").n == N
    assert not sprung.exists()


@pytest.mark.parametrize("argument", ["checkpoint_path", "pretrained_cfg_overlay", "cache_dir"])
def test_a_configuration_of_timm_opens_no_other_file(argument: str, tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Trap(sprung := tmp_path / "sprung")))
    config = {"architecture": "resnet10t", "model_args": {argument: str(tmp_path / "evil.pth")}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    from safetensors.torch import save_file

    save_file({"conv1.0.weight": torch.ones(1)}, tmp_path / "model.safetensors")
    with assert_refused(f"may not set {argument} of timm"):
        from_timm_folder(tmp_path)
    assert not sprung.exists()


def test_formulas_in_text_are_text(tmp_path: Path) -> None:
    (tmp_path / "z.csv").write_text("a,b,label\n1,2,=cmd|'/C calc'!A0\n3,4,@SUM(1)\n")
    assert open_embeddings(tmp_path / "z.csv").labels.tolist() == [0, 1]  # type: ignore[union-attr]
