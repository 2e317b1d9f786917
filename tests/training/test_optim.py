"""LARS against steps worked out by hand, parameter groups, and the rate of every step."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fullrank.errors import UsageError
from fullrank.methods import ParamGroup
from fullrank.training.config import TrainConfig
from fullrank.training.optim import LARS, base_lr, build_optimizer, clip_each, set_learning_rates
from fullrank.training.schedules import warmup_cosine


def parameter(values: Any, gradient: Any) -> nn.Parameter:
    p = nn.Parameter(torch.tensor(values, dtype=torch.float64))
    p.grad = torch.tensor(gradient, dtype=torch.float64)
    return p


def assert_values(p: Tensor, values: Any) -> None:
    torch.testing.assert_close(p.detach(), torch.tensor(values, dtype=torch.float64), rtol=1e-6, atol=1e-9)


ONE_D = ([3.0, 4.0], [0.6, 0.8])
PLAIN = ([[3.0, 4.0]], [[0.6, 0.8]])  # norms 5 and 1
MOCO = 0.1 * 5 / 1.25**0.5  # g orthogonal to p: |g + 0.1 p| = sqrt(1.25), where the other variant has 1.5


@pytest.mark.parametrize(
    ("tensors", "settings", "moved"),
    [
        # r = 0.1 * 5 / (1 + 0.1 * 5) = 1/3; g + 0.1 p = (0.9, 1.2)
        (PLAIN, {}, [0.15, 0.2]),
        (([[3.0, 4.0]], [[-0.8, 0.6]]), {"variant": "moco"}, [0.5 * MOCO * -0.5, 0.5 * MOCO]),
        (PLAIN, {"lr": 1.0, "weight_decay": 0.0, "clip": True}, [0.5 * 0.6, 0.5 * 0.8]),
        (PLAIN, {"lr": 0.2, "weight_decay": 0.0, "clip": True}, [0.2 * 0.6, 0.2 * 0.8]),
        (ONE_D, {"exclude_1d": True}, [0.3, 0.4]),
        (ONE_D, {"exclude_1d": False}, [0.15, 0.2]),
        # r = 0.1 * 5 / (1 + 0.1 * 5) = 1/3; g + 0.1 p = 1.5
        ((5.0, 1.0), {"exclude_1d": True}, 0.25),
        ((5.0, 1.0), {"variant": "moco"}, 0.5),
        (([[0.0, 0.0]], [[0.6, 0.8]]), {}, [0.3, 0.4]),
        (([[3.0, 4.0]], [[0.0, 0.0]]), {}, [0.0, 0.0]),
    ],
    ids=[
        "solo", "moco", "clipped, r is smaller", "clipped, lr is smaller", "excluded vector", "vector",
        "a scalar is no vector", "moco excludes scalars too",
        "zeros move by the plain gradient", "a zero gradient moves nothing, not even by decay",
    ],
)  # fmt: skip
def test_lars_takes_the_step_worked_out_by_hand(
    tensors: tuple[Any, Any], settings: dict[str, Any], moved: list[float] | float
) -> None:
    p = parameter(*tensors)
    before = p.detach().clone()
    LARS([p], **{"lr": 0.5, "weight_decay": 0.1, "eta": 0.1, **settings}).step()
    assert_values(p, (before - torch.tensor(moved, dtype=torch.float64)).tolist())


def test_momentum_adds_the_last_steps_up() -> None:
    p = parameter(*PLAIN)
    optimizer = LARS([p], lr=0.5, momentum=0.9, eta=0.1)
    optimizer.step()  # r = 0.5; buffer (0.3, 0.4); p = (2.85, 3.8), whose norm is 4.75
    optimizer.step()  # r = 0.475; buffer 0.9 * (0.3, 0.4) + 0.475 * (0.6, 0.8)
    assert_values(p, [[2.85 - 0.5 * (0.27 + 0.285), 3.8 - 0.5 * (0.36 + 0.38)]])


def test_a_parameter_without_gradient_stays_and_gets_no_state() -> None:
    p, still = parameter([[3.0, 4.0]], [[0.6, 0.8]]), nn.Parameter(torch.ones(2, 2))
    optimizer = LARS([still, p], lr=0.5, weight_decay=0.1)
    optimizer.step()
    assert torch.equal(still.detach(), torch.ones(2, 2))
    assert still not in optimizer.state


@pytest.mark.parametrize("name", ["sgd", "lars", "adam", "adamw"])
def test_a_restored_optimiser_takes_the_same_next_step(name: str) -> None:
    config = TrainConfig(optimizer=name, lr=0.1, weight_decay=0.01)  # type: ignore[arg-type]
    first = parameter([[3.0, 4.0]], [[0.6, 0.8]])
    optimizer = build_optimizer([ParamGroup("all", [first])], config)
    optimizer.step()
    second = copy.deepcopy(first)
    second.grad = first.grad = torch.tensor([[-0.2, 0.9]], dtype=torch.float64)
    restored = build_optimizer([ParamGroup("all", [second])], config)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    optimizer.step()
    restored.step()
    assert torch.equal(first, second)


def groups() -> list[ParamGroup]:
    one, other = nn.Linear(3, 2), nn.Linear(2, 2)
    return [
        ParamGroup("backbone", list(one.parameters())),
        ParamGroup("predictor", list(other.parameters()), fixed_lr=True),
    ]


def test_vectors_are_spared_the_decay_where_that_is_asked_for() -> None:
    optimizer = build_optimizer(groups(), TrainConfig(weight_decay=0.1, exclude_1d_decay=True))
    decay = {(g["name"], p.ndim): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    flat, deep = 1, 2
    assert decay == {
        ("backbone", flat): 0.0, ("backbone", deep): 0.1, ("predictor", flat): 0.0, ("predictor", deep): 0.1,
    }  # fmt: skip
    optimizer = build_optimizer(groups(), TrainConfig(weight_decay=0.1))  # all are decayed otherwise
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.1, 0.1]


def test_the_rate_scales_with_the_images_of_a_step() -> None:
    assert base_lr(TrainConfig(lr=0.1, batch_size=64, accumulate=8)) == pytest.approx(0.2)
    assert base_lr(TrainConfig(lr=0.1, batch_size=64, lr_scaling="none")) == pytest.approx(0.1)


def rates(steps_per_epoch: int = 10, **changes: Any) -> tuple[list[float], list[float]]:
    """The scheduled rate of every step, and that of the group whose rate is fixed."""
    settings: dict[str, Any] = {"epochs": 4, "lr": 0.5, "lr_scaling": "none"} | changes
    config = TrainConfig(**settings)
    optimizer = build_optimizer(groups(), config)
    scheduled, fixed = [], []
    for step in range(config.epochs * steps_per_epoch):
        returned = set_learning_rates(optimizer, config, step, steps_per_epoch)
        scheduled.append(optimizer.param_groups[0]["lr"])
        fixed.append(optimizer.param_groups[1]["lr"])
        assert returned == scheduled[-1]
    return scheduled, fixed


def test_a_fixed_group_keeps_the_base_rate_while_the_others_fall() -> None:
    scheduled, fixed = rates()
    assert scheduled[0] == 0.5
    assert scheduled == sorted(scheduled, reverse=True)
    assert 0 < scheduled[-1] < 0.01
    assert fixed == [0.5] * 40
    assert set(rates(schedule="constant")[0]) == {0.5}


def test_a_warm_up_takes_every_group_at_its_start_and_rises_by_equal_steps_to_the_base_rate() -> None:
    scheduled, fixed = rates(warmup_epochs=1, warmup_lr=0.05)
    assert scheduled[0] == fixed[0] == 0.05
    assert fixed[1:] == [0.5] * 39
    assert scheduled[:11] == pytest.approx([0.05 * k for k in range(1, 11)] + [0.5])
    assert scheduled[11] < 0.5


def test_the_epoch_cosine_changes_between_epochs_only() -> None:
    scheduled, fixed = rates(schedule="epoch-cosine")
    assert [len(set(scheduled[e * 10 : (e + 1) * 10])) for e in range(4)] == [1] * 4
    assert scheduled[::10] == pytest.approx([0.5, 0.5 * 0.8535534, 0.25, 0.5 * 0.1464466])
    assert fixed == [0.5] * 40


def test_the_final_rate_is_scaled_like_the_base_rate() -> None:
    scheduled, _ = rates(lr_scaling="linear", batch_size=512, final_lr=0.1, steps_per_epoch=1000, epochs=1)
    assert scheduled[0] == pytest.approx(1.0)
    assert scheduled[-1] == pytest.approx(0.2, abs=1e-5)


def test_a_warm_up_of_one_step_is_at_its_start_rate() -> None:
    scheduled, fixed = rates(warmup_epochs=0.1, warmup_lr=0.05)
    assert scheduled[:2] == [0.05, 0.5]
    assert fixed[:2] == [0.05, 0.5]


def test_the_epoch_cosine_warms_the_fixed_rate_up_like_the_rest() -> None:
    scheduled, fixed = rates(schedule="epoch-cosine", warmup_epochs=2, steps_per_epoch=1)
    assert scheduled[:2] == fixed[:2] == pytest.approx([0.5 / 3, 1.0 / 3])
    assert fixed[2:] == [0.5] * 2


def test_the_epoch_warm_up_cosine_is_the_cosine_with_epochs_for_steps() -> None:
    scheduled, fixed = rates(schedule="epoch-warmup-cosine", warmup_epochs=2, warmup_lr=0.05)
    by_epoch = [warmup_cosine(e, 4, 0.5, warmup=2, start=0.05) for e in range(4)]
    assert scheduled == [rate for rate in by_epoch for _ in range(10)]
    assert fixed == [0.05] * 10 + [0.5] * 30


def test_the_step_schedule_falls_to_a_tenth_at_each_milestone() -> None:
    scheduled, _ = rates(schedule="step", milestones=(1, 3))
    assert scheduled == pytest.approx([0.5] * 10 + [0.05] * 20 + [0.005] * 10)


def test_the_step_schedule_falls_at_three_and_four_fifths_of_the_run_where_no_milestone_is_given() -> None:
    scheduled, _ = rates(schedule="step", epochs=5)
    assert scheduled == pytest.approx([0.5] * 30 + [0.05] * 10 + [0.005] * 10)


@pytest.mark.parametrize("name", ["sgd", "lars"])
def test_nesterov_steps_along_the_gradient_and_the_momentum_to_come(name: str) -> None:
    p = parameter(*ONE_D)
    config = TrainConfig(
        optimizer=name,  # type: ignore[arg-type]
        nesterov=True, lr=0.5, lr_scaling="none", weight_decay=0.0, lars_exclude_1d=True,
    )  # fmt: skip
    build_optimizer([ParamGroup("all", [p])], config).step()
    assert_values(p, [3.0 - 0.5 * 1.9 * 0.6, 4.0 - 0.5 * 1.9 * 0.8])  # g + 0.9 g, the buffer being g


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"nesterov": True, "optimizer": "adam"}, "--nesterov needs --optimizer sgd or lars, and a momentum"),
        ({"nesterov": True, "momentum": 0.0}, "--nesterov needs --optimizer sgd or lars, and a momentum"),
        ({"milestones": (30,)}, "--milestones belong to --schedule step, not cosine"),
        ({"milestones": (0,), "schedule": "step"}, "--milestones are epochs from 1, not 0"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(changes: dict[str, Any], line: str) -> None:
    with pytest.raises(UsageError, match=line):
        TrainConfig(**changes)


def test_clipping_each_gradient_scales_it_by_its_own_norm_alone() -> None:
    long, short = parameter(*PLAIN), parameter([1.0], [0.1])
    clip_each([long, short, nn.Parameter(torch.ones(1))], 0.5)
    assert long.grad is not None
    assert short.grad is not None
    assert_values(long.grad, [[0.5 / (1 + 1e-6) * 0.6, 0.5 / (1 + 1e-6) * 0.8]])
    assert_values(short.grad, [0.1])
