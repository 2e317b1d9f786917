"""The detection example starts from an exported encoder, moves every layer, and measures what it says."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank.encoders.export.writing import export_encoder

EXAMPLE = Path(__file__).parents[2] / "examples" / "detection" / "detect.py"


@pytest.fixture(scope="module")
def detect() -> Any:
    spec = importlib.util.spec_from_file_location("detect", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_boxes_hold_the_shapes_tightly(detect: Any) -> None:
    images, targets = detect.scenes(20, seed=0, size=96)
    bright = images.amax(1) > 0.3
    for seen, target in zip(bright, targets, strict=True):
        assert len(target["boxes"]) >= 1
        left_over = seen.clone()
        for x0, y0, x1, y1 in target["boxes"].int().tolist():
            inside = seen[y0:y1, x0:x1]
            assert inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            left_over[y0:y1, x0:x1] = False
        assert not left_over.any(), "nothing bright lies outside the boxes"


def test_average_precision_is_the_area_that_is_counted_by_hand(detect: Any) -> None:
    box = torch.tensor([[0.0, 0, 10, 10]])
    targets = [{"boxes": box, "labels": torch.tensor([1])}, {"boxes": box, "labels": torch.tensor([1])}]

    def found(*scored: tuple[float, float]) -> dict[str, torch.Tensor]:
        boxes = torch.tensor([[shift, 0, 10 + shift, 10] for shift, _ in scored]).view(-1, 4)
        scores = torch.tensor([score for _, score in scored])
        return {"boxes": boxes, "scores": scores, "labels": torch.ones(len(scored), dtype=torch.int64)}

    assert detect.average_precision([found((0, 0.9)), found((0, 0.8))], targets, 0.5) == 1
    assert detect.average_precision([found((0, 0.9)), found()], targets, 0.5) == 0.5
    # right, wrong, right: precision 1 up to recall 1/2, then 2/3 up to recall 1
    mixed = [found((0, 0.9), (0, 0.8)), found((0, 0.7))]
    assert detect.average_precision(mixed, targets, 0.5) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert detect.average_precision([found((5, 0.9)), found()], targets, 0.5) == 0, "an IoU of a third"


@pytest.mark.slow
def test_a_few_steps_from_an_exported_encoder(detect: Any, tmp_path: Path) -> None:
    export_encoder("timm:resnet18", "torchvision", tmp_path / "F", pretrained=False, image_size=64)
    weights = torch.load(tmp_path / "F" / "model.pth", weights_only=True)
    net = detect.detector(tmp_path / "F", 64, False, 10)
    for name, stage in (("conv1", net.backbone), ("layer3", net.backbone), ("layer4", None)):
        module = getattr(stage, name) if stage is not None else net.roi_heads.box_head[0]
        for key, value in module.state_dict().items():
            assert torch.equal(value, weights[f"{name}.{key}"])
    words = ["--steps", "3", "--batch", "2", "--images", "6", "--test-images", "4", "--size", "64"]
    result = detect.main([str(tmp_path / "F"), *words])
    assert list(result) == ["AP", "AP50", "AP75"] and all(0 <= value <= 1 for value in result.values())
