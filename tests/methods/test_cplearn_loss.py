"""CPLearn's loss block by block is the plain loss, in value and gradient."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck

from fullrank.methods import _cplearn_loss as blockwise
from fullrank.methods._cplearn_loss import cplearn_loss
from fullrank.networks import codes
from fullrank.networks.codes import SignDictionary
from methods.code_scores import plain_loss

PRIORS = pytest.mark.parametrize("prior", ["reverse", "forward"])


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small that every case has several, the last of them shorter."""
    monkeypatch.setattr(blockwise, "ELEMENTS", 64)
    monkeypatch.setattr(SignDictionary.blocks, "__defaults__", (16,))


def embeddings(views: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(5, 6, generator=generator, dtype=dtype).requires_grad_() for _ in range(views)]


@PRIORS
@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("scale", [0.1, 3.0])
def test_it_equals_the_plain_loss_in_value_and_gradient(prior: str, views: int, scale: float) -> None:
    e, dictionary = embeddings(views), SignDictionary(6, 37, seed=0)
    plain = plain_loss([scale * (x @ dictionary.matrix(x)) for x in e], 0.7, prior)
    ours = cplearn_loss(e, dictionary, scale, 0.7, prior)
    torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(2.0 * terms["loss"], e) for terms in (plain, ours)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@PRIORS
def test_its_gradient_is_that_of_its_value(prior: str) -> None:
    dictionary = SignDictionary(6, 37, seed=0)
    assert gradcheck(lambda *e: cplearn_loss(e, dictionary, 0.3, 0.7, prior)["loss"], embeddings(2))


@PRIORS
@pytest.mark.parametrize("scale", [1e3, 1e6])
def test_codes_without_mass_in_single_precision_give_no_nan(prior: str, scale: float) -> None:
    e = embeddings(2, torch.float32)
    terms = cplearn_loss(e, SignDictionary(6, 37, seed=0), scale, prior=prior)
    assert all(term.isfinite() for term in terms.values())
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(terms["loss"], e))


def test_half_precision_embeddings_get_a_single_precision_loss_and_a_gradient_of_their_own_type() -> None:
    e = embeddings(2, torch.bfloat16)
    loss = cplearn_loss(e, SignDictionary(6, 37, seed=0), 0.3)["loss"]
    assert loss.dtype == torch.float32
    assert {gradient.dtype for gradient in torch.autograd.grad(loss, e)} == {torch.bfloat16}


@PRIORS
def test_half_precision_embeddings_lose_nothing_but_the_last_bits_of_their_gradient(prior: str) -> None:
    generator, dictionary = torch.Generator().manual_seed(0), SignDictionary(64, 300, seed=0)
    coarse = [torch.randn(32, 64, generator=generator).bfloat16().requires_grad_() for _ in range(2)]
    fine = [x.detach().float().requires_grad_() for x in coarse]
    losses = [cplearn_loss(e, dictionary, 0.3, prior=prior)["loss"] for e in (coarse, fine)]
    assert torch.equal(*losses)
    for ours, exact in zip(*map(torch.autograd.grad, losses, (coarse, fine)), strict=True):
        assert (ours.float() - exact).norm() < 2**-8 * exact.norm()


@pytest.mark.parametrize("count", [16, 37, 48])
def test_blocks_made_one_at_a_time_are_those_of_the_matrix_that_is_kept(
    count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary, like = SignDictionary(6, count, seed=0), torch.zeros(1)
    kept = [(at, w.clone()) for at, w in dictionary.blocks(like)]
    monkeypatch.setattr(codes, "KEPT_BYTES", {"cpu": 0})
    fresh = SignDictionary(6, count, seed=0)
    for (at, w), (again, made) in zip(kept, fresh.blocks(like), strict=True):
        assert at == again
        assert torch.equal(w, made)
    assert not fresh._kept
