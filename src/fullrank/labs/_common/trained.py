"""A training run's network again, for what the monitor does not measure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from fullrank.images.loader import evaluation_batches

if TYPE_CHECKING:
    from fullrank.training.setup import Setup


def reopen(run: Path, trained: bool = True) -> Setup:
    """Data, views and method of a run in eval mode, last checkpoint or untrained.

    Raises:
        UsageError: there is no run, or its data is not where it was.
    """
    from fullrank.training.launch import launch_fabric  # the lists of labs do without these
    from fullrank.training.run_dir import RunDir
    from fullrank.training.setup import prepare, setup

    folder = RunDir.open(run)
    fabric = launch_fabric(folder.config())
    config, data = prepare(folder.config(), fabric)
    s = setup(config, data, fabric)
    found = folder.checkpoints.newest() if trained else None
    if found is not None:
        s.method.load_state_dict(found.state["method"])
    s.method.eval()
    return s


@torch.no_grad()
def held_out_batches(s: Setup, most: int) -> Iterator[Tensor]:
    """At most `most` held-out images, untransformed: uint8 [b, 3, h, w], on device."""
    source = s.data.held_out
    if len(source) > most:
        import numpy as np

        source = source.subset(np.arange(most))
    size = None if source.image_size else s.config.image_size
    for _, images in evaluation_batches(source, 256, size, 0, 1, s.config.workers):
        yield images.to(s.fabric.device)


@torch.no_grad()
def held_out_taps(s: Setup, most: int) -> dict[str, Tensor]:
    """Layer outputs (taps) of at most `most` held-out images: float32 [n, d], CPU."""
    rows: dict[str, list[Tensor]] = {}
    for images in held_out_batches(s, most):
        for tap, batch in s.method.embed(s.views.clean(images)).items():
            rows.setdefault(tap, []).append(batch.float().cpu())
    return {tap: torch.cat(batches) for tap, batches in rows.items()}
