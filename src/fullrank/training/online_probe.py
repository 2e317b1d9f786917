"""A linear classifier on the backbone's features, trained beside the method and never felt by it."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fullrank.images.sources import Source
from fullrank.training.config import TrainConfig
from fullrank.training.optim import probe_lr, scheduled_lr

__all__ = ["OnlineProbe", "classes_of", "probe_loss"]

UNLABELLED = -1


def probe_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the labelled rows; 0 with a zero gradient where a batch has none.

    PyTorch's mean over no rows is 0 / 0, which would poison the weights: with STL-10's 5 % of labels that
    happens about once in a thousand epochs.

    Args:
        logits: [n, K].
        labels: int64 [n], -1 where an image has none.

    Example:
        >>> float(probe_loss(torch.zeros(2, 4), torch.tensor([-1, -1])))
        0.0
        >>> round(float(probe_loss(torch.zeros(2, 4), torch.tensor([3, -1]))), 4)  # ln 4
        1.3863
    """
    total = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def classes_of(source: Source) -> int:
    """How many classes the labels of a source name; 0 where it has none.

    Example:
        >>> from fullrank.images.opening import open_data
        >>> classes_of(open_data("shapes", limit=10).train)
        10
    """
    if source.labels is None or not bool((source.labels >= 0).any()):
        return 0
    return max(int(source.labels.max()) + 1, len(source.classes or ()))


class OnlineProbe:
    """Linear(F, K) on the detached features of the first view, one step for every step of the method.

    `own` has Adam to itself, whose steps do not depend on the scale of the features; `shared` is one more
    group of the method's optimiser, without weight decay, as solo-learn and its forks have it (they average
    the loss over all large views; here it is that of the first). Both follow the run's schedule from
    `probe_lr`.

    Args:
        feature_dim: F.
        classes: K.
        labels: int64 [N], of all training images, -1 where one has none.
        config: says `own` or `shared`, and the rates.
        fabric: devices and processes.
        optimizer: the method's; only `shared` adds to it.
    """

    def __init__(
        self,
        feature_dim: int,
        classes: int,
        labels: Tensor,
        config: TrainConfig,
        fabric: Fabric,
        optimizer: Optimizer,
    ) -> None:
        self.config, self.fabric, self.labels = config, fabric, labels.to(fabric.device)
        with torch.random.fork_rng(devices=[]):  # the method's draws stay what they are without a probe
            torch.manual_seed(config.seed)
            self.linear = nn.Linear(feature_dim, classes).to(fabric.device)
        group = {"params": list(self.linear.parameters()), "weight_decay": 0.0}
        self.optimizer: Optimizer | None = None
        if config.probe == "own":
            self.optimizer = torch.optim.Adam([group], lr=probe_lr(config))
        else:
            base = {"name": "probe", "base_lr": probe_lr(config), "fixed_lr": False}
            optimizer.add_param_group({**group, **base, "lr": probe_lr(config)})

    def loss(self, features: Tensor, indices: Tensor) -> Tensor:
        """Features [b, F] of the images at `indices` to the loss of the classifier alone."""
        labels = self.labels[indices.to(self.labels.device, non_blocking=True)]
        return probe_loss(self.linear(features.detach().float()), labels)

    def add_gradient(self, features: Tensor, indices: Tensor, share: float) -> None:
        """Adds `share` of the gradient of one batch; with `shared` scaled as the optimiser expects it."""
        loss = self.loss(features, indices) * share
        if self.optimizer is None:
            self.fabric.backward(loss)
        else:
            loss.backward()

    def before_step(self) -> None:
        """Averages the gradient over processes, which no wrapper does for it."""
        if self.fabric.world_size > 1:
            for parameter in self.linear.parameters():
                assert parameter.grad is not None
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.fabric.world_size

    def step(self, step: int, steps_per_epoch: int) -> None:
        """One step of its own optimiser; `shared` has been stepped with the method's."""
        if self.optimizer is not None:
            lr = scheduled_lr(self.config, step, steps_per_epoch, probe_lr(self.config))
            self.optimizer.param_groups[0]["lr"] = lr
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def accuracy(self, features: Tensor, labels: Tensor) -> dict[str, Any]:
        """Shares of labelled images that it names right, at once or in five: `top1`, `top5`, and `loss`."""
        logits = self.linear(features.float())
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        return {
            "top1": best[:, 0].double().mean().item(),
            "top5": best.any(1).double().mean().item(),
            "loss": float(F.cross_entropy(logits.double(), labels)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Weights, and the optimiser's state where it has one of its own."""
        own = {} if self.optimizer is None else self.optimizer.state_dict()
        return {"linear": self.linear.state_dict(), "optimizer": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.linear.load_state_dict(state["linear"])
        if self.optimizer is not None:
            self.optimizer.load_state_dict(state["optimizer"])
