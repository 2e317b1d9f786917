"""`fullrank export` from the command line: what it prints, its warning, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cli.helpers import Called, answered, call, refused


def test_a_run_is_exported_and_the_check_is_printed(trained: tuple[Path, Called]) -> None:
    called = call("export", str(trained[0]), "--to", "torch", "--out", "F")
    assert called.code == 0, called
    *files, checked = called.out.splitlines()
    assert files == ["written F/model.pth", "written F/fullrank.json", "written F/README.md"]
    assert checked == "checked features there differ by 0.0e+00 of their size at most"
    assert "warning" not in called.err


def test_onnx_prints_how_far_it_is_from_torch(trained: tuple[Path, Called]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    found = answered("export", str(trained[0]), "--to", "onnx", "--out", "F")
    assert found["files"][0] == "model.onnx" and found["difference"] < 1e-4


def test_a_collapsed_encoder_is_handed_on_with_a_warning(trained: tuple[Path, Called]) -> None:
    Path("run").mkdir()
    for name in ("config.yaml", "encoder.safetensors"):
        Path("run", name).write_bytes(Path(trained[0], name).read_bytes())
    weights = load_file("run/encoder.safetensors")
    with safe_open("run/encoder.safetensors", framework="pt") as file:
        header = dict(file.metadata())
    header["verdict"] = json.dumps({"kind": "complete", "why": "level is 0.001"})
    save_file(weights, "run/encoder.safetensors", header)
    called = call("export", "run", "--to", "torch", "--out", "F")
    assert called.code == 0
    warnings = [line for line in called.err.splitlines() if line.startswith("warning")]
    assert warnings == ["warning this encoder's run was judged to have collapsed after epoch 2: complete"]


def test_features_become_a_map(trained: tuple[Path, Called]) -> None:
    assert call("embed", str(trained[0]), "--out", "F", "--limit", "60").code == 0
    called = call("export", "F", "--to", "map", "--out", "M")
    assert called.code == 0, called
    assert [Path(line.split()[1]).name for line in called.out.splitlines()] == [
        "map.html", "map.svg", "map.pdf", "map.png", "map.csv",
    ]  # fmt: skip
    assert len(Path("M/map.csv").read_text().splitlines()) == 61


def test_features_of_a_run_become_a_map_with_its_images(trained: tuple[Path, Called]) -> None:
    run = str(trained[0])
    assert call("embed", run, "--out", "F", "--limit", "60").code == 0
    called = call("export", "F", "--to", "fiftyone", "--data", run, "--limit", "40", "--out", "M")
    assert called.code == 0, called
    names = [path.stem for path in sorted(Path("M", "data").iterdir())]
    assert names == sorted(json.loads(Path("M", "labels.json").read_text())["labels"]) and len(names) == 40


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ("F", "--to", "fiftyone"),
            "add --data with the images that the features are of: shapes, or the run",
        ),
        (("F", "--to", "fiftyone", "--data", "digits"), "digits holds other images than the features are of"),
        (("z.npy", "--to", "fiftyone", "--data", "shapes"), "FiftyOne shows images, and z.npy knows none"),
        (("RUN", "--to", "timm"), "timm cannot rebuild resnet8-w16"),
        (("RUN", "--to", "tensorrt"), "tensorrt"),
        (("RUN", "--to", "map"), "is an encoder: write its features with `fullrank embed`"),
        (("F", "--to", "torch"), "holds features, not an encoder: --to map draws them"),
        (("F", "--to", "map", "--tap", "projector"), "unknown tap 'projector'"),
        (("F", "--to", "map", "--limit", "1"), "a map of 1 points shows nothing"),
        (("nowhere.npy", "--to", "map"), "nowhere.npy does not exist"),
        (("RUN", "--to", "torch", "--out", "F"), "F exists already: take another --out"),
    ],
)
def test_what_cannot_be_is_one_line(words: tuple[str, ...], line: str, trained: tuple[Path, Called]) -> None:
    assert call("embed", str(trained[0]), "--out", "F", "--limit", "20", "--split", "test").code == 0
    np.save("z.npy", np.eye(40))
    words = tuple(str(trained[0]) if word == "RUN" else word for word in words)
    assert line in refused("export", *words, *([] if "--out" in words else ["--out", "G"]))
