"""Teachers that are trained, frozen, copied or averaged, and the distillation of a random one."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods import StepInfo
from fullrank.methods.distill import Distill, distill_loss
from fullrank.methods.teacher_student import TeacherStudent, teacher_student_loss
from fullrank.networks.backbones import CifarResNet, build_backbone


def plain_backbone() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 7), nn.Tanh())


def teacher_student(backbone: nn.Module | None = None, dim: int = 7, **options: Any) -> TeacherStudent:
    torch.manual_seed(0)
    widths = {"proj_hidden_dim": 16, "proj_output_dim": 6}
    config = TeacherStudent.Config(**(widths | options))
    return TeacherStudent(backbone or plain_backbone(), dim, config).double()


def views(*sides: int, n: int = 10, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, 3, s, s, generator=generator, dtype=torch.float64) for s in sides or (8, 8)]


def run(method: nn.Module, steps: int, per_epoch: int = 2, lr: float = 0.01, total: int = 0) -> list[float]:
    """Optimiser steps on random batches; the losses."""
    optimizer = torch.optim.AdamW([p for p in method.parameters() if p.requires_grad], lr=lr)
    losses = []
    for step in range(steps):
        method.before_step(StepInfo(step, total or steps, per_epoch))  # type: ignore[operator]
        loss = method(views(seed=step)).loss
        optimizer.zero_grad()
        loss.backward()
        method.after_backward()  # type: ignore[operator]
        optimizer.step()
        method.after_step(method.info)  # type: ignore[operator]
        losses.append(loss.item())
    return losses


def student_of(method: TeacherStudent) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": value
        for part in ("backbone", "projector")
        for name, value in getattr(method, part).state_dict().items()
    }


def same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> bool:
    assert ours.keys() == theirs.keys()
    return all(torch.equal(value, theirs[name]) for name, value in ours.items())


# the loss


def test_the_loss_of_a_student_that_agrees_is_the_teachers_entropy() -> None:
    logits = torch.randn(20, 6, generator=torch.Generator().manual_seed(0))
    p = torch.softmax(logits, dim=1)
    entropy = -(p * p.log()).sum(dim=1).mean()
    torch.testing.assert_close(teacher_student_loss(logits, logits), entropy)


def test_the_loss_is_log_k_where_both_are_uniform_and_zero_where_both_say_one_thing() -> None:
    assert teacher_student_loss(torch.zeros(4, 6), torch.zeros(4, 6)).item() == pytest.approx(math.log(6))
    sure = 1e3 * torch.eye(6)[:4]
    assert teacher_student_loss(sure, sure).item() == 0.0


def test_gradient_flows_into_both_arguments_of_the_loss() -> None:
    s, t = (torch.randn(5, 6, requires_grad=True) for _ in range(2))
    teacher_student_loss(s, t).backward()
    assert s.grad is not None and s.grad.norm() > 0
    assert t.grad is not None and t.grad.norm() > 0


# who the teacher is


def test_a_trained_teacher_gets_gradient_and_its_own_group() -> None:
    method = teacher_student(teacher="trained")
    method.loss(views()).loss.backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in method.target.parameters())
    assert [group.name for group in method.param_groups()] == ["backbone", "projector", "target"]


@pytest.mark.parametrize("teacher", ["frozen", "copied", "ema"])
def test_any_other_teacher_gets_no_gradient_and_is_in_no_group(teacher: str) -> None:
    method = teacher_student(teacher=teacher)
    method.loss(views()).loss.backward()
    assert all(p.grad is None for p in method.target.parameters())
    grouped = {id(p) for group in method.param_groups() for p in group.params}
    assert not grouped & {id(p) for p in method.target.parameters()}


def test_a_frozen_teacher_is_bitwise_constant_in_weights_and_outputs() -> None:
    method = teacher_student(teacher="frozen")
    before = {name: value.clone() for name, value in method.target.state_dict().items()}
    output = method.embed(views()[0])["target"]
    run(method, 4)
    assert same(method.target.state_dict(), before)
    assert torch.equal(method.embed(views()[0])["target"], output)


@pytest.mark.parametrize(
    ("unit", "every", "copied_after"),
    [("steps", 2, {1, 3, 5}), ("steps", 1, set(range(6))), ("epochs", 1, {2, 5})],
)
def test_a_copied_teacher_equals_the_student_after_a_copy_and_only_then(
    unit: str, every: int, copied_after: set[int]
) -> None:
    method = teacher_student(teacher="copied", copy_unit=unit, copy_every=every)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1)
    found = set()
    for step in range(6):
        method.before_step(StepInfo(step, 6, 3))
        method.loss(views(seed=step)).loss.backward()
        optimizer.step()
        method.after_step(method.info)
        if same(method.target.state_dict(), student_of(method)):
            found.add(step)
    assert found == copied_after


def test_a_copy_takes_the_running_statistics_along() -> None:
    backbone = nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.BatchNorm1d(7))
    method = teacher_student(backbone, teacher="copied", copy_unit="steps")
    run(method, 2)
    assert same(method.target.state_dict(), student_of(method))


def test_an_averaged_teacher_moves_by_one_minus_tau_of_the_way() -> None:
    method = teacher_student(teacher="ema", tau_base=0.9, tau_final=0.9)
    before = {name: value.clone() for name, value in method.target.state_dict().items()}
    method.after_step(method.info)
    for name, student in student_of(method).items():
        torch.testing.assert_close(method.target.state_dict()[name], 0.9 * before[name] + 0.1 * student)


def test_a_teacher_of_its_own_starts_elsewhere_and_a_copied_start_is_equal() -> None:
    method = teacher_student(independent_init=True)
    assert not same(method.target.state_dict(), student_of(method))
    method = teacher_student(independent_init=False)
    assert same(method.target.state_dict(), student_of(method))


def test_a_teacher_in_evaluation_mode_stays_there_and_drops_nothing() -> None:
    method = teacher_student(teacher_eval=True, dropout=0.5).train()
    assert method.projector.training
    assert not method.target.training
    batch = views()
    method.train()
    torch.testing.assert_close(
        method.embed(batch[1])["target"], method.embed(batch[1])["target"], rtol=0, atol=0
    )
    assert not torch.equal(method.embed(batch[0])["projector"], method.embed(batch[0])["projector"])


def test_trained_together_they_collapse_to_zero_loss_and_with_a_frozen_teacher_they_do_not() -> None:
    together, frozen = (
        run(teacher_student(teacher=t, proj_hidden_dim=64), 150, lr=0.01)[-1] for t in ("trained", "frozen")
    )
    assert together < 0.05
    assert frozen > 1.0


# who sees what


def seen_by(method: TeacherStudent, batch: list[Tensor]) -> tuple[list[int], list[int]]:
    """The indices of the views that pass student and teacher."""
    which = {id(view): index for index, view in enumerate(batch)}
    student: list[int] = []
    teacher: list[int] = []
    for network, seen in ((method.backbone, student), (method.target["backbone"], teacher)):
        network.register_forward_pre_hook(lambda _, x, seen=seen: seen.append(which[id(x[0])]))
    method.loss(batch)
    return student, teacher


def test_one_way_the_teacher_sees_the_last_view_and_the_student_the_others() -> None:
    assert seen_by(teacher_student(), views()) == ([0], [1])
    assert seen_by(teacher_student(), views(8, 8, 8)) == ([0, 1], [2])


def test_one_way_small_crops_are_the_students() -> None:
    assert seen_by(teacher_student(), views(8, 8, 4, 4)) == ([0, 2, 3], [1])


def test_both_ways_every_view_passes_both() -> None:
    assert seen_by(teacher_student(symmetric=True), views()) == ([0, 1], [0, 1])


def test_roles_of_views_decide_where_they_have_any() -> None:
    method = teacher_student()
    method.roles = ("target", "source")
    assert seen_by(method, views()) == ([1], [0])


def test_both_ways_is_the_mean_of_one_way_and_the_other() -> None:
    batch = views()
    there, back = teacher_student().loss(batch).loss, teacher_student().loss(batch[::-1]).loss
    torch.testing.assert_close(teacher_student(symmetric=True).loss(batch).loss, (there + back) / 2)


# temperatures and centre


def test_temperatures_divide_each_networks_logits() -> None:
    s, t = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0)).unbind()
    ours = teacher_student_loss(s, t, student_temperature=0.5, teacher_temperature=0.1)
    torch.testing.assert_close(ours, teacher_student_loss(2 * s, 10 * t))


@pytest.mark.parametrize("centring", [True, False])
def test_the_centre_moves_towards_the_teachers_mean_only_if_asked_for(centring: bool) -> None:
    method, batch = teacher_student(centring=centring), views()
    mean = method.embed(batch[1])["target"].mean(dim=0, keepdim=True)
    method.loss(batch)
    torch.testing.assert_close(method.centre, 0.1 * mean if centring else torch.zeros_like(mean))


# tokens


def test_the_loss_is_the_mean_over_patch_tokens_without_the_class_token() -> None:
    backbone = build_backbone("vit-tutorial", 8)
    method: Any = teacher_student(backbone.network, 256).eval()
    batch = views(n=2)
    with torch.no_grad():
        s = method.projector(method.backbone.forward_features(batch[0])[:, 1:])
        t = method.target["projector"](method.target["backbone"].forward_features(batch[1])[:, 1:])
    assert s.shape == (2, 4, 6)
    by_hand = -(torch.softmax(t, 2) * torch.log_softmax(s, 2)).sum() / 8
    step = method.loss(batch)
    torch.testing.assert_close(step.loss, by_hand)
    torch.testing.assert_close(step.taps["projector"], s.mean(dim=1))


def test_views_with_different_numbers_of_tokens_are_refused() -> None:
    method = teacher_student(build_backbone("vit-tutorial", 8).network, 256)
    with pytest.raises(UsageError, match="token by token"):
        method.loss(views(12, 8, 12, n=2))


def test_gradient_reaches_every_parameter_of_the_tutorials_transformer() -> None:
    method = teacher_student(build_backbone("vit-tutorial", 8).network, 256)
    method.loss(views(n=2)).loss.backward()
    assert all(p.grad is not None and p.grad.norm() > 0 for p in method.backbone.parameters())


# distillation


def control(backbone: nn.Module | None = None, dim: int = 7, **options: Any) -> Distill:
    torch.manual_seed(0)
    return Distill(backbone or plain_backbone(), dim, Distill.Config(**options)).double()


def test_the_random_teacher_and_its_running_statistics_never_change() -> None:
    method = control(CifarResNet(8, 4), 16)
    before = {name: value.clone() for name, value in method.target.state_dict().items()}
    run(method, 3)
    assert same(method.target.state_dict(), before)
    assert not method.train().target.training


def test_the_random_teacher_is_not_the_student() -> None:
    method, batch = control(), views()
    assert not torch.allclose(method.target["backbone"](batch[0]), method.backbone(batch[0]))


def test_the_target_statistics_approach_those_of_the_features_geometrically() -> None:
    method, batch = control(), views()
    rows = torch.cat([method.target["backbone"](view) for view in batch])
    for _ in range(5):
        method.loss(batch)
    decay = 0.95**5
    torch.testing.assert_close(method.target_mean, (1 - decay) * rows.mean(dim=0))
    torch.testing.assert_close(method.target_std, decay + (1 - decay) * rows.std(dim=0, correction=0))


def test_the_target_statistics_do_not_move_in_evaluation_mode() -> None:
    method = control().eval()
    method.loss(views())
    assert (method.target_mean == 0).all()


def test_an_output_of_zeros_has_a_loss_of_one_against_standardised_targets() -> None:
    z = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    z = (z - z.mean(dim=0)) / z.std(dim=0, correction=0)
    assert distill_loss(torch.zeros_like(z), z).item() == pytest.approx(1.0)


@pytest.mark.parametrize("distance", ["mse", "cosine"])
def test_every_view_meets_the_teachers_features_of_that_view(distance: str) -> None:
    method, batch = control(distance=distance, standardise=False), views()
    p = [method.projector(method.backbone(view)) for view in batch]
    z = [method.target["backbone"](view) for view in batch]
    pairs = list(zip(p, z, strict=True))
    by_hand = [
        ((a - b) ** 2).mean() if distance == "mse" else -F.cosine_similarity(a, b).mean() for a, b in pairs
    ]
    torch.testing.assert_close(method.loss(batch).loss, sum(by_hand) / 2)


def test_a_feature_that_is_constant_does_not_blow_up_the_target() -> None:
    method = control(nn.Sequential(nn.Flatten(), nn.Linear(192, 7), nn.Threshold(1e6, 0.5)))
    losses = run(method, 200)
    assert all(math.isfinite(loss) for loss in losses)
    assert method.loss(views()).taps["target"].abs().max() < 1.0


def test_the_student_learns_what_the_random_teacher_says() -> None:
    losses = run(control(), 300, lr=0.01)
    assert losses[-1] < 0.5 * losses[0]
