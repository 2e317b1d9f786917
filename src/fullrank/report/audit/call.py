"""`fullrank.audit`: an audit in one call."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fullrank.collapse.audit import SAMPLE
from fullrank.collapse.thresholds import Thresholds
from fullrank.report.audit.subjects import AuditOptions, audit_subject
from fullrank.report.audit.terminal import AuditView

__all__ = ["audit"]


def audit(
    what: Tensor | np.ndarray | Path | str | Any,
    *,
    labels: Tensor | np.ndarray | Sequence[int] | Path | str | None = None,
    key: str | None = None,
    data: str | None = None,
    tap: str | None = None,
    codes: bool = False,
    thresholds: Thresholds | None = None,
    metrics: Sequence[str] | None = None,
    sample: int = SAMPLE,
    limit: int | None = None,
    download: bool = False,
) -> AuditView:
    """Judge whether an embedding has collapsed and how, with the evidence.

    Args:
        what: a matrix [n, d]; a file or folder of embeddings; or, with `data`, an encoder: a name of timm,
            torchvision or Hugging Face, a checkpoint, a run directory (which knows its data).
        labels: a class per row, or a file of them, for the metrics of classes.
        key: the array, where a file holds several.
        data: the images that an encoder is fed with: a folder, or a name of `fullrank list data`.
        tap: where to look into an encoder; its features by default.
        codes: whether the rows are scores (logits) over codes or prototypes.
        thresholds: what the verdict depends on.
        metrics: names of `METRICS`; None takes all that the rows allow, but for three slow ones.
        sample: rows that are compared with each other, at most.
        limit: images that an encoder is fed with, at most.
        download: fetch weights or data that are not there.

    Returns:
        The audit; a notebook and `print` show it, `.write("folder")` leaves a page.

    Raises:
        UsageError: nothing that can be audited, in one line that says why.

    Example:
        >>> import fullrank, torch
        >>> z = torch.randn(1000, 3) @ torch.randn(3, 64)
        >>> fullrank.audit(z).verdict.kind
        'dimensional'
    """
    options = AuditOptions(
        key=key,
        data=data,
        taps=(tap,) if tap else None,
        codes=codes,
        thresholds=thresholds,
        metrics=None if metrics is None else tuple(metrics),
        sample=sample,
        limit=limit,
        download=download,
    )
    if isinstance(labels, Tensor):
        labels = labels.detach().cpu().numpy()
    return next(iter(audit_subject(what, options, labels).values()))
