"""A classifier trained on images: before a frozen encoder, or along with it."""

from __future__ import annotations

import copy
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from fullrank.encoders.encoder import Encoder
from fullrank.encoders.runs import encoder_step
from fullrank.encoders.torch_files import write_torch_file
from fullrank.errors import FullrankError, UsageError
from fullrank.evaluation.protocols import Protocol
from fullrank.evaluation.result import EvaluationResult, Probe
from fullrank.features.extraction import device_of
from fullrank.features.subject import kind_of, open_encoder_subject
from fullrank.images.loader import Batches, evaluation_batches
from fullrank.images.sources import Data, LazySource, Source
from fullrank.options import EvaluateOptions, OnProgress
from fullrank.training.online_probe import classes_of
from fullrank.training.optim import LARS
from fullrank.training.setup import CropViews, generator_of
from fullrank.untrusted.parsing import refusing
from fullrank.views import View, Views, image_ops


def open_encoder_and_images(what: str | Path, options: EvaluateOptions) -> tuple[Encoder, Data]:
    """Open an encoder and labelled images to train a classifier on."""
    if options.tap not in ("", "features"):
        raise UsageError("a classifier trained on images stands on the encoder's features: leave --tap out")
    if not options.data and kind_of(what) != "encoder":
        raise UsageError(f"{what} is no encoder: a run, a checkpoint or a model's name is needed here")
    subject = open_encoder_subject(
        what, options, None, options.data, options.limit, options.max_pixels, more_images=True
    )
    return subject.encoder, subject.data


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


def train_classifier(
    model: Encoder,
    data: Data,
    protocol: Protocol,
    seed: int = 0,
    state: Path | None = None,
    on_progress: OnProgress | None = None,
    *,
    device: torch.device | str | None = None,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Trained:
    """Train a linear classifier on an encoder's features, from random crops and flips.

    Images without a label are left out. The given encoder is not changed: fine-tuning works on a copy.

    Args:
        model, data, protocol: what is trained, on which labelled images, and how.
        seed: of initialisation, order and crops.
        state: a file for the state of each epoch, to go on from after a kill.
        on_progress: called after every epoch.
        device: None is a GPU where there is one, else the CPU.
        precision: of the encoder's passes.
    """
    train, test = labelled_only(data.train, "training"), labelled_only(data.held_out, "test")
    classes = max(classes_of(train), classes_of(test))
    if classes < 2:
        raise UsageError("a classifier needs images of two classes or more; these have one")
    started = time.perf_counter()
    where = device_of(device)
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
    batches, views = _batches(model, train, protocol, seed)
    optimizer = _optimizer(protocol, classifier, network)
    run = _Training(network, classifier, optimizer, protocol, views, where, precision, state)
    trained = run.restore()
    tested = run.features(model, test) if protocol.frozen else None
    with closing(batches):
        for epoch in range(len(trained.top1), protocol.epochs):
            trained.loss.append(run.epoch(batches, epoch, seed))
            top1, top5 = _accuracy(classifier, *(tested or run.features(model, test)))
            trained.top1.append(top1)
            trained.top5.append(top5)
            run.save(trained)
            if on_progress:
                on_progress("training the classifier", epoch + 1, protocol.epochs)
    if before is not None and before != _fingerprint(network):
        raise FullrankError(
            "the frozen encoder moved while its probe was trained: this is a bug, please report it"
        )
    if state is not None:
        state.unlink(missing_ok=True)
    trained.seconds, trained.images = time.perf_counter() - started, len(train)
    return trained


def classifier_result(
    probe: Probe,
    what: str,
    model: Encoder,
    data: Data,
    name: str,
    protocol: Protocol,
    trained: Trained,
    results: Mapping[str, Any],
) -> EvaluationResult:
    """The result of a classifier trained on images by a protocol of this name."""
    labels = data.train.labels
    assert labels is not None
    return EvaluationResult(
        probe,
        what,
        "features",
        data.name,
        name,
        results,
        {"protocol": vars(protocol), "image_size": model.image_size},
        trained.images,
        len(data.held_out),
        len(set(labels[labels >= 0].tolist())),
        model.feature_dim,
        trained.seconds,
        model.notes,
        encoder=encoder_step(what),
    )


@dataclass
class _Training:
    network: nn.Module
    classifier: nn.Linear
    optimizer: Optimizer
    protocol: Protocol
    views: Views
    where: torch.device
    precision: str
    state: Path | None

    def epoch(self, batches: Batches, epoch: int, seed: int) -> float:
        protocol = self.protocol
        rate = protocol.rate(epoch) * batches.batch_size / 256
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        labels = torch.from_numpy(batches.source.labels)
        total = torch.zeros((), dtype=torch.float64, device=self.where)
        self.network.train(not protocol.frozen)  # BatchNorms learn only where the encoder does
        for step, (indices, images) in batches.epoch(epoch):
            view = self.view(images, batches.batch_size, (seed, 5, epoch, step))
            with torch.set_grad_enabled(not protocol.frozen):
                features = self.forward(view)
            loss = F.cross_entropy(self.classifier(features), labels[indices].to(self.where))
            loss.backward()
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            total += loss.detach()
        self.network.eval()
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

    def features(self, model: Encoder, test: Source) -> tuple[Tensor, Tensor]:
        """Features and labels of all test images, un-augmented, in eval mode."""
        assert test.labels is not None
        mean, std = model.mean or test.mean, model.std or test.std
        rows, order = [], []
        self.network.eval()
        with torch.no_grad():
            for indices, images in evaluation_batches(
                test, 256, model.image_size, crop_ratio=model.crop_ratio
            ):
                whole = image_ops.normalize(image_ops.to_float(images.to(self.where)), mean, std)
                rows.append(self.forward(whole))
                order.append(indices)
        labels = torch.from_numpy(test.labels[torch.cat(order).numpy()]).to(self.where)
        return torch.cat(rows), labels

    def save(self, trained: Trained) -> None:
        if self.state is None:
            return
        self.state.parent.mkdir(parents=True, exist_ok=True)
        content = {
            "protocol": repr(self.protocol),
            "classifier": self.classifier.state_dict(),
            "network": {} if self.protocol.frozen else self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "done": {"top1": trained.top1, "top5": trained.top5, "loss": trained.loss},
        }
        write_torch_file(content, self.state)

    def restore(self) -> Trained:
        """Take up an interrupted training of the same protocol, or begin anew."""
        if self.state is None or not self.state.exists():
            return Trained()
        with refusing(f"{self.state} is damaged: remove it, and the classifier is trained anew"):
            state = torch.load(self.state, weights_only=True)
            if state["protocol"] != repr(self.protocol):
                return Trained()
            self.classifier.load_state_dict(state["classifier"])
            if not self.protocol.frozen:
                self.network.load_state_dict(state["network"])
            self.optimizer.load_state_dict(state["optimizer"])
            return Trained(**state["done"])


def labelled(source: Source) -> Source | None:
    """The labelled ones among images, if any."""
    labels = source.labels
    if labels is None or not (labels >= 0).any():
        return None
    return source if (labels >= 0).all() else source.subset(np.flatnonzero(labels >= 0))


def labelled_only(source: Source, what: str) -> Source:
    """The labelled ones among `what` images; raises UsageError where there are none."""
    found = labelled(source)
    if found is None:
        raise UsageError(f"the {what} images ({source.name}) have no labels, which a classifier needs")
    return found


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
