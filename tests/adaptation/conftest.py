"""A small encoder to adapt, and one thread: small convolutions wait for each other on several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import fullrank
from adaptation.helpers import SMALL, Adapt
from fullrank.adaptation.result import Adaptation
from one_thread import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained for a moment on shapes."""
    run = tmp_path_factory.mktemp("start") / "run"
    fullrank.train(
        "simsiam", out=run, data="shapes", limit=64, batch_size=32, epochs=1, image_size=16,
        backbone="resnet8-w4", accelerator="cpu", probe="off", diagnostics_every=0,
    )  # fmt: skip
    return run


@pytest.fixture(scope="session")
def adapt(start: Path, tmp_path_factory: pytest.TempPathFactory) -> Adapt:
    """Adapts the small encoder into a new folder, or into `out`."""

    def run(out: Path | None = None, settings: tuple[str, ...] = (), **changes: Any) -> Adaptation:
        folder = out or tmp_path_factory.mktemp("adapted") / "run"
        options: dict[str, Any] = SMALL | changes | {"settings": (*SMALL["settings"], *settings)}
        result: Adaptation = fullrank.adapt(start, out=folder, **options)
        return result

    return run


@pytest.fixture(scope="session")
def adapted(adapt: Adapt) -> Adaptation:
    """An adaptation that has ended."""
    return adapt()
