"""CPLearn's and GEDI's analytic facts: their minima, their dictionary, and what has no NaN."""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods import build_method
from fullrank.methods.cplearn import CPLearn, cplearn_temperature
from fullrank.methods.gedi import GEDI, gedi_loss
from fullrank.networks.codes import SignDictionary, log_mean_of_codes
from methods.code_scores import loss_of_scores
from methods.shrunk import method, views

SURE = 1000.0  # a score beside zeros whose softmax is one-hot to the last bit


def scores(seed: int, n: int = 12, c: int = 20) -> Tensor:
    return torch.randn(n, c, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def one_hot(n: int, c: int) -> Tensor:
    """n rows that each choose a code of their own."""
    return SURE * torch.eye(n, c, dtype=torch.float64)


def spread(n: int, m: int, c: int) -> Tensor:
    """n rows that each spread evenly over m codes of their own."""
    return SURE * torch.eye(n * m, c, dtype=torch.float64).view(n, m, c).sum(dim=1)


def tiny(**options: Any) -> CPLearn:
    torch.manual_seed(0)
    built = build_method("cplearn", nn.Flatten(), 12, {"embedding_dim": 10, "num_codes": 33} | options)
    assert isinstance(built, CPLearn)
    return built


# CPLearn's loss


@pytest.mark.parametrize(("n", "c"), [(4, 64), (8, 16), (64, 2048), (16, 16), (1, 5)])
def test_identical_views_that_choose_codes_of_their_own_reach_log_c_over_n(n: int, c: int) -> None:
    z = one_hot(n, c)
    assert loss_of_scores([z, z])["loss"].item() == pytest.approx(math.log(c / n), abs=1e-9)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
def test_identical_views_that_use_all_codes_evenly_and_surely_reach_zero(beta: float) -> None:
    z = one_hot(16, 16).repeat(3, 1)
    assert loss_of_scores([z, z], beta)["loss"].item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("c", [2, 16, 1000])
def test_uniform_codes_cost_log_c(c: int) -> None:
    z = torch.zeros(8, c, dtype=torch.float64)
    terms = loss_of_scores([z, z])
    assert terms["loss"].item() == pytest.approx(math.log(c))
    assert terms["prior"].item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("beta", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("m", [1, 2, 8])
def test_spreading_over_m_codes_costs_beta_minus_one_times_log_m(beta: float, m: int) -> None:
    n, c = 6, 64
    loss = loss_of_scores([spread(n, m, c)] * 2, beta)["loss"].item()
    assert loss == pytest.approx(math.log(c / n) + (beta - 1) * math.log(m))


@pytest.mark.parametrize(("beta", "sign"), [(0.8, -1), (1.0, 0), (1.2, 1)])
def test_below_one_beta_rewards_fuzzy_codes_above_one_sure_ones_and_at_one_neither(
    beta: float, sign: int
) -> None:
    fuzzy, sure = (loss_of_scores([spread(6, m, 64)] * 2, beta)["loss"].item() for m in (4, 1))
    assert (0 if abs(fuzzy - sure) < 1e-9 else math.copysign(1, fuzzy - sure)) == sign


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("heat", [0.3, 3.0, 30.0])
def test_with_identical_views_no_scores_are_below_the_floor(seed: int, heat: float) -> None:
    z = heat * scores(seed, n=6, c=24)
    assert loss_of_scores([z, z])["loss"].item() >= math.log(24 / 6)


def test_the_loss_is_the_kl_of_the_mean_code_plus_the_mean_cross_entropy() -> None:
    z = [scores(0), scores(1)]
    p = [view.softmax(dim=1) for view in z]
    uniform = torch.full((20,), 1 / 20, dtype=torch.float64)
    prior = sum(F.kl_div(uniform.log(), view.mean(0), reduction="sum") for view in p) / 2
    invariance = (F.cross_entropy(z[0], p[1]) + F.cross_entropy(z[1], p[0])) / 2
    terms = loss_of_scores(z, beta=0.7)
    torch.testing.assert_close(terms["prior"], prior)
    torch.testing.assert_close(terms["invariance"], 0.7 * invariance)
    torch.testing.assert_close(terms["loss"], prior + 0.7 * invariance)


def test_the_gradient_is_that_of_a_cross_entropy_whose_targets_are_no_constants() -> None:
    first, second = scores(0).requires_grad_(), scores(1).requires_grad_()
    p = [view.softmax(dim=1) for view in (first, second)]
    by_hand = -(p[0] * p[1].log() + p[1] * p[0].log()).sum(dim=1).mean() / 2
    ours = loss_of_scores([first, second], 2.0)["loss"] - loss_of_scores([first, second])["loss"]
    wanted = torch.autograd.grad(by_hand, [first, second])
    torch.testing.assert_close(torch.autograd.grad(ours, [first, second]), wanted)


def test_the_forward_prior_is_the_kl_from_uniform_to_the_mean_code() -> None:
    z = [scores(0), scores(1)]
    uniform = torch.full((20,), 1 / 20, dtype=torch.float64)
    kl = sum(F.kl_div(view.softmax(1).mean(0).log(), uniform, reduction="sum") for view in z) / 2
    torch.testing.assert_close(loss_of_scores(z, prior="forward")["prior"], kl)


@pytest.mark.parametrize("prior", ["reverse", "forward"])
def test_cplearn_is_symmetric_in_the_views(prior: str) -> None:
    z = [scores(0), scores(1)]
    torch.testing.assert_close(loss_of_scores(z, prior=prior), loss_of_scores(z[::-1], prior=prior))


def test_three_views_are_the_mean_over_views_and_ordered_pairs() -> None:
    z = [scores(i) for i in range(3)]
    two = [loss_of_scores([z[a], z[b]]) for a, b in ((0, 1), (0, 2), (1, 2))]
    for term in ("prior", "invariance"):
        torch.testing.assert_close(loss_of_scores(z)[term], sum(terms[term] for terms in two) / 3)


@pytest.mark.parametrize("loss", [loss_of_scores, gedi_loss])
def test_the_cross_entropy_has_gradient_on_both_sides(loss: Any) -> None:
    first, second = scores(0).requires_grad_(), scores(1).requires_grad_()
    invariance = loss([first, second], 2.0)["loss"] - loss([first, second], 1.0)["loss"]
    gradients = torch.autograd.grad(invariance, [first, second])
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


@pytest.mark.parametrize("prior", ["reverse", "forward"])
@pytest.mark.parametrize("heat", [104.0, 1e3, 1e6])
def test_codes_without_mass_in_single_precision_give_no_nan(prior: str, heat: float) -> None:
    z = [torch.zeros(4, 8).requires_grad_() for _ in range(2)]
    only_first = [view + heat * torch.eye(8)[0] for view in z]
    assert (only_first[0].softmax(dim=1)[:, 1] == 0).all()
    terms = loss_of_scores(only_first, prior=prior)
    assert all(term.isfinite() for term in terms.values())
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(terms["loss"], z))


def test_one_code_for_all_costs_log_c_of_prior_and_nothing_else() -> None:
    z = SURE * torch.eye(8)[:1].expand(5, 8)
    terms = loss_of_scores([z, z])
    assert terms["prior"].item() == pytest.approx(math.log(8))
    assert terms["invariance"].item() == pytest.approx(0.0, abs=1e-6)


def test_the_mean_code_keeps_mass_that_probabilities_would_lose() -> None:
    log_p = torch.tensor([[-200.0, 0.0], [-300.0, 0.0]])
    assert log_mean_of_codes(log_p)[0].item() == pytest.approx(-200.0 - math.log(2))


# temperature and embedding


def test_the_temperature_of_the_reference_configuration_is_13_8975() -> None:
    assert cplearn_temperature(2048, 16384, 64, 1e-8) == pytest.approx(13.8975, abs=5e-5)


def test_an_aligned_embedding_scores_log_of_the_odds_in_theory_and_root_n_times_that_in_the_reference() -> (
    None
):
    n, f, c, eps = 64, 10, 33, 1e-8
    odds = math.log((1 - eps * (c - 1)) / eps)
    for temperature, factor in (("theory", 1.0), ("reference", math.sqrt(n))):
        m = tiny(temperature=temperature, temperature_rows=n).eval()
        code = m.dictionary.matrix(torch.zeros(1))[:, 3]
        aligned = 100.0 * code.expand(2, f)  # tanh of it is the code
        m.projector.register_forward_hook(lambda *_, aligned=aligned: aligned)
        top = m.embed(torch.zeros(2, 3, 2, 2))["codes"][0, 3].item()
        assert top == pytest.approx(factor * odds, rel=1e-4)


def test_scores_are_embeddings_times_dictionary_over_temperature() -> None:
    m = tiny(temperature_rows=64)
    taps = m.eval().embed(torch.randn(5, 3, 2, 2))
    w = m.dictionary.matrix(taps["projector"])
    torch.testing.assert_close(taps["codes"], taps["projector"] @ w / cplearn_temperature(10, 33, 64))


def test_evaluation_keeps_the_temperature_of_the_training_batch_whatever_comes_in() -> None:
    m = tiny()
    m.train().loss([torch.randn(16, 3, 2, 2) for _ in range(2)])
    x = torch.randn(7, 3, 2, 2)
    m.eval()
    torch.testing.assert_close(m.embed(x)["codes"][:3], m.embed(x[:3])["codes"])


def test_an_l2_embedding_has_the_length_of_a_code() -> None:
    e = tiny(normalise="l2").embed(torch.randn(16, 3, 2, 2))["projector"]
    torch.testing.assert_close(e.norm(dim=1), torch.full((16,), 10**0.5))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"eps": 0.0}, "eps lies in"),
        ({"num_codes": 100, "eps": 0.01}, "eps lies in"),
        ({"temperature_rows": -1}, "temperature-rows must not be negative"),
        ({"dictionary_seed": -1}, "dictionary-seed must not be negative"),
    ],
)
def test_a_knob_of_cplearn_out_of_range_is_refused(options: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        tiny(**options)


# the dictionary


@pytest.mark.parametrize(("f", "c"), [(4, 6), (10, 33), (64, 256)])
def test_the_dictionary_holds_signs(f: int, c: int) -> None:
    w = SignDictionary(f, c, seed=0).matrix(torch.zeros(1))
    assert w.shape == (f, c)
    assert set(w.flatten().tolist()) == {-1.0, 1.0}


def test_the_signs_are_fair_and_independent() -> None:
    w = SignDictionary(256, 1024, seed=0).matrix(torch.zeros(1, dtype=torch.float64))
    assert abs(w.mean().item()) < 5 / 512  # five standard deviations
    cosines = (w.T @ w / 256).masked_select(~torch.eye(1024, dtype=torch.bool))
    assert cosines.var().item() == pytest.approx(1 / 256, rel=0.05)


def test_the_dictionary_is_decided_by_its_seed_and_not_by_any_global_state() -> None:
    def drawn(seed: int, everywhere: int) -> Tensor:
        torch.manual_seed(everywhere)
        np.random.seed(everywhere)  # noqa: NPY002
        return SignDictionary(8, 40, seed).bits

    assert torch.equal(drawn(0, 1), drawn(0, 2))
    assert not torch.equal(drawn(0, 1), drawn(1, 1))


def test_making_the_dictionary_draws_nothing_from_the_global_state() -> None:
    before = torch.get_rng_state()
    SignDictionary(8, 40, seed=0)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(("f", "c"), [(64, 256), (5, 7), (1, 1)])
def test_the_state_is_a_thirty_second_of_the_floats(f: int, c: int) -> None:
    bits = SignDictionary(f, c, 0).state_dict()["bits"]
    assert bits.numel() * bits.element_size() == -(-f * c * 4 // 32)


@pytest.mark.parametrize(("f", "c"), [(64, 256), (5, 7)])
def test_the_bits_make_the_round_trip_through_a_file(f: int, c: int) -> None:
    first, second, file = SignDictionary(f, c, 0), SignDictionary(f, c, 1), io.BytesIO()
    torch.save(first.state_dict(), file)
    second.matrix(torch.zeros(1))  # made before, of the other signs
    second.load_state_dict(torch.load(io.BytesIO(file.getvalue()), weights_only=True))
    assert torch.equal(first.matrix(torch.zeros(1)), second.matrix(torch.zeros(1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_matrix_comes_in_the_type_that_is_asked_for(dtype: torch.dtype) -> None:
    codes = SignDictionary(4, 6, 0)
    codes.matrix(torch.zeros(1))
    w = codes.matrix(torch.zeros(1, dtype=dtype))
    assert w.dtype == dtype
    assert torch.equal(w.float(), codes.matrix(torch.zeros(1)))


def test_a_reference_state_with_float_codes_loads() -> None:
    m = tiny()
    signs = torch.randn(10, 33, generator=torch.Generator().manual_seed(3)).sign()
    state = {k: v for k, v in m.state_dict().items() if k not in ("dictionary.bits", "batch_rows")}
    given = state | {"code_matrix": signs}
    m.load_state_dict(given)
    assert torch.equal(m.dictionary.matrix(torch.zeros(1)), signs)
    assert "code_matrix" in given  # what was passed is as it was


def test_a_reference_dictionary_of_another_size_is_refused_even_with_as_many_signs() -> None:
    m = tiny()
    with pytest.raises(UsageError, match=r"has \(33, 10\) signs, not \(10, 33\)"):
        m.load_state_dict(m.state_dict() | {"code_matrix": torch.ones(33, 10)})


def test_nothing_of_the_dictionary_is_trained() -> None:
    assert not [name for name, _ in tiny().named_parameters() if "dictionary" in name]


# GEDI


@pytest.mark.parametrize("c", [8, 2048])
def test_gedis_prior_is_c_log_c_where_all_codes_are_used_alike_and_no_less_elsewhere(c: int) -> None:
    uniform = torch.zeros(4, c, dtype=torch.float64)
    assert gedi_loss([uniform, uniform])["prior"].item() == pytest.approx(c * math.log(c))
    assert gedi_loss([scores(0, 4, c)] * 2)["prior"].item() > c * math.log(c)


def test_gedis_prior_is_the_sum_of_minus_log_mean_codes_of_the_first_view() -> None:
    first, second = scores(0), scores(1)
    by_hand = -first.softmax(dim=1).mean(dim=0).log().sum()
    torch.testing.assert_close(gedi_loss([first, second])["prior"], by_hand)


def test_gedis_first_view_meets_the_codes_of_the_second() -> None:
    first, second = scores(0), scores(1)
    by_hand = 0.3 * F.cross_entropy(first, second.softmax(dim=1))
    torch.testing.assert_close(gedi_loss([first, second], beta=0.3)["invariance"], by_hand)


def test_gedis_loss_is_half_of_both_terms() -> None:
    terms = gedi_loss([scores(0), scores(1)])
    torch.testing.assert_close(terms["loss"], 0.5 * (terms["prior"] + terms["invariance"]))


@pytest.mark.parametrize("term", ["prior", "invariance"])
def test_gedi_is_not_symmetric_in_the_views(term: str) -> None:
    first, second = scores(0), scores(1)
    there, back = gedi_loss([first, second])[term], gedi_loss([second, first])[term]
    assert not torch.isclose(there, back)


def test_gedis_prior_gives_the_second_view_no_gradient() -> None:
    first, second = scores(0).requires_grad_(), scores(1).requires_grad_()
    gradients = torch.autograd.grad(gedi_loss([first, second])["prior"], [first, second], allow_unused=True)
    assert gradients[0].abs().sum() > 0
    assert gradients[1] is None


def test_gedis_codes_without_mass_in_single_precision_give_no_nan() -> None:
    z = [torch.zeros(4, 8).requires_grad_() for _ in range(2)]
    terms = gedi_loss([view + SURE * torch.eye(8)[0] for view in z])
    assert all(term.isfinite() for term in terms.values())
    assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(terms["loss"], z))


def test_gedi_divides_its_scores_by_the_temperature() -> None:
    warm, cold = method("gedi", temperature=1.0).eval(), method("gedi", temperature=0.1).eval()
    assert isinstance(warm, GEDI)
    x = views()[0]
    torch.testing.assert_close(10.0 * warm.embed(x)["codes"], cold.embed(x)["codes"])


# what the loss is for


def perplexity_and_rank(seed: int, prior_weight: float, steps: int = 150) -> tuple[float, float]:
    """How many codes are in use, and of how many dimensions embeddings are, after training a small net."""
    torch.manual_seed(seed)
    n, f, c = 64, 8, 128
    x = torch.randn(n, 16)
    net = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, f), nn.Tanh())
    w = SignDictionary(f, c, seed).matrix(x)
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(steps):
        z = [net(x + 0.1 * torch.randn_like(x)) @ w / cplearn_temperature(f, c, n) for _ in range(2)]
        once, twice = (loss_of_scores(z, beta)["loss"] for beta in (1.0, 2.0))
        optimizer.zero_grad()
        (once if prior_weight else twice - once).backward()
        optimizer.step()
    with torch.no_grad():
        e = net(x)
        mean = (e @ w / cplearn_temperature(f, c, n)).softmax(dim=1).mean(dim=0)
        share = torch.linalg.svdvals(e - e.mean(0))
        share = share / share.sum()
    return float(torch.special.entr(mean).sum().exp()), float(torch.special.entr(share).sum().exp())


@pytest.mark.parametrize("seed", range(3))
def test_the_prior_is_what_keeps_images_from_sharing_a_few_codes(seed: int) -> None:
    (used, rank), (used_without, _) = perplexity_and_rank(seed, 1.0), perplexity_and_rank(seed, 0.0)
    assert used > 40  # of 64 images
    assert rank > 7  # of 8 dimensions
    assert used_without < 20
