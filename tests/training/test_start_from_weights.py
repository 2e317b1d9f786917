"""What is frozen stays to the last bit, layers learn at their own rates, and all of it is resumed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import fullrank
from encoders.foreign_layouts import shaken
from fullrank.encoders.opening import open_encoder
from fullrank.encoders.runs import open_with_taps
from fullrank.errors import UnknownNameError, UsageError
from fullrank.methods import ParamGroup
from fullrank.networks.backbones import build_backbone
from fullrank.networks.depth import layer_depths, parameters_of_stages, rate_factors
from fullrank.networks.lora import add_lora, merge_lora
from fullrank.networks.momentum import update_momentum
from fullrank.options import CompareOptions
from fullrank.report.audit.subjects import AuditOptions, audit_subject
from fullrank.report.compare.arms import compare_subjects
from fullrank.report.run.reading import read_run
from fullrank.training.config import TrainConfig
from fullrank.training.networks import build_networks
from fullrank.training.optim import build_optimizer, set_learning_rates
from fullrank.training.records import Listener, RunRecord, StartRecord
from fullrank.training.run_dir import RunDir

SMALL: dict[str, Any] = {
    "data": "shapes", "limit": 96, "batch_size": 32, "epochs": 2, "level_every": 1, "accelerator": "cpu",
    "watch_images": 32, "knn_every": 0, "diagnostics_every": 0, "views": "shapes", "lr": 0.2,
    "image_size": 16,
    "options": {"proj_hidden_dim": 32, "proj_output_dim": 16, "pred_hidden_dim": 32},
}  # fmt: skip
VIT = "vit_tiny_patch16_224(patch_size=8, embed_dim=32, depth=2, num_heads=2)"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """State dicts of a small ResNet and a small transformer."""
    folder = tmp_path_factory.mktemp("weights")
    for name, backbone in (("resnet", "resnet8-w16"), ("vit", VIT)):
        torch.save(shaken(build_backbone(backbone, 16).network).state_dict(), folder / f"{name}.pth")
    return {name: folder / f"{name}.pth" for name in ("resnet", "vit")}


def run(out: Path, listeners: Sequence[Listener] = (), **changes: Any) -> dict[str, Tensor]:
    """Train BYOL; the weights of its last checkpoint."""
    fullrank.train("byol", out=out, listeners=listeners, **SMALL | changes)
    return method_weights(out)


def method_weights(out: Path) -> dict[str, Tensor]:
    found = RunDir(out).checkpoints.newest()
    assert found is not None
    state: dict[str, Tensor] = found.state["method"]
    return state


def of_part(state: dict[str, Tensor], part: str) -> dict[str, Tensor]:
    return {key.removeprefix(part): value for key, value in state.items() if key.startswith(part)}


OPTIMIZERS: list[dict[str, Any]] = [
    {"optimizer": "sgd", "clip_grad": 1.0},
    {"optimizer": "lars", "lars_exclude_1d": True, "clip_grad": 1.0, "clip_grad_of": "tensor"},
    {"optimizer": "adamw", "lr": 1e-3, "exclude_1d_decay": True, "weight_decay": 0.1},
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=[str(o["optimizer"]) for o in OPTIMIZERS])
def test_frozen_stages_stay_to_the_last_bit_in_both_branches(
    optimizer: dict[str, Any], weights: dict[str, Path], tmp_path: Path
) -> None:
    source = torch.load(weights["resnet"])
    state = run(tmp_path / "run", init=weights["resnet"], freeze="stem, blocks.0", **optimizer)
    for branch in ("backbone.", "target.backbone."):
        for key, value in of_part(state, branch).items():
            frozen = key.startswith(("conv1.", "bn1.", "blocks.0."))
            if not key.endswith("num_batches_tracked"):
                assert torch.equal(value, source[key]) is frozen, f"{branch}{key}"


def test_a_backbone_that_is_all_frozen_stays_while_the_heads_learn(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    state = run(tmp_path / "run", init=weights["vit"], backbone=VIT, freeze="all")
    source = torch.load(weights["vit"])
    assert all(torch.equal(value, source[key]) for key, value in of_part(state, "backbone.").items())
    assert any(
        not torch.equal(value, state[f"target.projector.{key}"])
        for key, value in of_part(state, "projector.").items()
    )


def test_stages_are_named_as_the_network_names_them() -> None:
    network = build_backbone("vit_tiny_patch16_224(depth=4)", 32).network
    names = parameters_of_stages(network, ["stem", "blocks.0-1"])
    assert {name.split(".")[0] for name in names} == {"cls_token", "pos_embed", "patch_embed", "blocks"}
    assert {name.split(".")[1] for name in names if name.startswith("blocks")} == {"0", "1"}
    with pytest.raises(UnknownNameError, match=r"blocks\.4.*did you mean"):
        parameters_of_stages(network, ["blocks.3-4"])
    with pytest.raises(UnknownNameError, match=r"stage 'layer1'"):
        parameters_of_stages(network, ["layer1"])


def test_freezing_all_of_a_method_without_heads_is_refused() -> None:
    with pytest.raises(UsageError, match="--freeze all leaves nothing to train: directclr"):
        build_networks(TrainConfig(method="directclr", backbone="resnet8-w16", image_size=16, freeze="all"))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_rates_decay_with_depth_as_timms_do(name: str) -> None:
    from timm.optim._param_groups import param_groups_layer_decay

    network = timm.create_model(name, num_classes=0)
    expected = {
        p: group["lr_scale"]
        for group in param_groups_layer_decay(network, layer_decay=0.7)
        for p in group["params"]
    }
    assert rate_factors(network, 1.0, 0.7) == pytest.approx(expected)


@pytest.mark.parametrize("decay_free", [False, True])
@pytest.mark.parametrize("schedule", ["cosine", "epoch-cosine", "fractional-cosine", "step", "constant"])
def test_every_group_keeps_its_share_of_the_rate_at_every_step(schedule: Any, decay_free: bool) -> None:
    config = TrainConfig(
        backbone="resnet8-w16", image_size=16, schedule=schedule, epochs=4, warmup_epochs=1, final_lr=0.01,
        lr_backbone=0.1, layer_decay=0.5, exclude_1d_decay=decay_free, weight_decay=0.3, method="byol",
    )  # fmt: skip
    method = build_networks(config)[1]
    factors = rate_factors(method.backbone, config.lr_backbone, config.layer_decay)
    optimizer = build_optimizer(method.param_groups(), config, factors)
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in method.parameters() if p.requires_grad}
    assert len(grouped) == len({id(p) for p in grouped})
    depths = layer_depths(method.backbone)
    expected = {p: 0.1 * 0.5 ** (3 - depths[name]) for name, p in method.backbone.named_parameters()}
    for step in range(0, 40, 3):
        rate = set_learning_rates(optimizer, config, step, steps_per_epoch=10)
        for group in optimizer.param_groups:
            for p in group["params"]:
                if not group["fixed_lr"]:
                    assert group["lr"] == pytest.approx(rate * expected.get(p, 1.0))
                assert group["weight_decay"] == (0.0 if decay_free and p.ndim <= 1 else 0.3)


def test_optimisers_of_runs_from_before_have_groups_of_one_rate() -> None:
    config = TrainConfig(schedule="constant", lr_scaling="none", lr=0.5)
    optimizer = build_optimizer([ParamGroup("backbone", [nn.Parameter(torch.ones(1))])], config)
    for group in optimizer.param_groups:
        del group["lr_scale"]
    set_learning_rates(optimizer, config, 0, 1)
    assert optimizer.param_groups[0]["lr"] == 0.5


def test_a_moving_average_of_what_is_frozen_does_not_drift() -> None:
    online, target = nn.Linear(50, 50), nn.Linear(50, 50)
    target.load_state_dict(online.state_dict())
    online.weight.requires_grad_(False)
    with torch.no_grad():
        online.bias.add_(1.0)
    for _ in range(20):
        update_momentum(target, online, 0.9)
    assert torch.equal(target.weight, online.weight)
    assert not torch.equal(target.bias, online.bias)


@pytest.mark.parametrize("name", ["resnet", "vit"])
def test_low_rank_updates_are_all_that_a_backbone_learns_with_lora(
    name: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    source = torch.load(weights[name])
    state = run(tmp_path / "run", init=weights[name], lora=2, backbone=VIT if name == "vit" else "auto")
    for branch in ("backbone.", "target.backbone."):
        for key, value in of_part(state, branch).items():
            if "lora_" not in key:
                assert torch.equal(value, source[key.replace(".base_layer.", ".")]), f"{branch}{key}"
    low = {key: value for key, value in of_part(state, "backbone.").items() if "lora_B" in key}
    assert all(value.any() for value in low.values())


def test_an_encoder_with_lora_is_saved_and_opened_as_a_plain_one(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    run(tmp_path / "run", init=weights["resnet"], lora=2)
    encoder = open_encoder(tmp_path / "run")
    assert encoder.network.state_dict().keys() == torch.load(weights["resnet"]).keys()
    images = torch.randn(4, 3, 16, 16)
    adapted: Any = open_with_taps(tmp_path / "run", ["projector"]).network
    checkpoint = open_encoder(tmp_path / "run" / "checkpoints" / "last.pt")
    with torch.no_grad():
        features = encoder.network(images)
        assert torch.allclose(adapted.method.backbone(images), features, atol=1e-5)
        assert torch.equal(checkpoint.network(images), features)
    assert any("lora" in name for name, _ in adapted.method.backbone.named_parameters())


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "convnext_atto"])
def test_merged_weights_give_the_features_of_the_adapted_network(name: str) -> None:
    pytest.importorskip("peft")
    network, plain = (build_backbone(name, 32).network.eval() for _ in range(2))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        before = network(images)
        add_lora(network, 3)
        assert torch.allclose(network(images), before, atol=1e-6), "the updates start at zero"
        for key, p in network.named_parameters():
            if "lora_B" in key:
                p.normal_(std=0.1)
        plain.load_state_dict(merge_lora(network.state_dict()))
        after = network(images)
        assert not torch.allclose(after, before, atol=1e-3)
        assert torch.allclose(plain(images), after, atol=1e-4 * float(after.abs().max()))


def test_lora_leaves_frozen_layers_alone_and_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("peft")
    config = TrainConfig(backbone="resnet8-w16", image_size=16, lora=2, freeze="stem,blocks.0")
    names = [key for key, p in build_networks(config)[1].backbone.named_parameters() if p.requires_grad]
    assert names and all("lora_" in key and not key.startswith(("conv1", "blocks.0")) for key in names)
    with pytest.raises(UsageError, match="--lora finds no layer to adapt that is not frozen"):
        build_networks(TrainConfig(backbone="resnet8-w16", image_size=16, lora=2, freeze="all"))
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UsageError, match=r"--lora needs its package: pip install 'fullrank\[lora\]'"):
        build_networks(config)


class Interrupted(Exception):
    pass


def cut_at(step: int, event: str) -> Listener:
    def listener(record: RunRecord) -> None:
        if record.event == event and record.step == step:
            raise Interrupted

    return listener


CHANGES: list[dict[str, Any]] = [
    {"freeze": "stem,blocks.0", "clip_grad": 0.5, "optimizer": "lars"},
    {"lora": 2, "optimizer": "adamw", "lr": 1e-3},
    {"layer_decay": 0.6, "lr_backbone": 0.3, "exclude_1d_decay": True},
]


@pytest.mark.parametrize("changes", CHANGES, ids=["freeze", "lora", "rates"])
@pytest.mark.parametrize(("step", "event"), [(0, "epoch"), (4, "step")])
def test_a_run_that_started_from_weights_resumes_to_the_last_bit(
    changes: dict[str, Any], step: int, event: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    if "lora" in changes:
        pytest.importorskip("peft")
    whole = run(tmp_path / "whole", init=weights["resnet"], checkpoint_every=2, **changes)
    with pytest.raises(Interrupted):
        run(tmp_path / "cut", [cut_at(step, event)], init=weights["resnet"], checkpoint_every=2, **changes)
    fullrank.resume(tmp_path / "cut")
    cut = method_weights(tmp_path / "cut")
    assert whole.keys() == cut.keys() and all(torch.equal(cut[key], value) for key, value in whole.items())


def test_the_run_says_what_it_took_over_and_remembers_it(weights: dict[str, Path], tmp_path: Path) -> None:
    notes: list[str] = []

    def listen(record: RunRecord) -> None:
        if isinstance(record, StartRecord):
            notes.extend(record.notes)

    run(tmp_path / "run", [listen], init=weights["resnet"], epochs=1)
    assert any(
        note.startswith(f"backbone from {weights['resnet']}: 54 of 54 tensors (100 %") for note in notes
    )
    config = RunDir(tmp_path / "run").config()
    assert (config.init, config.backbone) == (str(weights["resnet"]), "resnet8-w16")


def test_the_source_decides_where_only_a_recipe_that_nobody_named_has_a_backbone(
    weights: dict[str, Path], tmp_path: Path
) -> None:
    run(tmp_path / "run", init=weights["vit"], epochs=1)
    assert RunDir(tmp_path / "run").config().backbone.startswith("vit_tiny_patch16_224(patch_size=8, ")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"layer_decay": 0.0}, r"--layer-decay lies in \(0, 1\], not 0"),
        ({"layer_decay": 1.5}, r"--layer-decay lies in \(0, 1\]"),
        ({"lr_backbone": -1.0}, "--lr-backbone must not be negative"),
        ({"lora": -1}, "--lora must not be negative"),
        ({"mean": (0.5,)}, "--mean takes three numbers"),
    ],
)
def test_what_cannot_be_is_refused_by_its_flag(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        TrainConfig(**changes)


@pytest.fixture(scope="module")
def loaded(weights: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that began with loaded weights."""
    out = tmp_path_factory.mktemp("runs") / "loaded"
    run(out, init=str(weights["resnet"]), backbone="resnet8-w16", epochs=1)
    return out


def test_before_its_first_step_a_run_says_what_of_it_is_loaded(loaded: Path) -> None:
    first = next(record for record in read_run(loaded).epochs if record.epoch == 0)
    assert first.verdict["kind"] == "not decidable"
    assert first.verdict["why"].startswith("no step of this run taken yet: its backbone is as loaded")


def test_what_a_run_began_with_is_judged_where_it_was_loaded(loaded: Path) -> None:
    view = audit_subject(str(loaded), AuditOptions(untrained=True))["features"]
    assert view.verdict.kind != "not decidable" and "as loaded" in view.origin


def test_what_a_run_began_with_is_called_as_loaded(loaded: Path) -> None:
    arms = compare_subjects([str(loaded)], CompareOptions(untrained=True)).arms
    assert [arm.name for arm in arms] == ["loaded (as loaded)"]
