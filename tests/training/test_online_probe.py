"""The classifier beside the method: it learns, it is never felt, and images without labels do no harm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from safetensors import safe_open
from torch.nn import functional as F

from fullrank.training.online_probe import OnlineProbe, probe_loss
from fullrank.training.optim import set_learning_rates
from training.test_loop import config, records, run


def probe(labels: torch.Tensor, **changes: Any) -> tuple[OnlineProbe, torch.optim.Optimizer]:
    method = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.zeros(1))], "base_lr": 1.0}], lr=1.0)
    chosen = config(batch_size=256, schedule="constant", warmup_epochs=0, **changes)
    return OnlineProbe(8, 3, labels, chosen, Fabric(accelerator="cpu", devices=1), method), method


@pytest.mark.parametrize("kind", ["own", "shared"])
def test_the_method_trains_to_the_last_bit_as_without_a_probe(tmp_path: Path, kind: str) -> None:
    run(tmp_path / "with", probe=kind)
    run(tmp_path / "without", probe="off")
    ours, theirs = (torch.load(tmp_path / k / "checkpoints/last.pt")["method"] for k in ("with", "without"))
    assert records(tmp_path / "without")[-2]["probe"] is None
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_its_accuracy_is_logged_with_every_panel(tmp_path: Path) -> None:
    run(tmp_path / "run", knn_every=0)
    epochs = [record for record in records(tmp_path / "run") if record["event"] == "epoch"]
    assert [record["probe"] is None for record in epochs] == [True, False, False]
    assert 0 < epochs[-1]["probe"]["top1"] <= epochs[-1]["probe"]["top5"] <= 1


def test_without_a_label_in_the_batch_loss_and_gradient_are_zero() -> None:
    logits = torch.randn(4, 3, requires_grad=True)
    loss = probe_loss(logits, torch.full((4,), -1))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().max().item() == 0


def test_unlabelled_rows_are_left_out_of_the_mean() -> None:
    logits, labels = torch.randn(6, 3), torch.tensor([0, -1, 2, -1, 1, 1])
    there = labels >= 0
    assert probe_loss(logits, labels).item() == pytest.approx(
        F.cross_entropy(logits[there], labels[there]).item()
    )


def test_its_steps_are_those_of_adam_on_the_cross_entropy() -> None:
    torch.manual_seed(0)
    features, labels = torch.randn(5, 16, 8), torch.randint(0, 3, (80,))
    ours, _ = probe(labels, probe_lr=0.03)
    values = [p.detach().clone() for p in ours.linear.parameters()]
    first, second = ([torch.zeros_like(p) for p in values] for _ in range(2))
    for step, h in enumerate(features):
        indices = torch.arange(16) + 16 * step
        ours.add_gradient(h, indices, 1.0)
        ours.before_step()
        ours.step(step, 5)
        error = (h @ values[0].T + values[1]).softmax(1) - F.one_hot(labels[indices], 3)
        for value, m, v, gradient in zip(
            values, first, second, (error.T @ h / 16, error.mean(0)), strict=True
        ):
            m.mul_(0.9).add_(0.1 * gradient)
            v.mul_(0.999).add_(0.001 * gradient**2)
            corrected = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            value.sub_(0.03 * corrected[0] / (corrected[1].sqrt() + 1e-8))
    assert torch.allclose(ours.linear.weight, values[0], atol=1e-5)
    assert torch.allclose(ours.linear.bias, values[1], atol=1e-5)


def test_two_halves_of_a_batch_give_the_gradient_of_the_whole() -> None:
    features, labels = torch.randn(8, 8), torch.randint(0, 3, (8,))
    ours, _ = probe(labels)
    ours.add_gradient(features, torch.arange(8), 1.0)
    whole = ours.linear.weight.grad
    assert whole is not None
    ours.linear.weight.grad = torch.zeros_like(whole)
    for half in (torch.arange(4), torch.arange(4, 8)):
        ours.add_gradient(features[half], half, 0.5)
    assert torch.allclose(ours.linear.weight.grad, whole, atol=1e-7)


def test_the_shared_one_is_a_group_without_decay_at_its_own_rate_on_the_runs_schedule() -> None:
    _, method = probe(torch.zeros(8, dtype=torch.long), probe="shared", probe_lr=0.4, weight_decay=0.1)
    group = method.param_groups[-1]
    method.param_groups[0] |= {"fixed_lr": False, "name": "method"}
    chosen = config(batch_size=256, lr=1.0, probe_lr=0.4, schedule="cosine", warmup_epochs=0, epochs=10)
    set_learning_rates(method, chosen, step=5, steps_per_epoch=1)
    assert group["weight_decay"] == 0
    assert group["lr"] == pytest.approx(0.4 * method.param_groups[0]["lr"])


def test_encoders_are_kept_at_the_epochs_asked_for(tmp_path: Path) -> None:
    run(tmp_path / "run", epochs=4, keep_every=2)
    kept = sorted(path.name for path in (tmp_path / "run/encoders").iterdir())
    assert kept == ["epoch_0000.safetensors", "epoch_0002.safetensors", "epoch_0004.safetensors"]
    with safe_open(tmp_path / "run/encoders/epoch_0002.safetensors", "pt") as file:
        assert file.metadata()["epoch"] == "2"
