"""Losses of half-precision rows, also under autocast, are those of the same rows in single precision."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fullrank.methods._closed_form import _product
from fullrank.methods._contrast import info_nce, nt_xent
from fullrank.methods._cplearn_loss import cplearn_loss
from fullrank.methods._two_branch import negative_cosine, regression_loss
from fullrank.methods.barlow_twins import barlow_loss
from fullrank.methods.cplearn import _scores
from fullrank.methods.distill import distill_loss
from fullrank.methods.gedi import gedi_loss
from fullrank.methods.isoloss import isoloss_cosine, isoloss_euclidean
from fullrank.methods.lejepa import epps_pulley, lejepa_loss, sigreg
from fullrank.methods.nnsiam import nearest
from fullrank.methods.vicreg import covariance, variance, vicreg_loss
from fullrank.methods.wmse import whiten, wmse_loss
from fullrank.networks.codes import SignDictionary


def made(seed: int, n: int = 24, d: int = 6) -> Tensor:
    """Rows that half precision holds exactly."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(n, d, generator=generator) + 0.3).bfloat16().float()


A, B = made(0), made(1)
SQUARE, POSITIVE = made(2, 6), made(3, 24, 6).abs()
DIRECTIONS, CODES = made(4, 6, 9), SignDictionary(6, 40, seed=0)
INDEX = torch.arange(12).repeat(2)

LOSSES: dict[str, Callable[[Callable[[Tensor], Tensor]], Any]] = {
    "nt_xent": lambda of: nt_xent(of(A), INDEX),
    "info_nce": lambda of: info_nce(of(A), of(B)),
    "negative_cosine": lambda of: negative_cosine(of(A), of(B)),
    "regression_loss": lambda of: regression_loss(of(A), of(B)),
    "regression_loss, euclidean": lambda of: regression_loss(of(A), of(B), "euclidean"),
    "barlow_loss": lambda of: barlow_loss([of(A), of(B)]),
    "scores of codes": lambda of: _scores(of(A), CODES, 0.5),
    "cplearn_loss": lambda of: cplearn_loss([of(A), of(B)], CODES, 0.7),
    "distill_loss": lambda of: distill_loss(of(A), of(B)),
    "distill_loss, cosine": lambda of: distill_loss(of(A), of(B), "cosine"),
    "gedi_loss": lambda of: gedi_loss([of(A), of(B)]),
    "isoloss_cosine": lambda of: isoloss_cosine(of(A), of(A.roll(1, 1)), of(POSITIVE[:, 0]), of(B)),
    "isoloss_euclidean": lambda of: isoloss_euclidean(of(A), of(A.roll(1, 1)), of(B)),
    "epps_pulley": lambda of: epps_pulley(of(A)),
    "sigreg": lambda of: sigreg(of(A), of(DIRECTIONS)),
    "lejepa_loss": lambda of: lejepa_loss([of(A), of(B)], of(DIRECTIONS)),
    "nearest": lambda of: nearest(of(A), of(B)),
    "nearest, cosine": lambda of: nearest(of(A), of(B), "cosine"),
    "variance": lambda of: variance(of(A)),
    "covariance": lambda of: covariance(of(A)),
    "vicreg_loss": lambda of: vicreg_loss([of(A), of(B)]),
    "whiten": lambda of: whiten(of(A)),
    "wmse_loss": lambda of: wmse_loss([of(A), of(B)]),
    "a predictor in closed form": lambda of: _product(of(A), of(SQUARE)),
}


def tensors(found: Any) -> list[Tensor]:
    return list(found.values()) if isinstance(found, dict) else [found]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("how", ["half", "autocast"])
def test_a_loss_is_taken_in_single_precision(name: str, how: str) -> None:
    loss = LOSSES[name]
    expected = tensors(loss(lambda z: z))
    if how == "half":
        # what is made of the rows before is rounded once
        expected = tensors(loss(lambda z: z.bfloat16().float()))
        found = tensors(loss(lambda z: z.bfloat16()))
    else:
        with torch.autocast("cpu", torch.bfloat16):
            found = tensors(loss(lambda z: z))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert torch.equal(one, other)
