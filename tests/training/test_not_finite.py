"""Numbers that go wrong: found at their step, named, kept out of weights and checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric.plugins import MixedPrecision
from torch import Tensor

from fullrank.networks.finite import first_not_finite, is_finite
from fullrank.training import guard as guarding
from training import not_finite as cases
from training.not_finite import BREAKS, INF, METHODS, NAN, STEPS, failure, loop_of, noise
from training.test_loop import records


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", BREAKS)
def test_it_is_found_at_its_step_and_never_reaches_the_weights(
    tmp_path: Path, kind: str, method: str
) -> None:
    loop = loop_of(tmp_path, method=method)
    before = cases.watch_steps(loop)
    BREAKS[kind](loop)
    assert failure(loop).startswith("step 2: the ")
    after, kept = cases.weights_of(loop), dict(loop.s.method.named_parameters())
    assert all(torch.equal(after[name], before[1][name]) for name in kept)
    assert all(torch.equal(after[name], value) for name, value in before[1].items() if "optimiser" in name)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", BREAKS)
def test_a_step_that_is_left_out_leaves_everything_as_it_was(tmp_path: Path, kind: str, method: str) -> None:
    loop = loop_of(tmp_path, method=method, on_nan="skip")
    before = cases.watch_steps(loop)
    BREAKS[kind](loop)
    assert failure(loop) == ""
    assert (loop.state.step, loop.state.skipped, loop.state.loss_count) == (STEPS, 1, STEPS - 1)
    assert cases.same(before[1], before[2])
    assert cases.finite(cases.weights_of(loop))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_one_pixel_is_named_with_its_image(tmp_path: Path, bad: float, precision: str) -> None:
    loop = loop_of(tmp_path, noise(bad), precision=precision)
    said = failure(loop)
    assert f"the input itself: image {cases.BAD_IMAGE} (noise {cases.BAD_IMAGE})" in said
    assert "pixels that are not finite" in said
    assert cases.finite(cases.parameters_of(loop))


def test_views_that_are_not_finite_are_told_from_images(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    make = loop.make_views

    def broken(images: Tensor | list[Tensor], index: int) -> list[Tensor]:
        views = make(images, index)
        views[1][3, 0, 2, 2] = NAN
        return views

    vars(loop)["make_views"] = broken
    said = failure(loop)
    assert "view 2 of image" in said
    assert "whose pixels are finite" in said


@pytest.mark.parametrize(("step", "cause"), [(1, "before the first step"), (2, "learning rate is too high")])
@pytest.mark.parametrize("method", METHODS)
def test_one_weight_is_named_with_its_module(tmp_path: Path, step: int, cause: str, method: str) -> None:
    loop = loop_of(tmp_path, method=method)
    parameter = dict(loop.s.method.named_parameters())["backbone.blocks.1.conv1.weight"]
    begin = loop.begin_step

    def broken() -> float:
        if loop.state.step + 1 == step:
            with torch.no_grad():
                parameter[0, 0, 0, 0] = NAN
        return begin()

    vars(loop)["begin_step"] = broken
    said = failure(loop)
    assert said.startswith(f"step {step}: ")
    assert "first in backbone.blocks.1.conv1 (Conv2d)" in said
    assert cause in said


def test_the_first_module_is_named_and_not_one_after_it(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    method: Any = loop.s.method
    method.projector[2].forward = lambda x: x.clamp(min=0) / 0.0
    assert "first in projector.2 (ReLU), on finite input" in failure(loop)


def test_an_operation_between_modules_is_not_blamed_on_the_next(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    method: Any = loop.s.method
    projector = method.projector.forward
    method.projector.forward = lambda h: projector(h / 0.0)
    assert "first between modules, in what projector.0 is given" in failure(loop)


def test_a_loss_that_divides_by_a_zero_norm_names_the_zero_vectors(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    method: Any = loop.s.method
    method.predictor.register_forward_hook(lambda module, given, z: z * 0.0)

    def divided(step: Any) -> Any:
        z = step.taps["predictor"]
        return step._replace(loss=(z / z.norm(dim=1, keepdim=True)).sum())

    cases.change_loss(loop, (1, 2, 3), divided)
    said = failure(loop)
    assert "predictor gives zero vectors" in said
    assert "normalisation of a zero vector" in said


def test_a_logarithm_of_zero_in_the_loss_is_called_one(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    cases.change_loss(loop, (2,), lambda step: step._replace(loss=step.loss + torch.zeros(()).log()))
    assert "step 2: the loss is -inf, first after the modules, in the loss itself" in failure(loop)


@pytest.mark.parametrize("method", METHODS)
def test_a_huge_rate_is_the_likely_cause_of_what_it_does(tmp_path: Path, method: str) -> None:
    loop = loop_of(tmp_path, method=method, lr=1e30, lr_scaling="none", optimizer="sgd", schedule="constant")
    said = failure(loop)
    assert "the learning rate is too high: lower --lr" in said
    assert cases.finite(cases.parameters_of(loop)) == ("after it" not in said)


def test_what_exceeds_mixed_precision_alone_is_told_so(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, precision="bf16")

    def narrow(z: Tensor) -> Tensor:
        mixed = torch.is_autocast_enabled("cpu")
        return (z * 1e6).to(torch.float16 if mixed else z.dtype).float() * 1e-6

    cases.change_features(loop, (2,), narrow)
    said = failure(loop)
    assert "step 2: " in said
    assert "it exceeds bf16: take --precision fp32" in said


def fp16(fabric: Any) -> None:
    """Give a Fabric on the CPU the precision, with the scaler, that one on a GPU has."""
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**16)
    fabric.strategy._precision = fabric._precision = MixedPrecision("16-mixed", "cpu", scaler)


def test_steps_that_the_scaler_of_fp16_leaves_out_are_counted(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, prepare=fp16)
    before = cases.watch_steps(loop)
    cases.bad_gradient(loop, (2,))
    assert failure(loop) == ""
    assert (loop.state.overflowed, loop.state.skipped) == (1, 0)
    weights = dict(loop.s.method.named_parameters())
    assert all(torch.equal(before[1][name], before[2][name]) for name in weights)
    assert [r.get("overflowed") for r in records(loop.run_dir.path)] == [None, 1, 1]


def test_fp16_that_no_scale_helps_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "MOST_OVERFLOWED", 2)
    loop = loop_of(tmp_path, prepare=fp16)
    cases.bad_gradient(loop, (1, 2, 3))
    assert "step 2: gradients exceeded fp16 in 2 steps in a row" in failure(loop)


@pytest.mark.parametrize("clip_grad_of", ["all", "tensor"])
def test_clipping_does_not_spread_a_gradient_before_it_is_named(tmp_path: Path, clip_grad_of: str) -> None:
    loop = loop_of(tmp_path, clip_grad=1.0, clip_grad_of=clip_grad_of)
    cases.bad_gradient(loop)
    assert "step 2: the gradient of backbone." in failure(loop)


@pytest.mark.parametrize("probe", ["own", "shared"])
def test_the_online_probe_is_guarded_too(tmp_path: Path, probe: str) -> None:
    loop = loop_of(tmp_path, noise(labelled=True), probe=probe)
    assert loop.probe is not None
    loop.probe.linear.weight.register_hook(lambda g: g * NAN)
    assert "step 1: the gradient of probe.weight is not finite" in failure(loop)
    assert is_finite(loop.probe.linear.weight)


def test_a_batch_within_an_accumulated_step_counts(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, batch_size=4, accumulate=2, on_nan="skip")
    before, seen = cases.watch_steps(loop), 0

    def second(step: Any) -> Any:
        nonlocal seen
        seen += 1
        return step._replace(loss=step.loss * NAN) if seen == 1 else step

    cases.change_loss(loop, (2,), second)
    assert failure(loop) == ""
    assert loop.state.skipped == 1
    assert cases.same(before[1], before[2])


# flags that arrive later, as on a GPU


def test_a_late_flag_names_the_step_that_it_is_of(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    loop.guard.waits = False
    cases.bad_gradient(loop)
    said = failure(loop)
    assert said.startswith("step 2: the gradient of backbone.")
    assert loop.state.step == 2  # the step after it was begun, and not applied
    assert (loop.run_dir.path / "trouble/step_00000002.pt").is_file()


def test_a_late_flag_is_waited_for_before_a_checkpoint(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, checkpoint_every=1)
    loop.guard.waits = False
    cases.bad_gradient(loop, (3,))
    assert failure(loop).startswith("step 3: the gradient of backbone.")
    kept = cases.kept_by(loop.run_dir)
    assert kept["progress"]["step"] == 2
    assert first_not_finite(kept["method"]) == ""


def test_a_bad_forward_pass_is_not_applied_even_where_flags_are_late(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    loop.guard.waits = False
    cases.bad_activation(loop)
    assert failure(loop).startswith("step 2: the loss is ")
    assert cases.finite(cases.parameters_of(loop))


def test_weights_that_are_not_finite_never_reach_a_checkpoint(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, checkpoint_every=1)
    step = loop.end_step

    def broken() -> None:
        step()
        if loop.state.step == 1:
            with torch.no_grad():
                loop.s.method.get_buffer("backbone.bn1.running_var").fill_(INF)

    vars(loop)["end_step"] = broken
    assert "step 2: after it backbone.bn1.running_var is not finite" in failure(loop)
    kept = cases.kept_by(loop.run_dir)
    assert kept["progress"]["step"] == 1


# what is kept of it


def test_the_batch_is_kept_and_opens_without_running_code(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, noise(NAN), on_nan="skip")
    assert failure(loop) == ""
    (file,) = (loop.run_dir.path / "trouble").iterdir()
    kept = torch.load(file, weights_only=True)
    assert file.name == f"step_{kept['step']:08d}.pt"
    assert (kept["epoch"], kept["seed"], kept["index"]) == (0, 0, kept["step"] - 1)
    assert cases.BAD_IMAGE in kept["indices"]
    assert f"noise {cases.BAD_IMAGE}" in kept["names"]
    assert [view.shape[0] for view in kept["views"]] == [cases.BATCH, cases.BATCH]
    row = kept["indices"].tolist().index(cases.BAD_IMAGE)
    assert not all(is_finite(view[row]) for view in kept["views"])
    assert "pixels that are not finite" in kept["found"]


def test_only_a_few_batches_are_kept(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, batch_size=4, on_nan="skip")
    cases.bad_loss(loop, range(1, 6))
    assert failure(loop) == ""
    assert loop.state.skipped == 5
    assert len(list((loop.run_dir.path / "trouble").iterdir())) == 3


def test_every_step_that_is_left_out_is_a_record(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, on_nan="skip")
    cases.bad_loss(loop)
    failure(loop)
    rows = records(loop.run_dir.path)
    assert [(r["event"], r["step"]) for r in rows] == [("step", 1), ("not_finite", 2), ("step", 3)]
    assert rows[1]["action"] == "skip"
    assert rows[1]["found"].startswith("step 2: the loss is nan")
    assert [r.get("skipped") for r in rows] == [None, None, 1]


def test_a_sound_run_has_no_word_of_it(tmp_path: Path) -> None:
    loop = loop_of(tmp_path)
    assert failure(loop) == ""
    assert not (loop.run_dir.path / "trouble").exists()
    assert all(r["event"] == "step" and "skipped" not in r for r in records(loop.run_dir.path))


def test_numbers_whose_sum_overflows_are_still_finite() -> None:
    assert is_finite(torch.full((4,), 3e38))
    assert first_not_finite({"a": torch.full((4,), 3e38), "b": torch.tensor([NAN])}) == "b"
