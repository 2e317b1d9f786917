"""SwAV and DINO: assignments, queue, centre, temperatures, what is frozen, and which views meet."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods import StepInfo
from fullrank.methods.dino import DINO, dino_loss, teacher_temperature
from fullrank.methods.swav import SwAV, swav_loss
from fullrank.networks.soft_targets import cross_entropy, move_centre, sharpen, sinkhorn
from methods.shrunk import method

WIDTHS = {"proj_hidden_dim": 8, "proj_output_dim": 6, "num_prototypes": 5}


def backbone() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 7))


def swav(**options: Any) -> SwAV:
    torch.manual_seed(0)
    queue = {"queue_size": 12, "epoch_queue_starts": 0, "freeze_prototypes_epochs": 0}
    return SwAV(backbone(), 7, SwAV.Config(**(WIDTHS | queue | options))).double()


def dino(**options: Any) -> DINO:
    torch.manual_seed(0)
    return DINO(backbone(), 7, DINO.Config(**(WIDTHS | options))).double()


def views(count: int = 2, small: int = 0, n: int = 10, seed: int = 1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    sides = [8] * count + [4] * small
    return [torch.randn(n, 3, side, side, generator=generator, dtype=torch.float64) for side in sides]


def scores(n: int = 12, k: int = 4, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(n, k, generator=generator, dtype=torch.float64) * 2 - 1


# Sinkhorn


def test_assignments_of_a_row_sum_to_one() -> None:
    torch.testing.assert_close(sinkhorn(scores()).sum(dim=1), torch.ones(12, dtype=torch.float64))


def test_enough_iterations_give_every_prototype_the_same_share() -> None:
    shares = sinkhorn(scores(), epsilon=0.5, iterations=200).sum(dim=0)
    torch.testing.assert_close(shares, torch.full((4,), 3.0, dtype=torch.float64))


def test_sinkhorn_is_its_textbook_iteration() -> None:
    q = torch.exp(scores() / 0.2).T
    q = q / q.sum()
    for _ in range(3):
        q = q / q.sum(dim=1, keepdim=True) / 4
        q = q / q.sum(dim=0, keepdim=True) / 12
    torch.testing.assert_close(sinkhorn(scores(), 0.2, 3), (q * 12).T)


def test_a_constant_added_to_all_scores_changes_no_assignment() -> None:
    torch.testing.assert_close(sinkhorn(scores() + 5.0), sinkhorn(scores()))


def test_rows_that_score_alike_are_assigned_evenly() -> None:
    same = scores(n=1).expand(12, 4)
    torch.testing.assert_close(sinkhorn(same), torch.full((12, 4), 0.25, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_sinkhorn_of_huge_scores_in_single_precision_stays_finite(scale: float) -> None:
    q = sinkhorn(scores().float() * scale, epsilon=0.01)
    assert q.isfinite().all()
    torch.testing.assert_close(q.sum(dim=1), torch.ones(12))


# SwAV


def test_swavs_loss_of_uniform_predictions_is_log_k() -> None:
    loss = swav_loss([torch.zeros(12, 4)] * 2, [sinkhorn(scores()).float()] * 2)
    assert loss.item() == pytest.approx(math.log(4))


def test_swavs_gradient_is_that_of_assignments_that_are_constants() -> None:
    method, batch = swav(queue_size=0), views()
    taps = [method.embed(view) for view in batch]
    constants = [sinkhorn(tap["codes"]) for tap in taps]
    by_hand = swav_loss([tap["codes"] for tap in taps], constants)
    weights = [p for p in method.parameters() if p.requires_grad]
    ours = torch.autograd.grad(method.loss(batch).loss, weights)
    torch.testing.assert_close(ours, torch.autograd.grad(by_hand, weights))


def test_the_queue_holds_the_newest_projections_first_each_of_length_one() -> None:
    method = swav()
    first, second = views(n=5, seed=1), views(n=5, seed=2)
    method.loss(first)
    method.loss(second)
    for view in range(2):
        expected = torch.cat(
            [F.normalize(method.embed(batch[view])["projector"], dim=1) for batch in (second, first)]
        )
        # batch statistics are per batch here, so the same forward pass gives the same rows
        torch.testing.assert_close(method.queue[view, :10], expected)
        assert (method.queue[view, 10:] == 0).all()


def test_a_batch_longer_than_the_queue_leaves_its_first_rows() -> None:
    method, batch = swav(queue_size=4), views()
    method.loss(batch)
    rows = F.normalize(method.embed(batch[0])["projector"], dim=1)
    torch.testing.assert_close(method.queue[0], rows[:4].detach())


def test_assignments_are_balanced_together_with_the_queue() -> None:
    method, batch = swav(), views()
    method.loss(views(seed=3))
    codes = {v: method.embed(view)["codes"] for v, view in enumerate(batch)}
    found = method.assign(codes)
    for view in range(2):
        whole = torch.cat([codes[view], method.prototypes(method.queue[view])])
        torch.testing.assert_close(found[view], sinkhorn(whole)[:10])


def test_the_queue_fills_but_is_not_used_before_its_epoch() -> None:
    method, batch = swav(epoch_queue_starts=1), views()
    method.before_step(StepInfo(0, 4, 2))
    method.loss(batch)
    assert (method.queue != 0).any()
    codes = {0: method.embed(batch[0])["codes"]}
    torch.testing.assert_close(method.assign(codes)[0], sinkhorn(codes[0]))
    method.before_step(StepInfo(2, 4, 2))
    assert not torch.allclose(method.assign(codes)[0], sinkhorn(codes[0]))


def test_the_queue_does_not_move_in_evaluation_mode() -> None:
    method = swav().eval()
    method.loss(views())
    assert (method.queue == 0).all()


def test_sinkhorn_over_views_balances_all_of_them_at_once() -> None:
    method, batch = swav(sinkhorn_over="views", queue_size=0), views()
    codes = {v: method.embed(view)["codes"] for v, view in enumerate(batch)}
    together = torch.cat([*method.assign(codes).values()])
    torch.testing.assert_close(together, sinkhorn(torch.cat([*codes.values()])))


def test_swav_with_small_crops_is_the_mean_over_pairs_of_an_assigned_and_another_view() -> None:
    method, batch = swav(queue_size=0), views(2, small=2)
    codes = [method.embed(view)["codes"] for view in batch]
    q = [sinkhorn(code) for code in codes[:2]]
    pairs = [cross_entropy(codes[a], q[b], 0.1) for b in range(2) for a in range(4) if a != b]
    assert len(pairs) == 6
    torch.testing.assert_close(method.loss(batch).loss, sum(pairs) / 6)


def test_scores_stay_in_single_precision_inside_autocast() -> None:
    method, batch = swav().float(), [view.float() for view in views()]
    with torch.autocast("cpu", torch.bfloat16):
        assert method.loss(batch).taps["codes"].dtype == torch.float32


@pytest.mark.parametrize("epoch", [0, 1])
def test_frozen_prototypes_neither_step_nor_decay(epoch: int) -> None:
    method = swav(freeze_prototypes_epochs=1)
    before = method.prototypes.v.detach().clone()
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1, weight_decay=0.1)
    method.before_step(StepInfo(2 * epoch, 4, 2))
    method.loss(views()).loss.backward()
    method.after_backward()
    optimizer.step()
    assert torch.equal(method.prototypes.v, before) == (epoch == 0)


@pytest.mark.parametrize(
    ("option", "value"), [("sk_epsilon", 0.0), ("sk_iters", 0), ("queue_size", -1), ("temperature", 0.0)]
)
def test_knobs_of_swav_out_of_range_are_refused(option: str, value: float) -> None:
    with pytest.raises(UsageError, match=option.replace("_", "-")):
        swav(**{option: value})


# DINO


def test_dinos_loss_of_equal_uniform_distributions_is_log_k() -> None:
    logits = [torch.zeros(10, 5)] * 2
    assert dino_loss(logits, logits, torch.zeros(1, 5)).item() == pytest.approx(math.log(5))


def test_a_low_temperature_sharpens_and_a_high_one_flattens() -> None:
    p = [sharpen(scores(), temperature) for temperature in (1e-4, 1e4)]
    torch.testing.assert_close(p[0].max(dim=1).values, torch.ones(12, dtype=torch.float64))
    torch.testing.assert_close(p[1], torch.full((12, 4), 0.25, dtype=torch.float64), atol=1e-3, rtol=0)


def test_the_centre_over_constant_rows_approaches_them_geometrically() -> None:
    centre = torch.zeros(1, 3, dtype=torch.float64)
    rows = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64).expand(4, 3)
    for _ in range(7):
        move_centre(centre, [rows, rows], momentum=0.9)
    torch.testing.assert_close(centre, (1 - 0.9**7) * rows[:1])


def test_a_step_uses_the_centre_of_before_and_moves_it_after() -> None:
    method, batch = dino(), views()
    with torch.no_grad():
        z = [method.target["prototypes"](method.encode_target(view)) for view in batch]
    p = [method.embed(view)["codes"] for view in batch]
    by_hand = dino_loss(p, z, torch.zeros(1, 5))
    torch.testing.assert_close(method.loss(batch).loss, by_hand)
    torch.testing.assert_close(method.centre, 0.1 * torch.cat(z).mean(dim=0, keepdim=True))


def test_the_centre_does_not_move_in_evaluation_mode() -> None:
    method = dino().eval()
    method.loss(views())
    assert (method.centre == 0).all()


def test_the_teachers_temperature_rises_in_equal_steps_and_then_stays() -> None:
    found = [teacher_temperature(epoch, 0.07, 0.04, 4) for epoch in range(6)]
    assert found == pytest.approx([0.04, 0.05, 0.06, 0.07, 0.07, 0.07])


def test_without_a_warm_up_the_teachers_temperature_is_the_final_one() -> None:
    assert teacher_temperature(0, 0.07, 0.04, 0) == 0.07


def test_the_temperature_follows_the_epoch_of_the_run() -> None:
    method = dino(warmup_teacher_temperature_epochs=2)
    found = []
    for step in range(4):
        method.before_step(StepInfo(step, 4, 2))
        found.append(method.temperature)
    assert found == pytest.approx([0.04, 0.04, 0.07, 0.07])


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_frozen_last_layer_neither_steps_nor_decays(epoch: int) -> None:
    method = dino(freeze_last_layer=1, norm_last_layer=False)
    before = [p.detach().clone() for p in method.prototypes.parameters()]
    optimizer = torch.optim.AdamW(method.parameters(), lr=0.1, weight_decay=0.1)
    method.before_step(StepInfo(2 * epoch, 4, 2))
    method.loss(views()).loss.backward()
    method.after_backward()
    optimizer.step()
    for parameter, start in zip(method.prototypes.parameters(), before, strict=True):
        assert torch.equal(parameter, start) == (epoch == 0)


@pytest.mark.parametrize("fixed", [True, False])
def test_the_prototypes_lengths_are_trained_only_if_asked_for(fixed: bool) -> None:
    assert dino(norm_last_layer=fixed).prototypes.g.requires_grad != fixed


def test_dino_with_small_crops_is_the_mean_over_pairs_of_a_teachers_and_another_view() -> None:
    method, batch = dino(), views(2, small=2)
    with torch.no_grad():
        z = [method.target["prototypes"](method.encode_target(view)) for view in batch[:2]]
    p = [method.embed(view)["codes"] for view in batch]
    pairs = [cross_entropy(p[a], sharpen(z[b], 0.07), 0.1) for b in range(2) for a in range(4) if a != b]
    torch.testing.assert_close(method.loss(batch).loss, sum(pairs) / 6)


def test_small_crops_never_reach_dinos_teacher() -> None:
    method, seen = dino(), []
    method.target["backbone"].register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-1]))
    method.loss(views(2, small=3))
    assert seen == [8, 8]


def test_dinos_target_tap_is_the_teachers_bottleneck_of_length_one() -> None:
    tap = dino().loss(views()).taps["target"]
    assert tap.shape == (10, 6)
    torch.testing.assert_close(tap.norm(dim=1), torch.ones(10, dtype=torch.float64))


def test_dinos_head_starts_small_and_without_biases() -> None:
    head = dino(proj_hidden_dim=256).projector
    layers = [layer for layer in head if isinstance(layer, nn.Linear)]
    assert len(layers) == 3
    assert all((layer.bias == 0).all() for layer in layers)
    assert layers[1].weight.std().item() == pytest.approx(0.02, rel=0.02)


@pytest.mark.parametrize(("name", "shown"), [("dino", True), ("swav", True), ("gedi", True), ("byol", False)])
def test_prototypes_are_those_that_codes_are_scored_against(name: str, shown: bool) -> None:
    m = method(name).eval()
    rows = m.prototype_rows()
    assert (rows is not None) == shown
    if rows is not None:
        scores = m.embed(torch.randn(3, 3, 4, 4))["codes"]
        assert len(rows) == scores.shape[1]
