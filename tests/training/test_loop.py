"""The loop: exact resume, accumulation, judgement and what it leaves behind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors import safe_open

from expect import known
from fullrank.errors import FullrankError, UsageError
from fullrank.networks.backbones import build_backbone
from fullrank.report.run.figures import codes
from fullrank.report.run.reading import read_run
from fullrank.training.config import TrainConfig
from fullrank.training.loop import Outcome
from fullrank.training.records import Listener, RunRecord
from fullrank.training.run import resume, train

TINY: dict[str, Any] = {
    "data": "shapes", "limit": 192, "batch_size": 64, "epochs": 2, "backbone": "resnet8-w16",
    "level_every": 1, "accelerator": "cpu", "watch_images": 64, "knn_bank": 128, "lr": 0.2, "views": "shapes",
}  # fmt: skip
HEADS = {
    "simsiam": {"proj_output_dim": 16, "pred_hidden_dim": 8},
    "byol": {"proj_hidden_dim": 32, "proj_output_dim": 16, "pred_hidden_dim": 32},
}


def config(**changes: Any) -> TrainConfig:
    values = TINY | {"method": "simsiam"} | changes
    return TrainConfig(**{"options": HEADS.get(values["method"], {}), **values})


def run(out: Path, listeners: Sequence[Listener] = (), **changes: Any) -> Outcome:
    return train(config(**changes), out, listeners)


def records(out: Path) -> list[dict[str, Any]]:
    """All of them, in their order, without times."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "time"} for line in lines]


class Interrupted(Exception):
    pass


def stop_at(step: int, event: str = "step") -> Listener:
    def listener(record: RunRecord) -> None:
        if record.event == event and record.step == step:
            raise Interrupted

    return listener


def cut_run(out: Path, step: int, event: str = "step", **changes: Any) -> None:
    with pytest.raises(Interrupted):
        run(out, [stop_at(step, event)], **changes)


def assert_ends_as_if_never_cut(folder: Path, step: int, event: str = "step", **changes: Any) -> None:
    """A run that is cut at a step resumes to the last bit."""
    run(folder / "whole", **changes)
    cut_run(folder / "cut", step, event, **changes)
    resume(folder / "cut")
    assert records(folder / "cut") == records(folder / "whole")
    weights = [torch.load(folder / name / "checkpoints/last.pt")["method"] for name in ("cut", "whole")]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())


@pytest.mark.parametrize("method", ["simsiam", "byol"])
@pytest.mark.parametrize("checkpoint_every", [0, 2], ids=["per epoch", "within epochs"])
def test_a_run_cut_anywhere_resumes_to_the_last_bit(
    tmp_path: Path, method: str, checkpoint_every: int
) -> None:
    assert_ends_as_if_never_cut(tmp_path, 5, method=method, checkpoint_every=checkpoint_every)


def test_a_run_cut_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    assert_ends_as_if_never_cut(tmp_path, 0, "epoch")


def test_a_half_written_line_and_a_leftover_partial_file_do_no_harm(tmp_path: Path) -> None:
    run(tmp_path / "whole")
    cut_run(tmp_path / "cut", 4)
    with (tmp_path / "cut/metrics.jsonl").open("a") as file:
        file.write('{"event": "st')
    (tmp_path / "cut/checkpoints/.last.pt.partial").write_bytes(b"half")
    resume(tmp_path / "cut")
    assert records(tmp_path / "cut") == records(tmp_path / "whole")


def test_resuming_a_run_that_has_ended_changes_nothing(tmp_path: Path) -> None:
    run(tmp_path / "a")
    before = (tmp_path / "a/metrics.jsonl").read_bytes()
    assert resume(tmp_path / "a").reason == "finished"
    assert (tmp_path / "a/metrics.jsonl").read_bytes() == before


def test_an_override_of_a_run_that_has_ended_is_not_written_into_it(tmp_path: Path) -> None:
    run(tmp_path / "a")
    before = (tmp_path / "a/config.yaml").read_bytes()
    resume(tmp_path / "a", changes={"lr": 0.01}, override=("lr",))
    assert (tmp_path / "a/config.yaml").read_bytes() == before
    assert resume(tmp_path / "a").reason == "finished"


def test_the_seed_decides_everything(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run(tmp_path / name, seed=seed)
    assert records(tmp_path / "a") == records(tmp_path / "b")
    assert records(tmp_path / "a") != records(tmp_path / "c")


def test_records_come_in_order_and_epoch_zero_is_the_untrained_network(tmp_path: Path) -> None:
    run(tmp_path / "a")
    events = [(r["event"], r["step"]) for r in records(tmp_path / "a")]
    steps = [("step", 1), ("step", 2), ("step", 3)]
    later = [("step", 4), ("step", 5), ("step", 6)]
    assert events == [("epoch", 0), *steps, ("epoch", 3), *later, ("epoch", 6), ("end", 6)]
    assert records(tmp_path / "a")[0]["verdict"]["kind"] == "not decidable"


def test_accumulation_takes_one_step_for_several_batches(tmp_path: Path) -> None:
    for steps_per_epoch, taken in ((0, 2 * (192 // 32 // 3)), (1, 2)):  # optimiser steps are meant
        out = tmp_path / str(taken)
        run(out, batch_size=32, accumulate=3, steps_per_epoch=steps_per_epoch)
        assert records(out)[-1]["step"] == taken


def test_the_encoder_loads_into_its_backbone_and_says_what_it_is(tmp_path: Path) -> None:
    run(tmp_path / "a")
    with safe_open(tmp_path / "a/encoder.safetensors", framework="pt") as file:
        header, weights = file.metadata(), {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    assert header["format"] == "fullrank-encoder"
    assert json.loads(header["verdict"])["kind"] in {"healthy", "dimensional", "complete", "not decidable"}
    assert len(json.loads(header["mean"])) == 3
    backbone = build_backbone(header["backbone"], int(header["image_size"]))
    backbone.network.load_state_dict(weights)
    assert backbone.feature_dim == int(header["feature_dim"])


COLLAPSING: dict[str, Any] = {
    "options": HEADS["simsiam"] | {"stop_gradient": False, "output_bn": False},
    "lr": 0.8, "epochs": 8, "limit": 512, "patience": 1,
}  # fmt: skip


def test_a_collapse_stops_the_run_where_that_is_asked_for(tmp_path: Path) -> None:
    outcome = run(tmp_path / "a", on_collapse="stop", **COLLAPSING)
    assert outcome.reason == "collapsed"
    assert outcome.record.verdict["kind"] in {"complete", "dimensional"}
    assert records(tmp_path / "a")[-1]["reason"] == "collapsed"
    assert resume(tmp_path / "a").reason == "collapsed"


def test_a_collapse_stops_nothing_by_default(tmp_path: Path) -> None:
    assert run(tmp_path / "a", **COLLAPSING).reason == "finished"


def folder_of_images(folder: Path, labelled: bool) -> Path:
    rng = np.random.default_rng(0)
    for i in range(48):
        place = folder / ("ab"[i % 2] if labelled else ".")
        place.mkdir(parents=True, exist_ok=True)
        size = (40, 30) if i % 3 else (24, 36)
        Image.fromarray(rng.integers(0, 255, (*size, 3), dtype=np.uint8)).save(place / f"{i}.png")
    return folder


ON_DISK: dict[str, Any] = {"limit": 0, "batch_size": 16, "image_size": 16, "workers": 0}


@pytest.mark.parametrize("labelled", [True, False])
def test_images_of_different_sizes_are_decoded_and_cropped_one_by_one(tmp_path: Path, labelled: bool) -> None:
    folder = folder_of_images(tmp_path / "images", labelled)
    notes: list[str] = []
    changes = ON_DISK | {"data": str(folder), "views": "simsiam-cifar"}
    run(tmp_path / "a", [lambda r: notes.extend(getattr(r, "notes", []))], **changes)
    last = records(tmp_path / "a")[-2]
    assert (last["knn"] is not None) == labelled
    assert ("no k-NN: the images have no labels" in notes) != labelled


def test_a_lazy_run_resumes_to_the_last_bit_too(tmp_path: Path) -> None:
    folder = folder_of_images(tmp_path / "images", True)
    assert_ends_as_if_never_cut(tmp_path, 3, data=str(folder), views="simsiam", checkpoint_every=1, **ON_DISK)


def test_a_loss_that_is_not_finite_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(FullrankError, match=r"--lr"):
        run(tmp_path / "a", lr=1e30, lr_scaling="none", optimizer="sgd")


def test_config_yaml_has_the_widths_of_heads_that_follow_the_backbone(tmp_path: Path) -> None:
    run(tmp_path / "a", epochs=1, options={"pred_hidden_dim": 16})
    options = yaml.safe_load((tmp_path / "a/config.yaml").read_text())["options"]
    widths = {key: value for key, value in options.items() if key.endswith("_dim")}
    assert widths == {"proj_hidden_dim": 64, "proj_output_dim": 256, "pred_hidden_dim": 16}


def test_every_panel_of_a_method_with_prototypes_has_their_unique_share(tmp_path: Path) -> None:
    options = {"proj_hidden_dim": 16, "proj_output_dim": 8, "num_prototypes": 12}
    run(tmp_path / "a", method="dino", epochs=1, options=options)
    shares = [r["unique_prototypes"] for r in records(tmp_path / "a") if r["event"] == "epoch"]
    assert len(shares) == 2
    assert all(0 <= share <= 1 for share in shares)
    shown = codes(read_run(tmp_path / "a")).series[-1]
    assert (shown.name, [list(ys) for ys in shown.ys]) == ("share of unique prototypes", [shares])


def test_bad_input_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="larger than the 192 training images"):
        run(tmp_path / "a", batch_size=500)
    assert not (tmp_path / "a").exists()


def test_clipping_the_tensors_of_the_backbone_leaves_the_heads_as_they_are(tmp_path: Path) -> None:
    still: dict[str, Any] = {"clip_grad": 1e-9, "epochs": 1, "weight_decay": 0.0, "momentum": 0.0}
    ends = [run(tmp_path / of, clip_grad_of=of, **still).path for of in ("tensor", "backbone-tensor")]
    every, backbone = (torch.load(end / "checkpoints/last.pt", weights_only=True)["method"] for end in ends)
    moved = {key.split(".")[0] for key in every if not torch.allclose(every[key], backbone[key], atol=1e-5)}
    assert moved == {"projector", "predictor"}


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16", "clip_grad": 0.5},
        {"optimizer": "lars", "lr": 1e-3},
        {"optimizer": "adamw", "lr": 1e-3},
        {"nesterov": True, "clip_grad": 0.5, "clip_grad_of": "tensor"},
    ],
    ids=["bf16, clipped", "lars", "adamw", "nesterov, clipped tensor by tensor"],
)
def test_other_precisions_and_optimisers_train(tmp_path: Path, changes: dict[str, Any]) -> None:
    outcome = run(tmp_path / "a", epochs=1, **changes)
    assert outcome.reason == "finished"
    assert known(outcome.record.loss) < 1
