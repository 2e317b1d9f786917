"""Safetensors whose bytes depend on nothing but their contents."""

from __future__ import annotations

import json
from collections.abc import Mapping

from safetensors.torch import save
from torch import Tensor

ALIGNED = 8  # bytes that the header is a multiple of, as the format has it


def safetensors_bytes(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """Tensors and texts as a safetensors file, the texts in the order of their names.

    The library itself writes them in an order that differs from process to process.

    Example:
        >>> import torch
        >>> one, other = (safetensors_bytes({"w": torch.ones(2)}, texts) for texts in (
        ...     {"a": "1", "b": "2"}, {"b": "2", "a": "1"}))
        >>> one == other
        True
    """
    written = save(dict(tensors), dict(metadata))
    end = 8 + int.from_bytes(written[:8], "little")
    header = json.loads(written[8:end])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    return len(text).to_bytes(8, "little") + text + written[end:]
