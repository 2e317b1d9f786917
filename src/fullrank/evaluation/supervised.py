"""A classifier trained on images: on a frozen encoder as the literature probes it, or along with it."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fullrank.encoders.encoder import Encoder
from fullrank.errors import FullrankError, UsageError
from fullrank.images.loader import Batches, evaluation_batches
from fullrank.images.sources import Data, LazySource, Source
from fullrank.training.online_probe import classes_of
from fullrank.training.optim import LARS
from fullrank.training.schedules import epoch_cosine
from fullrank.training.setup import CropViews, generator_of
from fullrank.views import View, Views, image_ops

__all__ = ["FINETUNING", "PROTOCOLS", "Protocol", "Trained", "label_share", "train_classifier"]


@dataclass(frozen=True)
class Protocol:
    """How a classifier is trained on an encoder.

    Attributes:
        about: where it is from.
        epochs: passes over the labelled images.
        batch_size: images per step.
        optimizer: sgd, or lars (apex's LARC around it: ratio eta |w| / (|g| + decay |w|), not clipped, none
            where a norm is zero; eta 0.001).
        lr: for 256 images a step; scaled linearly.
        schedule: epoch-cosine (to 0, once an epoch) or step (a tenth after each of `milestones`).
        milestones: epochs.
        momentum: of the optimiser.
        weight_decay: L2 coefficient.
        init_std: of the classifier's normal weights, zero bias; 0: PyTorch's initialisation.
        crop: (low, high) share of the image's area that a training crop takes.
        frozen: the encoder is in eval mode and never moves; else it is trained too.
        encoder_lr: factor on the rate for the encoder where it is trained.
    """

    about: str
    epochs: int
    batch_size: int
    lr: float
    optimizer: Literal["sgd", "lars"] = "sgd"
    schedule: Literal["epoch-cosine", "step"] = "epoch-cosine"
    milestones: tuple[int, ...] = ()
    momentum: float = 0.9
    weight_decay: float = 0.0
    init_std: float = 0.0
    crop: tuple[float, float] = (0.08, 1.0)
    frozen: bool = True
    encoder_lr: float = 1.0

    def changed(self, epochs: int = 0, lr: float = 0.0, batch_size: int = 0) -> Protocol:
        """The same with other numbers where they are not 0; milestones keep their share of the epochs.

        Example:
            >>> PROTOCOLS["solo"].changed(epochs=10).milestones
            (6, 8)
        """
        length = epochs or self.epochs
        milestones = tuple(round(milestone * length / self.epochs) for milestone in self.milestones)
        size = batch_size or self.batch_size
        return replace(self, epochs=length, lr=lr or self.lr, batch_size=size, milestones=milestones)

    def rate(self, epoch: int) -> float:
        """Learning rate of an epoch, from 0, before its scaling by the batch."""
        if self.schedule == "step":
            return self.lr * 0.1 ** sum(epoch >= milestone for milestone in self.milestones)
        return epoch_cosine(epoch, self.epochs, self.lr)


PROTOCOLS: Mapping[str, Protocol] = {
    "simsiam": Protocol(
        "SimSiam's code (2011.10566): 90 epochs, batch 4096, LARS",
        epochs=90, batch_size=4096, lr=0.1, optimizer="lars", init_std=0.01,
    ),
    "li": Protocol(
        "Li et al. (2209.15007), ResNet-18: as SimSiam's with batch 1024",
        epochs=90, batch_size=1024, lr=0.1, optimizer="lars", init_std=0.01,
    ),
    "solo": Protocol(
        "solo-learn: 100 epochs, batch 256, SGD 0.3, steps at 60 and 80",
        epochs=100, batch_size=256, lr=0.3, schedule="step", milestones=(60, 80),
    ),
    "rdm-byol": Protocol(
        "RDM (2303.02387), for BYOL and RDM-BYOL: as solo-learn's",
        epochs=100, batch_size=256, lr=0.3, schedule="step", milestones=(60, 80),
    ),
    "rdm-simsiam": Protocol(
        "RDM (2303.02387), for SimSiam and RDM-SimSiam: SGD 30",
        epochs=100, batch_size=256, lr=30.0, schedule="step", milestones=(60, 80),
    ),
}  # fmt: skip
"""The literature's linear probes."""

FINETUNING = Protocol(
    "fine-tuning on a share of the labels, after SimCLR (2002.05709), appendix B.5: SGD without decay, "
    "crops and flips; a tenth of the classifier's rate for the encoder",
    epochs=30, batch_size=256, lr=0.1, frozen=False, encoder_lr=0.1,
)  # fmt: skip


@dataclass
class Trained:
    """A classifier and how well it does.

    Attributes:
        top1: per epoch, share of test images named right.
        top5: per epoch, share that is among five guesses.
        loss: per epoch, mean cross entropy in training.
        seconds: all of it.
        images: labelled ones that it was trained on.
    """

    top1: list[float] = field(default_factory=list)
    top5: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0
    images: int = 0

    def results(self) -> dict[str, Any]:
        """`top1` and `top5` of the last epoch, and `best_top1` with the epoch that had it.

        Example:
            >>> Trained([0.5, 0.7, 0.6], [0.9, 0.9, 0.9], [1.0, 0.5, 0.4]).results()["best_top1"]
            0.7
        """
        best = int(np.argmax(self.top1))
        return {
            "top1": self.top1[-1],
            "top5": self.top5[-1],
            "best_top1": self.top1[best],
            "best_epoch": best + 1,
            "loss": self.loss[-1],
        }


OnProgress = Callable[[str, int, int], None]


def train_classifier(
    model: Encoder,
    data: Data,
    protocol: Protocol,
    *,
    seed: int = 0,
    state: Path | None = None,
    progress: OnProgress | None = None,
    device: torch.device | str | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Trained:
    """Trains a linear classifier on an encoder's features, from random crops and flips.

    Images without a label are left out. The given encoder is not changed: fine-tuning works on a copy.

    Args:
        model: the encoder.
        data: labelled images to train on and to measure on.
        protocol: how.
        seed: of initialisation, order and crops.
        state: a file to keep the state of each epoch in, and to go on from after a kill.
        progress: told how many epochs are done.
        device: None is a GPU where there is one, else the CPU.
        precision: of the encoder's forward pass (and backward, where it is trained).

    Raises:
        UsageError: no labels, fewer than two classes, or more test classes than training classes.
        FullrankError: the loss stopped being finite, or frozen weights moved.
    """
    train, test = _labelled(data.train, "training"), _labelled(data.held_out, "test")
    classes = max(classes_of(train), classes_of(test))
    if classes < 2:
        raise UsageError("a classifier needs images of two classes or more; these have one")
    started = time.perf_counter()
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    network = model.network if protocol.frozen else copy.deepcopy(model.network).requires_grad_(True)
    network = network.to(where)
    before = _fingerprint(network) if protocol.frozen else None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = nn.Linear(model.feature_dim, classes)
    if protocol.init_std:
        nn.init.normal_(classifier.weight, std=protocol.init_std, generator=generator_of(seed, 7))
        nn.init.zeros_(classifier.bias)
    classifier.to(where)
    optimizer = _optimizer(protocol, classifier, network)
    batches, views = _batches(model, train, protocol, seed)
    done = _restore(state, protocol, classifier, network, optimizer)
    run = _Run(network, classifier, optimizer, protocol, views, where, precision)
    tested = _features(run, model, test) if protocol.frozen else None
    for epoch in range(len(done.top1), protocol.epochs):
        done.loss.append(run.epoch(batches, epoch, seed))
        features, labels = tested or _features(run, model, test)
        top1, top5 = _accuracy(classifier, features, labels)
        done.top1.append(top1)
        done.top5.append(top5)
        if state is not None:
            _save(state, protocol, classifier, network, optimizer, done)
        if progress:
            progress("training the classifier", epoch + 1, protocol.epochs)
    if before is not None and before != _fingerprint(network):
        raise FullrankError(
            "the frozen encoder moved while its probe was trained: this is a bug, please report it"
        )
    if state is not None:
        state.unlink(missing_ok=True)
    done.seconds, done.images = time.perf_counter() - started, len(train)
    return done


def label_share(data: Data, share: float, seed: int = 0) -> Data:
    """The same data with `share` of the labelled training images, drawn class by class, at least one of each.

    Args:
        data: with labels.
        share: in (0, 1].
        seed: of the choice; a smaller share lies within a larger one.

    Example:
        >>> from fullrank.images.opening import open_data
        >>> small = label_share(open_data("shapes", limit=600), 0.1)
        >>> len(small.train), sorted(set(small.train.labels.tolist())) == list(range(10))
        (61, True)
    """
    if not 0 < share <= 1:
        raise UsageError(f"a share of labels lies in (0, 1], as in 0.01 for 1 %, not {share:g}")
    train = _labelled(data.train, "training")
    assert train.labels is not None
    chosen = []
    for label in np.unique(train.labels):
        members = np.flatnonzero(train.labels == label)
        order = np.random.default_rng([seed, int(label)]).permutation(members)
        chosen.append(order[: max(1, round(share * len(members)))])
    return replace(data, train=train.subset(np.sort(np.concatenate(chosen))))


@dataclass
class _Run:
    """What an epoch needs."""

    network: nn.Module
    classifier: nn.Linear
    optimizer: Optimizer
    protocol: Protocol
    views: Views
    where: torch.device
    precision: str

    def epoch(self, batches: Batches, epoch: int, seed: int) -> float:
        protocol = self.protocol
        rate = protocol.rate(epoch) * batches.batch_size / 256
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        labels = torch.from_numpy(batches.source.labels)
        total = torch.zeros((), dtype=torch.float64, device=self.where)
        with self.mode():
            for step, (indices, images) in batches.epoch(epoch):
                view = self.view(images, batches.batch_size, (seed, 5, epoch, step))
                with torch.set_grad_enabled(not protocol.frozen):
                    features = self.forward(view)
                loss = F.cross_entropy(self.classifier(features), labels[indices].to(self.where))
                loss.backward()
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                total += loss.detach()
        mean = total.item() / len(batches)
        if not np.isfinite(mean):
            raise FullrankError(f"the classifier's loss is {mean} in epoch {epoch + 1}: lower --lr")
        return mean

    def view(self, images: Tensor | list[Tensor], batch: int, key: tuple[int, ...]) -> Tensor:
        first = images if isinstance(images, Tensor) else images[0]
        params = self.views.sample(batch, first.shape[2], first.shape[3], generator_of(*key))
        if isinstance(images, Tensor):
            return self.views(images.to(self.where), params)[0]
        return self.views.finish([view.to(self.where) for view in images], params)[0]

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(self.where.type, torch.bfloat16, enabled=self.precision == "bf16"):
            features: Tensor = self.network(images)
        return features.float()

    @contextmanager
    def mode(self) -> Iterator[None]:
        """BatchNorms learn only where the encoder does."""
        self.network.train(not self.protocol.frozen)
        try:
            yield
        finally:
            self.network.eval()


def _labelled(source: Source, what: str) -> Source:
    labels = source.labels
    if labels is None or not (labels >= 0).any():
        raise UsageError(f"the {what} images ({source.name}) have no labels, which a classifier needs")
    return source if (labels >= 0).all() else source.subset(np.flatnonzero(labels >= 0))


def _optimizer(protocol: Protocol, classifier: nn.Linear, network: nn.Module) -> Optimizer:
    groups: list[dict[str, Any]] = [{"params": list(classifier.parameters()), "factor": 1.0}]
    if not protocol.frozen:
        groups.append({"params": list(network.parameters()), "factor": protocol.encoder_lr})
    kind = LARS if protocol.optimizer == "lars" else torch.optim.SGD
    return kind(groups, lr=protocol.lr, momentum=protocol.momentum, weight_decay=protocol.weight_decay)


def _batches(model: Encoder, train: Source, protocol: Protocol, seed: int) -> tuple[Batches, Views]:
    mean, std = model.mean or train.mean, model.std or train.std
    view = View(crop=protocol.crop, flip_p=0.5)
    views = Views([view], model.image_size, mean, std)
    size = min(protocol.batch_size, len(train))
    crop = CropViews(views, seed) if isinstance(train, LazySource) else None
    return Batches(train, size, seed, workers=2 if crop else 0, crop=crop), views


def _features(run: _Run, model: Encoder, test: Source) -> tuple[Tensor, Tensor]:
    """Features and labels of all test images, un-augmented, in eval mode."""
    assert test.labels is not None
    mean, std = model.mean or test.mean, model.std or test.std
    rows, found = [], []
    run.network.eval()
    with torch.no_grad():
        for indices, images in evaluation_batches(test, 256, model.image_size, crop_ratio=model.crop_ratio):
            whole = image_ops.normalize(image_ops.to_float(images.to(run.where)), mean, std)
            rows.append(run.forward(whole))
            found.append(indices)
    labels = torch.from_numpy(test.labels[torch.cat(found).numpy()]).to(run.where)
    return torch.cat(rows), labels


@torch.no_grad()
def _accuracy(classifier: nn.Linear, features: Tensor, labels: Tensor) -> tuple[float, float]:
    logits = classifier(features)
    hits = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
    return hits[:, 0].double().mean().item(), hits.any(1).double().mean().item()


def _fingerprint(network: nn.Module) -> list[float]:
    """Parameters and buffers in a few numbers, so that a change of any is seen."""
    return [
        float(value.double().sum() + value.double().square().sum()) for value in network.state_dict().values()
    ]


def _save(
    file: Path,
    protocol: Protocol,
    classifier: nn.Linear,
    network: nn.Module,
    optimizer: Optimizer,
    done: Trained,
) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}")
    content = {
        "protocol": repr(protocol),
        "classifier": classifier.state_dict(),
        "network": {} if protocol.frozen else network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "done": {"top1": done.top1, "top5": done.top5, "loss": done.loss},
    }
    torch.save(content, temporary)
    temporary.replace(file)


def _restore(
    file: Path | None, protocol: Protocol, classifier: nn.Linear, network: nn.Module, optimizer: Optimizer
) -> Trained:
    """Takes up the state of an interrupted training of the same protocol; anew where there is none."""
    if file is None or not file.exists():
        return Trained()
    state = torch.load(file, weights_only=True)
    if state["protocol"] != repr(protocol):
        return Trained()
    classifier.load_state_dict(state["classifier"])
    if not protocol.frozen:
        network.load_state_dict(state["network"])
    optimizer.load_state_dict(state["optimizer"])
    return Trained(**state["done"])
