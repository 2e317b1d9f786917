"""Detection fine-tuning of a pretrained ResNet: Faster R-CNN with the C4 design, on drawn shapes with boxes.

The protocol of MoCo (1911.05722), which SimSiam and RDM follow with Detectron2 on Pascal VOC: the backbone up
to its third stage makes the feature map, the fourth stage is the head of every region, all layers are
fine-tuned with their BatchNorms, and average precision is compared with a network of random weights.

    fullrank export runs/first --to torchvision --out encoder
    python detect.py encoder
    python detect.py encoder --random
"""

from __future__ import annotations

import argparse
import json
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign, box_iou

from fullrank.images.shapes import SHAPES, shapes

Target = dict[str, Tensor]


def scenes(n: int, seed: int, size: int) -> tuple[Tensor, list[Target]]:
    """Dark images [n, 3, size, size] with one to four shapes apart; their boxes, and labels from 1."""
    rng = np.random.default_rng(seed)
    sides = [size // 4, size // 3, size // 2]
    drawn = {side: shapes(2 * n, seed + side, side) for side in sides}
    images = rng.uniform(0.04, 0.14, (n, 1, 1, 1)) + 0.015 * rng.standard_normal((n, 3, size, size))
    targets: list[Target] = []
    for image in images:
        boxes: list[tuple[int, int, int, int]] = []
        labels: list[int] = []
        wanted = rng.integers(1, 5)
        for _ in range(20):
            side = int(rng.choice(sides))
            pixels, classes = drawn[side]
            k = rng.integers(len(classes))
            bright = pixels[k].max(0) > 80
            ys, xs = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
            top, left = rng.integers(0, size - side + 1, 2)
            box = (left + xs[0], top + ys[0], left + xs[-1] + 1, top + ys[-1] + 1)
            if any(b[0] < box[2] and box[0] < b[2] and b[1] < box[3] and box[1] < b[3] for b in boxes):
                continue
            there = image[:, top : top + side, left : left + side]
            there[:, bright] = pixels[k][:, bright] / 255
            boxes.append(box)
            labels.append(int(classes[k]) + 1)
            if len(boxes) == wanted:
                break
        targets.append({"boxes": torch.tensor(boxes).float(), "labels": torch.tensor(labels)})
    return torch.from_numpy(images).float().clamp(0, 1), targets


class Stages(nn.Sequential):
    """A ResNet up to its third stage: images to a map of `out_channels`."""

    out_channels: int


def detector(folder: Path, size: int, random: bool, classes: int) -> FasterRCNN:
    """Faster R-CNN, C4: around the encoder that `fullrank export --to torchvision` wrote."""
    said = json.loads((folder / "fullrank.json").read_text())
    net = torchvision.models.get_model(said["architecture"], weights=None)
    if said["cifar_padding"] is not None:
        net.conv1 = nn.Conv2d(3, 64, 3, padding=said["cifar_padding"], bias=False)
        net.maxpool = nn.Identity()
    width = net.fc.in_features
    net.fc = nn.Identity()
    if not random:
        net.load_state_dict(torch.load(folder / "model.pth", weights_only=True))
    names = ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3")
    stages = Stages(OrderedDict((name, getattr(net, name)) for name in names))
    stages.out_channels = width // 2
    return FasterRCNN(
        stages,
        box_head=nn.Sequential(net.layer4, nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        box_predictor=FastRCNNPredictor(width, classes + 1),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=4, sampling_ratio=2),
        rpn_anchor_generator=AnchorGenerator(((size // 8, size // 4, size // 2),), ((0.5, 1.0, 2.0),)),
        image_mean=said["mean"] or [0.485, 0.456, 0.406],
        image_std=said["std"] or [0.229, 0.224, 0.225],
        min_size=size,
        max_size=size,
        rpn_post_nms_top_n_train=64,
        rpn_post_nms_top_n_test=32,
        rpn_batch_size_per_image=64,
        box_batch_size_per_image=16,
    )


def finetune(net: FasterRCNN, images: Tensor, targets: list[Target], args: argparse.Namespace) -> None:
    """SGD with a warm-up and two steps down, every layer moves."""
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, weight_decay=1e-4)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=max(1, args.steps // 10))
    falls = [int(args.steps * share) for share in (0.75, 0.92)]
    schedule = torch.optim.lr_scheduler.ChainedScheduler(
        [warm, torch.optim.lr_scheduler.MultiStepLR(optimizer, falls)]
    )
    rng = np.random.default_rng(args.seed)
    begun = time.perf_counter()
    net.train()
    for step in range(args.steps):
        chosen = rng.choice(len(images), args.batch, replace=False)
        seen, wanted = [], []
        for k in chosen:
            image, target = images[k], targets[k]
            if rng.random() < 0.5:  # mirrored, as in Detectron2's recipe
                image, boxes = image.flip(-1), target["boxes"].clone()
                boxes[:, [0, 2]] = image.shape[-1] - boxes[:, [2, 0]]
                target = {**target, "boxes": boxes}
            seen.append(image)
            wanted.append(target)
        terms = net(seen, wanted)
        loss = sum(terms.values())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % max(1, args.steps // 6) == 0:
            seconds = time.perf_counter() - begun
            print(
                f"step {step + 1:>4} of {args.steps}   loss {loss.item():.3f}   {seconds:.0f} s", flush=True
            )


@torch.no_grad()
def detect(net: FasterRCNN, images: Tensor, batch: int = 16) -> list[Target]:
    """Boxes, labels and scores of every image."""
    net.eval()
    return [found for part in images.split(batch) for found in net(list(part))]


def average_precision(found: list[Target], targets: list[Target], overlap: float) -> float:
    """Mean over the classes of the area under precision and recall (VOC 2010), at an IoU of `overlap`.

    A detection is right where it overlaps a box of its class that no better detection has taken.
    """
    areas = []
    for label in torch.cat([target["labels"] for target in targets]).unique():
        scores: list[float] = []
        right: list[bool] = []
        boxes_of = [target["boxes"][target["labels"] == label] for target in targets]
        for part, boxes in zip(found, boxes_of, strict=True):
            mine = part["labels"] == label
            ious = box_iou(part["boxes"][mine], boxes)
            taken: set[int] = set()
            order = part["scores"][mine].argsort(descending=True)
            for k in order.tolist():
                iou, best = ious[k].max(0) if len(boxes) else (torch.tensor(0.0), torch.tensor(-1))
                hit = float(iou) >= overlap and int(best) not in taken
                if hit:
                    taken.add(int(best))
                scores.append(float(part["scores"][mine][k]))
                right.append(hit)
        hits = np.array(right, float)[np.argsort(scores)[::-1]].cumsum()
        recall = hits / sum(map(len, boxes_of))
        precision = hits / np.arange(1, len(hits) + 1)
        precision = np.maximum.accumulate(precision[::-1])[::-1]  # the best at this recall or beyond
        areas.append(float((np.diff(recall, prepend=0.0) * precision).sum()))
    return float(np.mean(areas))


def main(words: list[str] | None = None) -> dict[str, float]:
    """Fine-tunes, measures, prints; returns AP, AP50 and AP75."""
    parser = argparse.ArgumentParser(description="Faster R-CNN C4 around an encoder, on drawn shapes.")
    parser.add_argument("encoder", type=Path, help="what `fullrank export --to torchvision` wrote")
    parser.add_argument("--random", action="store_true", help="start from random weights instead, to compare")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--images", type=int, default=200, help="to fine-tune on")
    parser.add_argument("--test-images", type=int, default=100)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(words)
    torch.manual_seed(args.seed)
    net = detector(args.encoder, args.size, args.random, len(SHAPES))
    finetune(net, *scenes(args.images, 1, args.size), args)
    images, targets = scenes(args.test_images, 2, args.size)
    found = detect(net, images)
    at = {overlap: average_precision(found, targets, overlap / 100) for overlap in range(50, 100, 5)}
    result = {"AP": float(np.mean(list(at.values()))), "AP50": at[50], "AP75": at[75]}
    print("   ".join(f"{name} {100 * value:.1f}" for name, value in result.items()))
    return result


if __name__ == "__main__":
    main()
