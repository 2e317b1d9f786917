"""What is fuzzed: each reader with whole files of its own, and what reading them gives."""

from __future__ import annotations

import hashlib
import io
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from features import embedding_writers as writers

Files = dict[str, bytes]
"""The files of a folder by their paths within."""


@dataclass(frozen=True)
class Answer:
    """What a reader gave.

    Attributes:
        form: names, shapes, dtypes, settings.
        numbers: a digest of the values in arrays.
        notes: what it said beside that.
    """

    form: str
    numbers: str = ""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Target:
    """A reader.

    Attributes:
        read: of a folder with files as `seeds` gives them.
        checked: whether the format has a checksum for its numbers, so that none may change in silence.
    """

    name: str
    seeds: Callable[[], list[Files]]
    read: Callable[[Path], Answer]
    checked: bool = False
    needs: tuple[str, ...] = field(default=())

    @lru_cache(maxsize=1)  # noqa: B019 (targets live as long as the process)
    def whole(self) -> list[Files]:
        return self.seeds()


def files_of(folder: Path) -> Files:
    found = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def write_files(folder: Path, files: Mapping[str, bytes]) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def _written(*chosen: writers.Writer) -> Callable[[], list[Files]]:
    def seeds() -> list[Files]:
        found = []
        for writer in chosen:
            with tempfile.TemporaryDirectory() as name:
                writer(Path(name), writers.Z, writers.Y)
                found.append(files_of(Path(name)))
        return found

    return seeds


def _digest(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _only(folder: Path) -> Path:
    inside = sorted(folder.iterdir())
    return inside[0] if len(inside) == 1 else folder


def _embeddings(folder: Path) -> Answer:
    from fullrank.features.embeddings import open_embeddings

    rows = open_embeddings(_only(folder), max_bytes=1 << 28)
    z = torch.cat(list(rows.chunks()))
    rows.rows([0, rows.n - 1] if rows.n > 1 else [0])
    form = f"{rows.n} x {rows.d} {rows.dtype}, labels {rows.labels is not None}"
    return Answer(
        form, _digest(z.float().numpy(), rows.labels if rows.labels is not None else 0), tuple(rows.notes)
    )


def _labels(folder: Path) -> Answer:
    from fullrank.features.labels import open_labels

    labels = open_labels(_only(folder), writers.N, max_bytes=1 << 28)
    return Answer(f"{labels.shape}", _digest(labels))


def _label_files() -> list[Files]:
    lines = "\n".join(map(str, writers.Y)).encode()
    cells = "\n".join(f"{i},c{y}" for i, y in enumerate(writers.Y)).encode()
    file = io.BytesIO()
    np.save(file, writers.Y)
    return [{"y.txt": lines}, {"y.csv": b"file,label\n" + cells}, {"y.npy": file.getvalue()}]


def _weights(folder: Path) -> Answer:
    from fullrank.encoders.checkpoints import read_weights

    weights, said = read_weights(_only(folder))
    form = json.dumps({name: list(part.shape) for name, part in sorted(weights.items())})
    return Answer(
        form + str(sorted(map(str, said))), _digest(*(weights[n].float().numpy() for n in sorted(weights)))
    )


def _checkpoints() -> list[Files]:
    from safetensors.torch import save

    network = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.BatchNorm1d(3))
    state = {"model": network.state_dict(), "epoch": 3, "args": {"arch": "x"}}
    found: list[Files] = []
    for new in (True, False):
        file = io.BytesIO()
        torch.save(state, file, _use_new_zipfile_serialization=new)
        found.append({"model.pt": file.getvalue()})
    return [*found, {"model.safetensors": save(network.state_dict(), {"format": "pt"})}]


def _images() -> list[Files]:
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (24, 20, 3), dtype=np.uint8)
    found: list[Files] = []
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "BMP", "WEBP", "PPM", "TGA", "JPEG2000"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        found.append({f"image.{kind.lower()}": file.getvalue()})
    return found


class OneImage:
    """The only image of a folder, as items of a source."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __len__(self) -> int:
        return 1

    def __getitem__(self, i: int) -> Path:
        return self.path

    def where(self, i: int) -> str:
        return self.path.name


def _image(folder: Path) -> Answer:
    from fullrank.images.sources import LazySource

    image: Tensor = LazySource(name="one", items=OneImage(_only(folder)), index=np.arange(1)).load(0)
    return Answer(f"{list(image.shape)}", _digest(image.numpy()))


def _image_tables() -> list[Files]:
    import pyarrow as pa
    import pyarrow.parquet as parquet

    encoded = next(iter(_images()[0].values()))
    cells = [{"bytes": encoded, "path": f"{i}.png"} for i in range(6)]
    hub = {
        "info": {
            "features": {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
        }
    }
    table = pa.table({"image": cells, "label": [0, 1, 0, 1, 0, 1]})
    file = io.BytesIO()
    parquet.write_table(table.replace_schema_metadata({"huggingface": json.dumps(hub)}), file)
    return [{"train.parquet": file.getvalue()}]


def _image_table(folder: Path) -> Answer:
    from fullrank.images.opening import open_data

    data = open_data(str(folder), image_size=8, max_corrupt=0.9)
    images = torch.stack([data.train.load(i) for i in range(len(data.train))])
    return Answer(f"{list(images.shape)} {data.train.classes}", _digest(images.numpy()), tuple(data.notes))


def _stored_features() -> list[Files]:
    from fullrank.features.writing import StoreWriter

    found = []
    for layout in ("safetensors", "parquet", "npy"):
        with tempfile.TemporaryDirectory() as name:
            about = {"subject": "noise", "data": "x", "taps": ["features"]}
            writer = StoreWriter(Path(name), "train", about, layout=layout)
            writer.add(
                {"features": torch.from_numpy(writers.Z)}, torch.arange(writers.N), None, images=writers.N
            )
            writer.finish({"classes": None})
            found.append(files_of(Path(name)))
    return found


def _stored(folder: Path) -> Answer:
    from fullrank.features.store import open_stored

    splits = open_stored(folder)
    rows = {f"{split}/{tap}": stored.rows[tap] for split, stored in splits.items() for tap in stored.rows}
    form = json.dumps({name: [str(part.dtype), *part.shape] for name, part in rows.items()})
    return Answer(form, _digest(*(part.double().numpy() for part in rows.values())))


def _runs() -> list[Files]:
    import yaml

    from fullrank.training.config import TrainConfig

    measure = {"value": 0.7, "null": 0.6, "n": 100}
    row = {"metric": "level", "value": 0.7, "null": 1.0, "threshold": 0.05, "trend": 0.1, "says": "fine"}
    odd = {"name": "copies", "value": 3, "of": 9, "says": "3 of 9", "advice": "look"}
    verdict = {"kind": "healthy", "tap": "projector", "why": "level is 0.7", "probability": 0.01}
    verdict |= {"severity": 0.0, "evidence": [row], "blemishes": [odd]}
    panel = {"tap": "projector", "n": 100, "d": 8, "measures": {"level": measure, "auc": measure}}
    judged = {"verdict": verdict, "verdicts": {"projector": verdict}, "panels": {"projector": panel}}
    lines: list[dict[str, Any]] = []
    for epoch in range(4):
        step = {"event": "step", "epoch": epoch, "step": 5 * epoch + 1, "loss": -0.5, "lr": 0.1}
        spent = {"elapsed": 1.0 + epoch, "images_per_second": 9.0}
        lines.append({**step, "level": {"projector": 0.7}, "time": spent})
        place = {"event": "epoch", "epoch": epoch, "step": 5 * epoch + 2, "loss": -0.5}
        lines.append({**place, **judged, "knn": {"top1": 0.4}, "probe": None})
    lines.append({"event": "end", "epoch": 3, "step": 20, "reason": "finished", "time": {"total": 9.0}})
    spectra = io.BytesIO()
    np.savez_compressed(spectra, **{"projector.centred": np.linspace(3, 1, 8, dtype=np.float32)})  # type: ignore[arg-type]
    return [
        {
            "config.yaml": yaml.safe_dump(TrainConfig(epochs=3).as_dict()).encode(),
            "environment.json": json.dumps({"python": "3.11", "versions": {"torch": "2.6"}}).encode(),
            "metrics.jsonl": "".join(json.dumps(line) + "\n" for line in lines).encode(),
            "spectra/epoch_0003.npz": spectra.getvalue(),
        }
    ]


def _run(folder: Path) -> Answer:
    from fullrank.report.compare.subjects import run_subject
    from fullrank.report.run.page import write_page
    from fullrank.report.run.reading import read_run

    run = read_run(folder)
    run_subject(folder)
    html = write_page(folder).read_text()
    return Answer(f"{len(run.records)} {len(html) > 0}", "", (*run.notes, *["damaged"] * run.damaged))


def _settings(folder: Path) -> Answer:
    from fullrank.training.run_dir import RunDir

    return Answer(str(RunDir.open(folder).config()))


def _settings_files() -> list[Files]:
    return [{"config.yaml": _runs()[0]["config.yaml"]}]


def _recipe(folder: Path) -> Answer:
    from fullrank.training.recipes import load_recipe

    return Answer(str(load_recipe(str(folder / "own.yaml"))))


def _recipe_files() -> list[Files]:
    lines = (
        "method: simsiam",
        "about: x",
        "epochs: 3",
        "lr: 0.1",
        "betas: [0.9, 0.99]",
        "options: {proj_layers: 2}",
    )
    return [{"own.yaml": "\n".join(lines).encode()}]


def _audit(folder: Path) -> Answer:
    from fullrank.report.compare.subjects import open_subject

    return Answer(str(open_subject(str(folder), measure=False).judged))


def _audit_files() -> list[Files]:
    metric = {"value": 0.5, "null": 1.0, "power_law": None, "low": 0.4, "high": 0.6, "n": 9}
    whole = {"verdict": "healthy", "severity": 0.0, "probability": 0.1, "why": "fine", "tap": "embedding"}
    whole |= {"n": 100, "d": 8, "evidence": [], "blemishes": [], "metrics": {"level": metric}, "origin": "z"}
    return [{"audit.json": json.dumps(whole, indent=1).encode()}]


def _sweep(folder: Path) -> Answer:
    from fullrank.jobs.command import read_sweep

    known, note = read_sweep(folder / "sweep.json")
    return Answer(json.dumps(known), "", (note,) if note else ())


def _sweep_files() -> list[Files]:
    return [
        {
            "sweep.json": json.dumps(
                {f"lr=0.{i}": ["simsiam", "--lr", f"0.{i}"] for i in range(5)}, indent=1
            ).encode()
        }
    ]


TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("npy", _written(writers.npy, writers.npy_fortran, writers.npy_big_endian), _embeddings),
        Target("npz", _written(writers.npz, writers.npz_fortran), _embeddings, checked=True),
        Target(
            "npz-compressed",
            _written(writers.npz_compressed, writers.npz_compressed_fortran),
            _embeddings,
            checked=True,
        ),
        Target(
            "pt", _written(writers.pt, writers.pt_dict, writers.pt_legacy, writers.pt_of_numpy), _embeddings
        ),
        Target("safetensors", _written(writers.safetensors), _embeddings),
        Target(
            "parquet",
            _written(writers.parquet_lists, writers.parquet_one_group, writers.parquet_columns),
            _embeddings,
        ),
        Target("arrow", _written(writers.arrow_stream, writers.feather), _embeddings),
        Target("csv", _written(writers.csv_with_names, writers.tsv_of_numbers), _embeddings),
        Target("hdf5", _written(writers.hdf5), _embeddings, needs=("h5py",)),
        Target("zarr", _written(writers.zarr_array, writers.zarr_group), _embeddings, needs=("zarr",)),
        Target("labels", _label_files, _labels),
        Target("checkpoint", _checkpoints, _weights),
        Target("features", _stored_features, _stored),
        Target("image", _images, _image),
        Target("image-table", _image_tables, _image_table),
        Target("run", _runs, _run),
        Target("settings", _settings_files, _settings),
        Target("recipe", _recipe_files, _recipe),
        Target("audit", _audit_files, _audit),
        Target("sweep", _sweep_files, _sweep),
    )
}
"""By name."""
