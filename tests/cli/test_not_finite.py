"""Numbers that are not finite, as the command line meets them: one line, and no NaN goes on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from cli.helpers import call
from fullrank.encoders.opening import open_encoder
from fullrank.errors import DataError
from fullrank.networks.backbones import build_backbone
from fullrank.networks.finite import first_not_finite
from fullrank.training.run_dir import RunDir

TRAIN = (
    *("train", "simsiam", "--data", "shapes", "--limit", "64", "--batch-size", "32", "--epochs", "1"),
    *("--backbone", "resnet8-w4", "--accelerator", "cpu", "--knn-every", "0", "--watch-images", "32"),
    *("--options.proj-output-dim", "16", "--options.pred-hidden-dim", "8"),
)
BAD = "blocks.1.conv1.weight"


@pytest.fixture(scope="module", params=[float("nan"), float("inf")], ids=["NaN", "infinite"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of an encoder with one weight that is not finite."""
    found = build_backbone("resnet8-w4", 32)
    weights = found.network.state_dict()
    weights[BAD][0, 0, 1, 1] = request.param
    header = {
        "backbone": "resnet8-w4", "stem": found.stem, "feature_dim": found.feature_dim, "image_size": 32,
        "mean": [0.5] * 3, "std": [0.5] * 3, "method": "simsiam", "data": "shapes", "epoch": 1, "step": 2,
    }  # fmt: skip
    folder: Path = tmp_path_factory.mktemp("encoders")
    RunDir(folder).save_encoder(weights, header, "bad.safetensors")
    return folder / "bad.safetensors"


@pytest.mark.parametrize(
    "words",
    [
        ("export", "--to", "torch", "--out", "OUT"),
        ("audit", "--data", "shapes", "--limit", "32", "--out", "OUT"),
        ("embed", "--data", "shapes", "--limit", "32", "--out", "OUT"),
        ("evaluate", "knn", "--data", "shapes", "--limit", "32"),
    ],
    ids=lambda words: words[0],
)
def test_no_command_takes_an_encoder_that_is_not_finite(
    encoder: Path, words: tuple[str, ...], tmp_path: Path
) -> None:
    at = 2 if words[0] == "evaluate" else 1
    out = str(tmp_path / "out")
    called = call(*words[:at], str(encoder), *(out if word == "OUT" else word for word in words[at:]))
    assert called.code == 2
    assert BAD in called.err
    assert "not finite" in called.err
    assert len(called.err.strip().splitlines()) == 1


def test_another_librarys_checkpoint_that_is_not_finite_is_refused_too(tmp_path: Path) -> None:
    import timm

    network = timm.create_model("resnet10t", num_classes=0)
    with torch.no_grad():
        network.get_buffer("bn1.running_mean")[0] = float("nan")
    torch.save(network.state_dict(), tmp_path / "model.pth")
    with pytest.raises(DataError, match=r"bn1\.running_mean holds numbers that are not finite"):
        open_encoder(tmp_path / "model.pth", arch="resnet10t")


def test_a_diverged_run_ends_with_one_line_and_a_sound_encoder(tmp_path: Path) -> None:
    out = tmp_path / "a"
    called = call(*TRAIN, "--lr", "1e30", "--optimizer", "sgd", "--out", str(out), "--quiet")
    assert called.code == 1
    (line,) = called.err.strip().splitlines()
    assert "step 2: " in line
    assert "the learning rate is too high: lower --lr" in line
    assert f"fullrank resume {out}" in line
    assert first_not_finite(load_file(out / "encoder.safetensors")) == ""
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["event"], last["step"], last["action"]) == ("not_finite", 2, "stop")


def test_a_step_that_is_left_out_is_told_as_it_happens(tmp_path: Path) -> None:
    rate = ("--lr", "1e30", "--optimizer", "sgd", "--schedule", "constant", "--warmup-epochs", "0")
    called = call(*TRAIN, *rate, "--on-nan", "skip", "--out", str(tmp_path / "a"))
    assert called.code == 1  # held-out images have no finite embedding after the first step
    assert "left out: step 2: " in called.out
    assert torch.is_grad_enabled()  # also while the error is kept
