"""What a method is made of: losses in single precision, heads, whole dictionaries, taps."""

from __future__ import annotations

import pytest
import torch

from fullrank.errors import UsageError
from fullrank.methods import METHODS, build_method, info_nce, nt_xent
from fullrank.methods._explain import explained
from fullrank.methods._fixed_points import Situation
from fullrank.methods.cplearn import _scores
from fullrank.networks.codes import BLOCK, SignDictionary

HALF = torch.randn(8, 4, generator=torch.Generator().manual_seed(0)).bfloat16()


def test_contrast_of_half_precision_rows_is_taken_in_single_precision() -> None:
    index = torch.arange(4).repeat(2)
    for loss, whole in (
        (nt_xent(HALF, index), nt_xent(HALF.float(), index)),
        (info_nce(HALF, HALF.roll(1, 0)), info_nce(HALF.float(), HALF.float().roll(1, 0))),
    ):
        assert loss.dtype == torch.float32
        assert float(loss) == float(whole)


def test_the_projector_of_rdm_simsiam_ends_in_a_batch_norm_as_its_reference_does() -> None:
    method = build_method("rdm_simsiam", torch.nn.Flatten(), 12)
    last = list(method.get_submodule("projector").modules())[-1]
    assert isinstance(last, torch.nn.BatchNorm1d)


def test_scores_of_a_dictionary_of_several_blocks_are_rows_by_all_codes() -> None:
    dictionary = SignDictionary(4, BLOCK + 8, seed=0)
    rows = HALF[:3].float()
    torch.testing.assert_close(_scores(rows, dictionary, 0.5), 0.5 * rows @ dictionary.matrix(rows))


@pytest.mark.parametrize("tolerance", [0.0, -0.5, float("inf"), float("nan")])
def test_a_loss_is_explained_with_a_tolerance_above_0(tolerance: float) -> None:
    at = Situation(n=8, views=2, config=METHODS["simclr"].Config())
    assert explained("simclr", METHODS["simclr"].fixed_points, 1.0, at).value == 1.0
    with pytest.raises(UsageError, match="must be above 0"):
        explained("simclr", METHODS["simclr"].fixed_points, 1.0, at, tolerance=tolerance)


@pytest.mark.parametrize("name", ["swav", "simsiam", "vicreg", "dino"])
def test_the_taps_of_a_step_are_those_of_the_first_view(name: str) -> None:
    torch.manual_seed(0)
    method = build_method(name, torch.nn.Flatten(), 12)
    views = [torch.randn(8, 3, 2, 2) + shift for shift in (0, 1)]
    step = method.loss(views)
    assert torch.equal(step.taps["backbone"].reshape(8, 12), views[0].flatten(1))
