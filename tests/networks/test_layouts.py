"""Convolutions that PyTorch crashes in are found in a child process, once, and run contiguous."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fullrank import __main__
from fullrank.errors import UsageError
from fullrank.networks import layouts
from fullrank.networks.backbones import build_backbone
from fullrank.networks.layouts import Convolution, channels_last_fault, check, suspects
from fullrank.training.config import TrainConfig
from fullrank.training.records import RunRecord, StartRecord
from fullrank.training.run import train
from processes import printed_together

TRYING = """
import os
from fullrank.networks import layouts

def pretend(conv):
    if conv.groups == 2:
        os.abort()
    if conv.groups == 3:
        raise RuntimeError
    return conv.groups == 1

layouts.try_convolution = pretend
layouts.check_stdin()
"""
CRASHING = """
import json, sys
print(json.dumps(["crashes in" if conv["stride"] == [2, 2] else "" for conv in json.load(sys.stdin)]))
"""
WRONG = CRASHING.replace("crashes in", "is wrong in")
BROKEN = "raise SystemExit(1)"
BARE = """
import sys, torch
from torch import nn

for _ in range(3):
    conv = nn.Conv2d(4, 8, 1, stride=2).to(memory_format=torch.channels_last)
    images = torch.randn(8, 4, 96, 96).contiguous(memory_format=torch.channels_last).requires_grad_()
    conv(images).sum().backward()
"""


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "fullrank" / "layouts.json"


def convolution(**changes: Any) -> Convolution:
    values: dict[str, Any] = {
        "in_channels": 4, "out_channels": 8, "kernel_size": (1, 1), "stride": (2, 2), "padding": (0, 0),
        "dilation": (1, 1), "groups": 1, "height": 96, "width": 96, "dtype": "float32",
    }  # fmt: skip
    return Convolution(**values | changes)


def test_the_check_agrees_with_a_bare_convolution_in_a_process_of_its_own() -> None:
    bare = subprocess.run([sys.executable, "-c", BARE], capture_output=True)
    fault = check([convolution()])[convolution()]
    assert bool(fault) == (bare.returncode < 0), f"{fault!r} and exit code {bare.returncode}"


def test_each_fault_is_named_and_a_crash_leaves_the_others_their_verdict(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(layouts, "CHILD", TRYING)
    faults = {2: "crashes in", 3: layouts.UNKNOWN, 4: "is wrong in", 1: ""}
    assert check([convolution(groups=groups) for groups in faults]) == {
        convolution(groups=groups): fault for groups, fault in faults.items()
    }


def test_a_verdict_is_kept_for_this_version_and_cpu(
    monkeypatch: pytest.MonkeyPatch, empty_cache: Path
) -> None:
    monkeypatch.setattr(layouts, "CHILD", CRASHING)
    check([convolution()])
    assert list(json.loads(empty_cache.read_text()).values()) == ["crashes in"]
    monkeypatch.setattr(layouts, "CHILD", WRONG)
    assert check([convolution()]) == {convolution(): "crashes in"}
    monkeypatch.setattr(torch, "__version__", "9.9")
    assert check([convolution()]) == {convolution(): "is wrong in"}


def test_what_could_not_be_tried_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layouts, "CHILD", BROKEN)
    check([convolution()])
    monkeypatch.setattr(layouts, "CHILD", WRONG)
    assert check([convolution()]) == {convolution(): "is wrong in"}


def test_a_damaged_cache_is_no_cache(monkeypatch: pytest.MonkeyPatch, empty_cache: Path) -> None:
    empty_cache.parent.mkdir(parents=True)
    empty_cache.write_text("{")
    monkeypatch.setattr(layouts, "CHILD", WRONG)
    assert check([convolution()]) == {convolution(): "is wrong in"}


def test_the_convolutions_are_the_networks_own_at_every_size_of_view() -> None:
    network = build_backbone("resnet8-w4", 64).network
    found = set(suspects(network, [64, 32], torch.bfloat16))
    pointwise = {(c.in_channels, c.out_channels, c.height) for c in found if c.kernel_size == (1, 1)}
    assert pointwise == {(4, 8, 64), (8, 16, 32), (4, 8, 32), (8, 16, 16)}
    assert {c.dtype for c in found} == {"bfloat16"}


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vit_tiny_patch16_224", "resnet8-w64"])
def test_a_network_without_narrow_convolutions_starts_no_child(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("a child was started")

    monkeypatch.setattr(subprocess, "run", fail)
    assert channels_last_fault(build_backbone(name, 64 if "vit" in name else 32).network, [64]) == ""


def config(**changes: Any) -> TrainConfig:
    values: dict[str, Any] = {
        "data": "shapes", "limit": 32, "batch_size": 8, "epochs": 1, "backbone": "resnet8-w4",
        "views": "shapes", "accelerator": "cpu", "image_size": 32, "watch_images": 16,
        "knn_every": 0, "probe": "off",
        "options": {"proj_output_dim": 16, "pred_hidden_dim": 8}, "diagnostics_every": 0,
    }  # fmt: skip
    return TrainConfig(**values | changes)


def test_training_goes_on_contiguous_with_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(layouts, "CHILD", CRASHING)
    notes: list[str] = []
    layouts_seen: set[bool] = set()

    def listen(record: RunRecord) -> None:
        if isinstance(record, StartRecord):
            notes.extend(note for note in record.notes if "channels_last" in note)

    forward = nn.Conv2d.forward

    def seen(self: nn.Conv2d, images: torch.Tensor) -> torch.Tensor:
        if images.shape[1] > 1:
            layouts_seen.add(images.is_contiguous())
        return forward(self, images)

    monkeypatch.setattr(nn.Conv2d, "forward", seen)
    assert train(config(), tmp_path / "run", [listen]).reason == "finished"
    (note,) = notes
    assert "crashes in 1x1 convolutions of 4 to 8 channels (stride 2, 32 pixels, float32)" in note
    assert layouts_seen == {True}
    with pytest.raises(UsageError, match=r"--channels-last yes: PyTorch .* crashes in .* take auto or no"):
        train(config(channels_last="yes"), tmp_path / "other")


@pytest.mark.acceptance
def test_a_narrow_network_trains_on_larger_images_without_a_crash(tmp_path: Path) -> None:
    words = ["simsiam", "--data", "digits", "--limit", "32", "--batch-size", "8", "--epochs", "1"]
    words += ["--backbone", "resnet8-w4", "--image-size", "96", "--watch-images", "16", "--knn-every", "0"]
    words += ["--views", "shapes", "--workers", "0", "--out", str(tmp_path / "run"), "--json"]
    fonts = {"MPLCONFIGDIR": str(Path("~/.cache/matplotlib").expanduser())}  # listing them takes seconds
    (printed,) = printed_together(Path(__main__.__file__), [["train", *words]], fonts)
    assert json.loads(printed)


@pytest.mark.parametrize(("old", "new"), [(True, "auto"), (False, "no"), ("yes", "yes")])
def test_configurations_from_before_are_read(old: bool | str, new: str) -> None:
    assert TrainConfig.from_dict({"channels_last": old}).channels_last == new
