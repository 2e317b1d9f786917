"""Peak memory of a computation, counted without carrying it out."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Count the bytes of tensors that are alive, on `meta` those that they would take.

    Example:
        >>> with LiveMemory() as memory:
        ...     a = torch.empty(1000, device="meta")
        ...     b = a + (a + 1)
        >>> memory.peak, memory.now
        (12000, 8000)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor):
                self._take_in(leaf.untyped_storage())
        return result

    def _take_in(self, storage: Any) -> None:
        key = id(storage)  # PyTorch keeps one Python object a storage
        if key in self._sizes:
            return
        self._sizes[key] = storage.nbytes()
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self.now -= self._sizes.pop(key, 0)


class _Attention(torch.autograd.Function):
    """Shapes of fused attention, which keeps no matrix of all pairs of tokens."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = q.new_empty(*q.shape[:-1], v.shape[-1])
        ctx.save_for_backward(q, k, v, out)
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v, _ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


@contextmanager
def fused_attention() -> Iterator[None]:
    """Take attention to be fused, as it is but on `meta`; for shapes alone.

    With dropout it is not, on a CPU. A mode for functions would not be seen by checkpointed blocks, which run
    again within `backward`.
    """

    plain = F.scaled_dot_product_attention

    def shapes(
        query: Tensor, key: Tensor, value: Tensor, attn_mask: Any = None, dropout_p: float = 0.0, **more: Any
    ) -> Any:
        if dropout_p:
            return plain(query, key, value, attn_mask, dropout_p, **more)
        return _Attention.apply(query, key, value)

    F.scaled_dot_product_attention = shapes  # type: ignore[assignment]
    try:
        yield
    finally:
        F.scaled_dot_product_attention = plain
