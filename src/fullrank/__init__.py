"""fullrank: train self-supervised encoders without negatives, and see collapse coming.

Example:
    >>> import fullrank, torch
    >>> z = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0))
    >>> fullrank.audit(z).verdict.kind
    'healthy'
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["__version__", "audit"]
__version__ = "0.1.0"

# by name, so that importing the package stays instant and no storey leans on the front door
_FRONT_DOOR = {"audit": "fullrank.report.audit.call"}


def __getattr__(name: str) -> Any:
    if name in _FRONT_DOOR:
        return getattr(importlib.import_module(_FRONT_DOOR[name]), name)
    raise AttributeError(f"module 'fullrank' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_FRONT_DOOR])
