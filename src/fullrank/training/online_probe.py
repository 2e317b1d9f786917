"""Online probe: a linear classifier on detached features, beside the method."""

from __future__ import annotations

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fullrank.images.sources import Source
from fullrank.training.config import TrainConfig
from fullrank.training.optim import load_buffers, probe_lr, scheduled_lr

UNLABELLED = -1


def probe_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross entropy over the labelled rows; 0 where a batch has none.

    `logits` are [n, K], `labels` int64 [n], -1 where an image has none. PyTorch's mean over no rows is 0 / 0,
    which would poison the weights: with STL-10's 5 % of labels that happens about once in a thousand epochs.

    Example:
        >>> float(probe_loss(torch.zeros(2, 4), torch.tensor([-1, -1])))
        0.0
        >>> round(float(probe_loss(torch.zeros(2, 4), torch.tensor([3, -1]))), 4)  # ln 4
        1.3863
    """
    total = F.cross_entropy(logits, labels, ignore_index=UNLABELLED, reduction="sum")
    return total / (labels != UNLABELLED).sum().clamp(min=1)


def classes_of(source: Source) -> int:
    """Number of classes that the labels of a source name; 0 where it has none.

    Example:
        >>> from fullrank.images.opening import open_data
        >>> classes_of(open_data("shapes", limit=10).train)
        10
    """
    if source.labels is None or not len(source.labelled):
        return 0
    return max(int(source.labels.max()) + 1, len(source.classes or ()))


class OnlineProbe:
    """Linear(F, K) on the detached features of the first view.

    `own` has Adam to itself, whose steps do not depend on the scale of the features; `shared` is one more
    group of the method's optimiser, without weight decay, as solo-learn and its forks have it (they average
    the loss over all large views; here it is that of the first). Both follow the run's schedule from
    `probe_lr`.

    `labels` are those of all training images, int64 [N], -1 where one has none; `optimizer` is the method's,
    which only `shared` adds to.
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
        with torch.random.fork_rng(devices=[]):  # the method's random numbers stay the same without a probe
            torch.manual_seed(config.seed)
            self.linear = nn.Linear(feature_dim, classes).to(fabric.device)
        group = {"params": list(self.linear.parameters()), "weight_decay": 0.0}
        self.optimizer: Optimizer | None = None
        if config.probe == "own":
            self.optimizer = torch.optim.Adam([group], lr=probe_lr(config))
        else:
            base = {"name": "probe", "base_lr": probe_lr(config), "fixed_lr": False}
            optimizer.add_param_group({**group, **base, "lr": probe_lr(config)})

    def add_gradient(self, features: Tensor, indices: Tensor, share: float) -> None:
        """Add `share` of a batch's gradient; of `shared` scaled for the optimiser."""
        labels = self.labels[indices.to(self.labels.device, non_blocking=True)]
        loss = probe_loss(self.linear(features.detach().float()), labels) * share
        if self.optimizer is None:
            self.fabric.backward(loss)
        else:
            loss.backward()

    def before_step(self) -> None:
        """Average the gradient over processes, which no wrapper does for it."""
        if self.fabric.world_size > 1:
            for parameter in self.linear.parameters():
                assert parameter.grad is not None
                torch.distributed.all_reduce(parameter.grad)
                parameter.grad /= self.fabric.world_size

    def step(self, step: int, steps_per_epoch: int) -> None:
        """Step its own optimiser; `shared` has been stepped with the method's."""
        if self.optimizer is not None:
            lr = scheduled_lr(self.config, step, steps_per_epoch, probe_lr(self.config))
            self.optimizer.param_groups[0]["lr"] = lr
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)

    @torch.no_grad()
    def accuracy(self, features: Tensor, labels: Tensor) -> dict[str, Any]:
        """Accuracy on labelled images at once (`top1`) and in five (`top5`), and `loss`."""
        logits = self.linear(features.float())
        best = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
        return {
            "top1": best[:, 0].double().mean().item(),
            "top5": best.any(1).double().mean().item(),
            "loss": float(F.cross_entropy(logits.double(), labels)),
        }

    def state_dict(self) -> dict[str, Any]:
        """Collect the weights, and the optimiser's state where it has one of its own."""
        own = {} if self.optimizer is None else self.optimizer.state_dict()
        return {"linear": self.linear.state_dict(), "optimizer": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up a `state_dict`."""
        self.linear.load_state_dict(state["linear"])
        if self.optimizer is not None:
            load_buffers(self.optimizer, state["optimizer"])
