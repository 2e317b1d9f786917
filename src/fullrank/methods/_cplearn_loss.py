"""CPLearn's loss with one matrix of rows by codes in memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd.function import once_differentiable

from fullrank.methods._base import check_views
from fullrank.networks.codes import SignDictionary
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import world

ELEMENTS = 1 << 21  # of a block of scores; what is made of them then stays in the processor's cache


def cplearn_loss(
    e: Sequence[Tensor],
    dictionary: SignDictionary,
    scale: float,
    beta: float = 1.0,
    prior: str = "reverse",
    everywhere: bool = True,
) -> dict[str, Tensor]:
    """CPLearn's prior and invariance of the scores z = scale * e @ W of views.

    With P = softmax(z) and pbar its mean over the batch: prior = KL(pbar || uniform) = sum_j pbar_j log(c
    pbar_j) (`reverse`), or KL(uniform || pbar) (`forward`), averaged over views; invariance = beta mean_i
    CE(P_b[i], P_a[i]) averaged over ordered pairs. Gradients flow through both arguments of every term.

    Scores are the only matrix of rows by codes in memory: probabilities, gradients and, where it is large, W
    are made block by block. All is in single precision but for one product: the gradient by bfloat16
    embeddings is taken from bfloat16 factors, of which W is exact.

    Args:
        e: per view, embeddings [n, f].
        dictionary: W [f, c].
        scale: one over the temperature.
        beta: weight of the invariance.
        prior: `reverse` or `forward`.
        everywhere: pbar over the rows of all processes, else of this one.

    Returns:
        `loss`, and without gradient `prior` and `invariance`. With views that agree and beta 1 the loss is at
        least log(c / n).

    Example:
        >>> e = [torch.ones(3, 4), torch.ones(3, 4)]
        >>> terms = cplearn_loss(e, SignDictionary(4, 8, seed=0), scale=0.0)
        >>> round(terms["invariance"].item(), 4), round(math.log(8), 4)
        (2.0794, 2.0794)
    """
    check_views(e)
    rows = torch.cat(list(e))
    backward = torch.bfloat16 if rows.dtype == torch.bfloat16 else None
    apply = in_full_precision(_Blockwise.apply)
    loss, of_prior, invariance = apply(rows, dictionary, len(e), scale, beta, prior, everywhere, backward)
    return {"loss": loss, "prior": of_prior, "invariance": invariance}


class _Blockwise(torch.autograd.Function):
    """log P of V views, [V, n, c], is kept.

    With m_vj the log of code j's mean probability over the N rows that are counted, the gradient by the
    scores is

        k (sum_b P_b - V P_v + P_v (L_v - r_v)) + u_v - P_v t_v,   t_v = sum_j u_v,

    where L_v sums log P over the other views, r_v = sum_j P_v L_v, and k = -beta / (V (V - 1) n). u comes
    from the prior: P (log c + m + 1) / (V N) if it is reverse, and -P exp(-m) / (V c N) if it is forward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        e: Tensor,
        dictionary: SignDictionary,
        views: int,
        scale: float,
        beta: float,
        prior: str,
        everywhere: bool,
        backward: torch.dtype | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        n, c = len(e) // views, dictionary.shape[1]
        scores = e.new_empty(len(e), c)
        for at, w in dictionary.blocks(e):
            torch.mm(e, w, out=scores[:, at])
        for part in torch.split(scores, max(1, ELEMENTS // c)):
            part.mul_(scale).sub_(part.logsumexp(1, keepdim=True))
        log_p = scores.view(views, n, c)

        m = torch.cat([log_p[..., at].logsumexp(1) for at in _blocks(log_p)], dim=1)
        counted = n * (world()[1] if everywhere else 1)
        if counted > n:
            largest = m.clone()
            dist.all_reduce(largest, op=dist.ReduceOp.MAX)
            total = (m - largest).exp()
            dist.all_reduce(total)
            m = total.log() + largest
        m -= math.log(counted)
        if prior == "reverse":
            of_prior = (m.exp() * (math.log(c) + m)).sum(1).mean()
            d = (math.log(c) + m + 1) / (views * counted)
        else:
            of_prior = -(math.log(c) + m).mean()
            d = torch.full_like(m, -1.0 / (views * c * counted))

        r, t = e.new_zeros(views, n, 1), e.new_zeros(views, n, 1)
        for at in _blocks(log_p):
            block = log_p[..., at]
            p = block.exp()
            r += (block.sum(0) - block).mul_(p).sum(2, keepdim=True)
            t += _by_prior(prior, p, block, m[:, None, at], d[:, None, at]).sum(2, keepdim=True)
        k = -beta / (views * (views - 1) * n)
        invariance = k * r.sum()
        ctx.save_for_backward(log_p, m, d, r, t)
        ctx.dictionary, ctx.scale, ctx.k, ctx.prior, ctx.dtype = dictionary, scale, k, prior, backward
        ctx.everywhere = counted > n
        ctx.mark_non_differentiable(of_prior, invariance)
        return of_prior + invariance, of_prior, invariance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        log_p, m, d, r, t = ctx.saved_tensors
        views, n, _ = log_p.shape
        of_all = gradient.clone()
        if ctx.everywhere:  # every process's prior depends on every process's rows
            dist.all_reduce(of_all)
        by_rows = log_p.new_zeros(views * n, ctx.dictionary.shape[0])
        product = torch.empty_like(by_rows, dtype=ctx.dtype)
        for at, w in ctx.dictionary.blocks(product):
            for start in range(at.start, at.stop, step := _width(log_p)):
                part = slice(start, min(start + step, at.stop))
                block = log_p[..., part]
                p = block.exp()
                by_scores = (block.sum(0) - block).sub_(r).mul_(p).add_(p.sum(0)).sub_(p, alpha=views)
                by_scores.mul_(ctx.k * gradient)
                u = _by_prior(ctx.prior, p, block, m[:, None, part], d[:, None, part])
                by_scores.add_(u.sub_(p.mul_(t)).mul_(of_all))
                inside = slice(part.start - at.start, part.stop - at.start)
                torch.mm(by_scores.view(views * n, -1).to(w.dtype), w[:, inside].T, out=product)
                by_rows.add_(product, alpha=ctx.scale)
        return by_rows, *[None] * 7


def _by_prior(prior: str, p: Tensor, log_p: Tensor, m: Tensor, d: Tensor) -> Tensor:
    """u, new memory; of a forward prior also where p and its mean underflow."""
    return p * d if prior == "reverse" else (log_p - m).exp_().mul_(d)


def _width(log_p: Tensor) -> int:
    return max(64, ELEMENTS // (log_p.shape[0] * log_p.shape[1]))


def _blocks(log_p: Tensor) -> list[slice]:
    """Slices of the codes, so that a block of all rows holds about `ELEMENTS` scores."""
    c, width = log_p.shape[2], _width(log_p)
    return [slice(start, min(start + width, c)) for start in range(0, c, width)]
