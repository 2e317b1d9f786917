"""Baselines: computed, they are what simulated isotropic rows read, and every surface prints the same."""

from collections.abc import Callable

import pytest
import torch

from expect import known
from fullrank.collapse import Moments, Panel
from fullrank.collapse.baselines import baseline


@pytest.mark.parametrize(
    ("n", "erank", "ratio", "auc"),
    [
        (256, 236, 170, 0.807),
        (512, 411, 255, 0.681),
        (1024, 474, 341, 0.612),
        (5120, 505, 465, 0.547),
        (25600, 511, 502, 0.521),
    ],
)
def test_the_table_of_the_literature(n: int, erank: float, ratio: float, auc: float) -> None:
    assert baseline("erank_centred", n, 512) == pytest.approx(erank, rel=0.01)
    assert baseline("participation_ratio", n, 512) == pytest.approx(ratio, rel=0.01)
    assert baseline("auc", n, 512) == pytest.approx(auc, rel=0.01)


@pytest.mark.parametrize(("n", "d"), [(64, 200), (100, 100), (101, 100), (500, 64), (3000, 16), (2000, 2)])
def test_simulated_rows_read_their_null(gaussian: Callable[..., torch.Tensor], n: int, d: int) -> None:
    z = gaussian(n, d)
    panel = Panel.from_moments("z", Moments.of(z), points=z, pairs=(z, gaussian(n, d, seed=1)))
    of_clusters = ("linked_share", "tight_clusters")  # whose null is measured beside them
    judged = [measure for measure in panel.measures.values() if measure.name not in of_clusters]
    assert len(judged) == 9
    for measure in judged:
        tolerance = 0.06 if measure.name == "alignment" else 0.02
        assert measure.value == pytest.approx(measure.null, rel=tolerance), measure.name


@pytest.mark.parametrize(("n", "d"), [(1, 1), (1, 5), (2, 1), (2, 5), (3, 2)])
def test_the_smallest_sizes_have_baselines(n: int, d: int) -> None:
    # One centred row has no directions; otherwise a rank is between one and what n and d allow.
    erank = baseline("erank_centred", n, d)
    assert erank is None if n == 1 else 1 <= known(erank) <= min(n - 1, d) + 1e-9
    assert 1 <= known(baseline("rankme_unit", n, d)) <= min(n, d) + 1e-9
    assert known(baseline("uniformity", n, d)) < 0


def test_uniformity_on_the_line_and_the_circle() -> None:
    # d = 1: distances 0 and 2, half each. d = 2: exp(-4) I0(4).
    assert baseline("uniformity", 9, 1) == pytest.approx(torch.tensor((1 + 2.718281828**-8) / 2).log().item())
    assert baseline("uniformity", 9, 2) == pytest.approx(torch.special.i0e(torch.tensor(4.0)).log().item())
