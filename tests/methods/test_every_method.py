"""What every registered method promises; a new one is tested by being registered."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from typing import Any, Literal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from fullrank.cli.listing import taps_of
from fullrank.errors import UnknownNameError, UsageError
from fullrank.methods import METHODS, Method, StepInfo, make_config
from fullrank.training.config import TrainConfig
from methods.shrunk import SIDE, method, needed, shrunk, training_step

every_method = pytest.mark.parametrize("name", list(METHODS))


@every_method
def test_gradient_reaches_every_parameter_of_the_backbone(name: str) -> None:
    m = method(name)
    m.loss(needed(name)).loss.backward()
    for parameter in m.backbone.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()
        assert parameter.grad.abs().sum() > 0


@every_method
def test_what_is_not_trained_gets_no_gradient(name: str) -> None:
    m = method(name)
    m.loss(needed(name)).loss.backward()
    assert all(p.grad is None for p in m.parameters() if not p.requires_grad)


@every_method
def test_every_trainable_parameter_is_in_exactly_one_group(name: str) -> None:
    m = method(name)
    grouped = [id(p) for group in m.param_groups() for p in group.params]
    assert len(grouped) == len(set(grouped))
    assert {id(p) for p in m.parameters() if p.requires_grad} <= set(grouped)


@every_method
def test_bf16_gives_about_the_loss_of_fp32(name: str) -> None:
    exact = method(name).loss(needed(name)).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = method(name).loss(needed(name)).loss.item()
    assert rounded == pytest.approx(exact, rel=0.05, abs=0.05)


@every_method
def test_a_state_dict_restores_every_tap_bitwise(name: str) -> None:
    first, second = method(name, seed=0), method(name, seed=5)
    first.loss(needed(name))
    second.load_state_dict(first.state_dict())
    ours, theirs = (m.eval().embed(needed(name)[0]) for m in (first, second))
    assert all(torch.equal(ours[tap], theirs[tap]) for tap in ours)


@every_method
def test_a_method_that_is_saved_between_two_steps_goes_on_as_if_it_had_not_been(name: str) -> None:
    def steps(m: Method, numbers: range) -> list[float]:
        losses = []
        for step in numbers:
            torch.manual_seed(step)  # as the loop does, so that no random state need be saved
            done = training_step(m, needed(name, seed=step), StepInfo(step, 4, 2), lr=0.01)
            losses.append(done.loss.item())
        return losses

    straight = method(name)
    whole = steps(straight, range(4))
    before, after = method(name), method(name, seed=7)
    steps(before, range(2))
    after.load_state_dict(before.state_dict())
    assert steps(after, range(2, 4)) == whole[2:]


@every_method
def test_loss_and_embed_name_the_same_taps_but_for_codes_that_a_loss_does_not_keep(name: str) -> None:
    m = method(name)
    of_loss, of_embed = set(m.loss(needed(name)).taps), set(m.eval().embed(needed(name)[0]))
    assert of_loss == of_embed - ({"codes"} if name == "cplearn" else set())


@every_method
def test_every_tap_is_one_row_per_image(name: str) -> None:
    taps = method(name).eval().embed(needed(name)[0])
    assert {tuple(z.shape[:1]) for z in taps.values()} == {(16,)}
    assert {z.ndim for z in taps.values()} == {2}


@every_method
def test_the_docstring_names_the_taps_that_there_are(name: str) -> None:
    assert taps_of(METHODS[name]) == list(method(name).eval().embed(needed(name)[0]))


@every_method
def test_measuring_changes_no_state(name: str) -> None:
    m = method(name)
    m.loss(needed(name))
    before = {key: value.clone() for key, value in m.state_dict().items()}
    with torch.no_grad():
        m.eval().embed(needed(name, seed=3)[0])
    assert all(torch.equal(before[key], value) for key, value in m.state_dict().items())


@every_method
@pytest.mark.parametrize("batch", ["constant", "two images"])
def test_an_extreme_batch_gives_a_finite_loss_and_gradient_or_one_clear_line(name: str, batch: str) -> None:
    m, constant = method(name), [torch.ones(16, 3, SIDE, SIDE)] * METHODS[name].views_needed
    try:
        loss = m.loss(constant if batch == "constant" else needed(name, n=2)).loss
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017 - a loss and a clear line are both right
        return
    assert loss.isfinite()
    loss.backward()
    assert all(p.grad.isfinite().all() for p in m.parameters() if p.grad is not None)


@every_method
def test_fewer_views_than_it_needs_are_refused(name: str) -> None:
    count = METHODS[name].views_needed
    with pytest.raises(UsageError, match=f"it needs {count}, got {count - 1}"):
        method(name).loss(needed(name, more=-1))


@every_method
def test_more_views_than_it_needs_give_a_loss_on_the_same_scale(name: str) -> None:
    few, many = (method(name).loss(needed(name, more=more)).loss.item() for more in (0, 2))
    assert many == pytest.approx(few, rel=0.2, abs=0.5)


@every_method
def test_an_unknown_option_is_refused_with_the_nearest_real_one(name: str) -> None:
    real = max((f.name for f in dataclasses.fields(METHODS[name].Config)), key=len)
    with pytest.raises(UnknownNameError, match=f"did you mean '{real}'"):
        make_config(METHODS[name], {real + "s": 1})


# knobs that act only beside another one's value
WITH: Mapping[str, Mapping[str, Any]] = {
    "stats": {"pred_location": "target"},
    "rank_threshold": {},
    "eps_inside": {"eps": 0.1},
    "mean_encoding": {"symmetric": True},
    "warmup_teacher_temperature": {"warmup_teacher_temperature_epochs": 2},
    "tau_base": {"teacher": "ema"},
    "tau_final": {"teacher": "ema"},
    "centre_momentum": {"centring": True},
    "whitening_size": {"proj_output_dim": 4},
    "whitening_iters": {"proj_output_dim": 4, "whitening_size": 8},
}
NO_DIFFERENCE = {  # by promise, and on one process
    "solver",
    "mean_of_codes",
}


def alternatives(name: str, hint: Any, value: Any) -> list[Any]:
    if "epoch" in name or name == "freeze_last_layer":
        return [0 if value else 2]  # the footprint lasts two epochs
    if typing.get_origin(hint) is Literal:
        return [choice for choice in typing.get_args(hint) if choice != value]
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1 if value < 8 else value // 2]
    return [value * 0.9 if value else 0.3]


def footprint(name: str, **options: Any) -> str:
    """What four steps in two epochs leave behind, rounded: losses, gradients, shapes, groups, state."""
    m = method(name, **options)
    seen: list[Any] = [(g.name, len(g.params), g.fixed_lr) for g in m.param_groups()]
    for step in range(4):
        torch.manual_seed(step)
        result = training_step(m, needed(name, seed=step, more=1), StepInfo(step, 4, 2))
        seen += [None if p.grad is None else round(float(p.grad.norm()), 6) for p in m.parameters()]
        seen.append(round(result.loss.item(), 6))
    seen += [(key, tuple(v.shape), round(float(v.double().norm()), 6)) for key, v in m.state_dict().items()]
    with torch.no_grad():
        seen += [round(float(z.norm()), 6) for z in m.eval().embed(needed(name)[0]).values()]
    return repr(seen)


@every_method
def test_every_knob_changes_something(name: str) -> None:
    config = METHODS[name].Config
    hints, small = typing.get_type_hints(config), shrunk(name)
    for knob in dataclasses.fields(config):
        if knob.name in NO_DIFFERENCE:
            continue
        beside = {k: v for k, v in WITH.get(knob.name, {}).items() if k in hints}
        plain = footprint(name, **beside)
        for other in alternatives(knob.name, hints[knob.name], small.get(knob.name, knob.default)):
            assert footprint(name, **beside, **{knob.name: other}) != plain, (
                f"{knob.name}={other!r} changes nothing"
            )


@every_method
def test_every_knob_is_documented(name: str) -> None:
    config = METHODS[name].Config
    documented = "\n".join(cls.__doc__ or "" for cls in config.__mro__)
    undocumented = [f.name for f in dataclasses.fields(config) if f"  {f.name}: " not in documented]
    assert not undocumented


def papers_widths(name: str) -> dict[str, int]:
    """Widths of heads that follow the backbone's, as they are for a ResNet."""
    knobs = dataclasses.fields(METHODS[name].Config)
    return {knob.name: knob.metadata["paper"] for knob in knobs if knob.metadata.get("paper")}


@every_method
@pytest.mark.parametrize("feature_dim", [512, 2048])
def test_heads_have_the_papers_widths_on_resnets(name: str, feature_dim: int) -> None:
    fitted = make_config(METHODS[name], {}).fit(feature_dim)
    assert {width: getattr(fitted, width) for width in papers_widths(name)} == papers_widths(name)


@every_method
def test_heads_of_a_narrow_backbone_are_narrower_by_one_rule_but_for_widths_that_are_named(name: str) -> None:
    papers = papers_widths(name)
    fitted = make_config(METHODS[name], {}).fit(64)
    by_rule = {width: max(min(paper, 64), paper // 8) for width, paper in papers.items()}
    assert {width: getattr(fitted, width) for width in papers} == by_rule
    options = dict.fromkeys(papers, 100)
    named = make_config(METHODS[name], options).fit(64)
    assert {width: getattr(named, width) for width in papers} == options


@every_method
def test_the_help_of_a_width_that_follows_the_backbone_says_the_papers(name: str) -> None:
    for width, paper in papers_widths(name).items():
        docs = [cls.__doc__ or "" for cls in METHODS[name].Config.__mro__]
        said = next(doc.split(f" {width}: ")[1] for doc in docs if f" {width}: " in doc)
        assert f"0: {paper}, less for narrow backbones" in " ".join(said.split("_dim: ")[0].split())


@every_method
@pytest.mark.parametrize("image_size", [32, 224])
def test_the_defaults_make_a_valid_run(name: str, image_size: int) -> None:
    defaults = METHODS[name].defaults(image_size)
    config = TrainConfig(method=name, **{"views": "auto", **defaults})
    assert {key: getattr(config, key) for key in defaults} == dict(defaults)


@every_method
def test_the_docstring_names_the_paper_and_what_keeps_it_from_collapse(name: str) -> None:
    cls = METHODS[name]
    assert cls.paper in (cls.__doc__ or "")
    assert "keeps it from collapse" in (cls.__doc__ or "")
    assert cls.mechanism


class WaitsForTheDevice(TorchDispatchMode):
    """Notes every operation for whose outcome a processor would have to wait for its GPU."""

    WAITING = ("_local_scalar_dense", "nonzero", "equal", "masked_select", "unique_dim", "_unique2")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[str] = []

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = op.overloadpacket.__name__
        by_mask = name == "index" and any(i is not None and i.dtype == torch.bool for i in args[1])
        if name in self.WAITING or by_mask:
            self.seen.append(name)
        return op(*args, **(kwargs or {}))


@every_method
def test_a_training_step_never_waits_for_the_device(name: str) -> None:
    if name == "wmse":
        pytest.skip("its Cholesky factor tells whether the batch has full rank, which must be known")
    m, batch = method(name), needed(name)
    with WaitsForTheDevice() as waits:
        info = StepInfo(1, 4, 2)
        m.before_step(info)
        m.loss(batch).loss.backward()
        m.after_backward()
        m.after_step(info)
    assert waits.seen == []


def test_reading_a_loss_is_seen_as_waiting_for_the_device() -> None:
    with WaitsForTheDevice() as waits:
        float(torch.zeros(3).sum())
        torch.zeros(3)[torch.ones(3) > 0]
    assert waits.seen == ["_local_scalar_dense", "index"]
