"""lightly's losses and heads in this loop, and the monitor in its loops: with the real package."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from fullrank.integrations.loop import HeldOutWatch
from fullrank.methods import nt_xent
from fullrank.methods.barlow_twins import barlow_loss
from fullrank.methods.simsiam import simsiam_loss
from fullrank.methods.vicreg import vicreg_loss

DOCS = Path(__file__).parents[2] / "docs" / "integrations.md"


@pytest.fixture(autouse=True)
def lightly(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LIGHTLY_DID_VERSION_CHECK", "True")  # which would ask its host
    return pytest.importorskip("lightly")


def two(n: int = 16, d: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(2, n, d, generator=generator, dtype=torch.float64))


def test_nt_xent_is_that_of_lightly() -> None:
    a, b = two()
    theirs = import_module("lightly.loss").NTXentLoss(temperature=0.2)(a, b)
    ours = nt_xent(torch.cat([a, b]), torch.arange(16).repeat(2), 0.2)
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


def test_the_negative_cosine_is_that_of_lightly() -> None:
    p, z = two(), two()[::-1]
    negative_cosine = import_module("lightly.loss").NegativeCosineSimilarity()
    theirs = (negative_cosine(p[0], z[1]) + negative_cosine(p[1], z[0])) / 2
    assert simsiam_loss(p, z).item() == pytest.approx(theirs.item(), rel=1e-6)


def test_barlow_twins_loss_is_that_of_lightly() -> None:
    z = two()
    theirs = import_module("lightly.loss").BarlowTwinsLoss(lambda_param=0.0051)(*z)
    ours = barlow_loss(z, lamb=0.0051, scale=1.0)["loss"]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-4)  # lightly's batch norm has parameters


def test_vicreg_loss_averaged_over_views_is_that_of_lightly() -> None:
    z = two()
    theirs = import_module("lightly.loss").VICRegLoss()(*z)
    ours = vicreg_loss(z, variance_over_views="mean")["loss"]
    assert ours.item() == pytest.approx(theirs.item(), rel=1e-6)


@pytest.mark.parametrize("collapsed", [False, True])
def test_the_monitor_judges_an_encoder_with_a_head_of_lightly(collapsed: bool) -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.backbone = nn.Linear(8, 32)
            self.head = import_module("lightly.models.modules").SimCLRProjectionHead(32, 32, 16)
            if collapsed:
                nn.init.zeros_(self.backbone.weight)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            projected: torch.Tensor = self.head(self.backbone(x).flatten(1))
            return projected

    images = torch.randn(256, 8, generator=torch.Generator().manual_seed(0)).split(64)
    watch = HeldOutWatch(
        images, lambda net, x: {"backbone": net.backbone(x).flatten(1), "projector": net(x)}, shown=False
    )
    watch(Model())
    assert watch.report is not None and watch.report.verdict.collapsed == collapsed


@pytest.mark.slow
def test_the_method_with_a_loss_of_lightly_in_the_docs_is_trained(tmp_path: Path) -> None:
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
        if "lightly.loss" in block
    )
    small = code.replace('"epochs": 2,', '"epochs": 1, "limit": 256,')
    assert small != code
    (tmp_path / "example.py").write_text(small, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "level is" in done.stdout and list(tmp_path.glob("runs/*/encoder.safetensors"))
