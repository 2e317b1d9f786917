"""fullrank: self-supervised encoders without negatives, watched for collapse.

Example:
    >>> import fullrank, torch
    >>> z = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    >>> fullrank.audit(z).verdict.kind
    'healthy'
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"
__all__ = [
    "__version__",
    "adapt",
    "audit",
    "compare",
    "create_method",
    "cure",
    "embed",
    "evaluate",
    "explain_loss",
    "export",
    "list_methods",
    "list_metrics",
    "open_encoder",
    "pick",
    "resume",
    "train",
]


def __getattr__(name: str) -> Any:
    """A function of `fullrank.api`, imported when it is first asked for."""
    if name in __all__:
        return getattr(importlib.import_module("fullrank.api"), name)
    raise AttributeError(f"module 'fullrank' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
