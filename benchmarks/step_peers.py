"""The peers of `steps.py`: a block of training steps each, by their own transforms, heads, loss and loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from PIL import Image
from step_cases import Case
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fullrank.networks.backbones import build_backbone
from fullrank.views import VIEWS

MEAN, STD = [0.49, 0.48, 0.45], [0.25, 0.24, 0.26]
SIZE = 32
VIEW = VIEWS["simsiam-cifar"].views[0]
SGD: dict[str, Any] = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4}


class Pictures(Dataset[Any]):
    """PIL images from one array, as torchvision's CIFAR-10 hands them out."""

    def __init__(self, images: Tensor, transform: Callable[[Any], Any] | None = None) -> None:
        self.data, self.transform = images.permute(0, 2, 3, 1).contiguous().numpy(), transform

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        image = Image.fromarray(self.data[i])
        return (self.transform(image) if self.transform else image), i % 10


def _loader(dataset: Dataset[Any], case: Case, workers: int) -> DataLoader[Any]:
    return DataLoader(dataset, case.batch, shuffle=True, drop_last=True, num_workers=workers)


def lightly_block(case: Case, images: Tensor, workers: int) -> Callable[[], float]:
    """lightly's transform, heads and loss in the loop of its own SimSiam example, under autocast."""
    from lightly.loss import NegativeCosineSimilarity
    from lightly.models.modules.heads import SimSiamPredictionHead, SimSiamProjectionHead
    from lightly.transforms import SimSiamTransform

    assert VIEW.crop
    transform = SimSiamTransform(
        input_size=SIZE,
        cj_prob=VIEW.jitter_p,
        cj_bright=VIEW.brightness,
        cj_contrast=VIEW.contrast,
        cj_sat=VIEW.saturation,
        cj_hue=VIEW.hue,
        min_scale=VIEW.crop[0],
        random_gray_scale=VIEW.gray_p,
        gaussian_blur=VIEW.blur_p,
        hf_prob=VIEW.flip_p,
        normalize={"mean": MEAN, "std": STD},
    )
    loader = _loader(Pictures(images, transform), case, workers)
    found = build_backbone(case.backbone, SIZE)
    backbone = found.network
    projector = SimSiamProjectionHead(found.feature_dim, case.hidden, case.hidden)
    predictor = SimSiamPredictionHead(case.hidden, case.bottleneck, case.hidden)
    network, criterion = torch.nn.ModuleList([backbone, projector, predictor]), NegativeCosineSimilarity()
    optimizer = torch.optim.SGD(network.parameters(), **SGD)

    def step(batches: Iterator[Any]) -> None:
        a, b = next(batches)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            z = [projector(backbone(view)) for view in (a, b)]
            p = [predictor(view) for view in z]
            loss = 0.5 * (criterion(p[0], z[1].detach()) + criterion(p[1], z[0].detach()))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    def block() -> float:
        batches = iter(loader)
        for _ in range(case.warm_up):
            step(batches)
        start = time.perf_counter()
        for _ in range(case.steps):
            step(batches)
        return (time.perf_counter() - start) / case.steps

    return block


def stable_pretraining_block(case: Case, images: Tensor, workers: int) -> Callable[[], float]:
    """stable-pretraining's transforms, SimSiam and Module, fitted by Lightning's Trainer in bf16."""
    from loguru import logger

    logger.remove()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    from lightning import pytorch as pl
    from stable_pretraining.data import FromTorchDataset
    from stable_pretraining.data import transforms as T
    from stable_pretraining.methods.simsiam import SimSiam

    class Trained(SimSiam):  # type: ignore[misc]
        """Their method, told where its views lie in a batch."""

        def forward(self, batch: Any, stage: str | None = None) -> dict[str, Tensor]:
            out = super().forward(*(view["image"] for view in batch["views"]))
            return {"loss": out.loss, "embedding": out.embedding}

    view = T.Compose(
        T.RandomResizedCrop((SIZE, SIZE), scale=VIEW.crop, interpolation=3),
        T.RandomHorizontalFlip(p=VIEW.flip_p),
        T.ColorJitter(VIEW.brightness, VIEW.contrast, VIEW.saturation, VIEW.hue, p=VIEW.jitter_p),
        T.RandomGrayscale(p=VIEW.gray_p),
        T.ToImage(mean=MEAN, std=STD),
    )
    transform = T.MultiViewTransform([view, view])
    dataset = FromTorchDataset(Pictures(images), names=["image", "label"], transform=transform)
    loader = _loader(dataset, case, workers)
    network = build_backbone(case.backbone, SIZE).network
    module = Trained(network, projector_dim=case.hidden, predictor_hidden_dim=case.bottleneck)
    module.optim = {"optimizer": partial(torch.optim.SGD, **SGD), "scheduler": "ConstantLR"}

    class Clock(pl.Callback):
        """Seconds from the end of the warm-up to the end of the last step."""

        start = end = 0.0

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
            self.end = time.perf_counter()
            if index + 1 == case.warm_up:
                self.start = self.end

    def block() -> float:
        clock = Clock()
        trainer = pl.Trainer(
            accelerator="cpu",
            precision="bf16-mixed",
            max_steps=case.warm_up + case.steps,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.callbacks = [clock]  # type: ignore[attr-defined] # without the loggers and dumps that it adds of itself
        trainer.fit(module, loader)
        return (clock.end - clock.start) / case.steps

    return block
