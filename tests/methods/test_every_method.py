"""What every registered method promises; a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.methods import METHODS, Method, build_method, make_config
from fullrank.training.config import TrainConfig

SMALL: dict[str, dict[str, Any]] = {
    "simsiam": {"proj_output_dim": 8, "pred_hidden_dim": 4},
    "byol": {"proj_hidden_dim": 16, "proj_output_dim": 8, "pred_hidden_dim": 16},
}
OTHER: Mapping[type, Any] = {bool: lambda v: not v, int: lambda v: v + 1, float: lambda v: v * 0.9}

every_method = pytest.mark.parametrize("name", list(METHODS))


def backbone() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 12), nn.BatchNorm1d(12), nn.ReLU())


def method(name: str, seed: int = 0, **options: Any) -> Method:
    torch.manual_seed(seed)
    return build_method(name, backbone(), 12, SMALL.get(name, {}) | options)


def views(n: int = 16, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, 4, 4, generator=generator) for _ in range(2)]


@every_method
def test_gradient_reaches_every_parameter_of_the_backbone(name: str) -> None:
    m = method(name)
    m.loss(views()).loss.backward()
    for parameter in m.backbone.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


@every_method
def test_every_trainable_parameter_is_in_exactly_one_group(name: str) -> None:
    m = method(name)
    grouped = [id(p) for group in m.param_groups() for p in group.params]
    assert len(grouped) == len(set(grouped))
    assert {id(p) for p in m.parameters() if p.requires_grad} <= set(grouped)


@every_method
def test_bf16_gives_about_the_loss_of_fp32(name: str) -> None:
    m = method(name)
    exact = m.loss(views()).loss.item()
    m = method(name)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = m.loss(views()).loss.item()
    assert rounded == pytest.approx(exact, abs=0.05)


@every_method
def test_a_state_dict_restores_every_tap_bitwise(name: str) -> None:
    first, second = method(name, seed=0), method(name, seed=5)
    first.loss(views())
    second.load_state_dict(first.state_dict())
    ours, theirs = (m.eval().embed(views()[0]) for m in (first, second))
    assert all(torch.equal(ours[tap], theirs[tap]) for tap in ours)


@every_method
def test_loss_and_embed_name_the_same_taps(name: str) -> None:
    m = method(name)
    assert set(m.loss(views()).taps) == set(m.eval().embed(views()[0]))


@every_method
@pytest.mark.parametrize("batch", [[torch.ones(16, 3, 4, 4)] * 2, views(2)], ids=["constant", "two images"])
def test_an_extreme_batch_gives_a_finite_loss(name: str, batch: list[Tensor]) -> None:
    step = method(name).loss(batch)
    assert step.loss.isfinite()


@every_method
def test_one_view_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="it needs 2, got 1"):
        method(name).loss(views()[:1])


@every_method
def test_an_unknown_option_is_refused_with_the_nearest_real_one(name: str) -> None:
    real = dataclasses.fields(METHODS[name].Config)[0].name
    with pytest.raises(UnknownNameError, match=f"did you mean '{real}'"):
        make_config(METHODS[name], {real + "s": 1})


@every_method
def test_every_knob_changes_something(name: str) -> None:
    def footprint(**options: Any) -> str:
        m = method(name, **options)
        loss = m.loss(views()).loss
        loss.backward()
        shapes = {k: tuple(v.shape) for k, v in m.state_dict().items()}
        groups = [(g.name, len(g.params), g.fixed_lr) for g in m.param_groups()]
        with torch.no_grad():
            for p in m.backbone.parameters():
                p.add_(0.1)
        m.after_step(0.5)
        weights = [round(float(v.double().sum()), 6) for v in m.state_dict().values()]
        gradients = [None if p.grad is None else round(float(p.grad.sum()), 6) for p in m.parameters()]
        return repr((shapes, groups, round(loss.item(), 6), weights, gradients))

    plain = footprint()
    choices = {
        "predictor": {"simsiam": ["fixed", "none"], "byol": ["linear"]},
        "distance": {"byol": ["euclidean"]},
    }
    for knob in dataclasses.fields(METHODS[name].Config):
        value = (SMALL.get(name, {}) | {})[knob.name] if knob.name in SMALL.get(name, {}) else knob.default
        others = choices.get(knob.name, {}).get(name) or [OTHER[type(value)](value)]
        for other in others:
            assert footprint(**{knob.name: other}) != plain, f"{name}: {knob.name}={other!r} changes nothing"


@every_method
@pytest.mark.parametrize("image_size", [32, 224])
def test_the_defaults_are_options_of_a_run(name: str, image_size: int) -> None:
    known = {f.name for f in dataclasses.fields(TrainConfig)}
    assert set(METHODS[name].defaults(image_size)) <= known


@every_method
def test_the_docstring_names_the_paper_and_what_keeps_it_from_collapse(name: str) -> None:
    cls = METHODS[name]
    assert cls.paper in (cls.__doc__ or "")
    assert "keeps it from collapse" in (cls.__doc__ or "")
    assert cls.mechanism
