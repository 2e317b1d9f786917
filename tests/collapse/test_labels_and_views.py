"""Metrics of labels and of views: neural collapse, LiDAR and its grouping, what two views share."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from fullrank.collapse.metrics.classes import (
    cdnv,
    nc1_variability,
    nc2_equiangular,
    nc2_equinorm,
    nc3_self_duality,
    nc4_nearest_class,
    within_share,
)
from fullrank.collapse.metrics.views import ViewSums, dime, lidar
from fullrank.errors import UsageError

Rows = Callable[..., torch.Tensor]


# Labels.


def simplex(classes: int, each: int, d: int) -> tuple[torch.Tensor, torch.Tensor]:
    means = torch.eye(classes, d, dtype=torch.float64) - 1 / classes * (torch.arange(d) < classes)
    labels = torch.arange(classes * each) % classes
    return means[labels], labels


def test_neural_collapse_at_its_end_reads_zero_four_times(gaussian: Rows) -> None:
    z, labels = simplex(5, 20, 12)
    z = z @ torch.linalg.qr(gaussian(12, 12)).Q + 3
    weight = z[:5] - z[:5].mean(0)
    assert nc1_variability(z, labels) == pytest.approx(0, abs=1e-12)
    assert nc2_equinorm(z, labels) == pytest.approx(0, abs=1e-9)
    assert nc2_equiangular(z, labels) == pytest.approx(0, abs=1e-9)
    assert nc3_self_duality(z, labels, 7 * weight) == pytest.approx(0, abs=1e-12)
    assert nc3_self_duality(z, labels, -weight) == pytest.approx(4)
    bias = -3 * weight.sum(1)  # for the shift of the rows
    assert nc4_nearest_class(z, labels, weight, bias) == 0
    assert nc4_nearest_class(z, labels, weight.roll(1, 0), bias.roll(1)) == 1
    assert cdnv(z, labels) == pytest.approx(0, abs=1e-12)


def test_the_variability_of_classes_is_that_of_its_definition(gaussian: Rows) -> None:
    classes, d = 4, 10
    means, labels = 2 * gaussian(classes, d, seed=2), torch.arange(400) % 4
    z = means[labels] + gaussian(400, d) * torch.linspace(0.2, 2, d)
    mu = torch.stack([z[labels == c].mean(0) for c in range(classes)])
    within = (z - mu[labels]).T @ (z - mu[labels]) / 400
    centred = mu - mu.mean(0)
    between = centred.T @ centred / classes
    expected = torch.trace(within @ torch.linalg.pinv(between, rtol=1e-9)) / classes
    assert nc1_variability(z, labels) == pytest.approx(expected.item())
    variance = [z[labels == c].sub(mu[c]).square().sum(1).mean() for c in range(classes)]
    pairs = [
        (variance[a] + variance[b]) / (2 * (mu[a] - mu[b]).square().sum())
        for a in range(classes)
        for b in range(a)
    ]
    assert cdnv(z, labels) == pytest.approx(float(sum(pairs)) / len(pairs))
    norms = centred.norm(dim=1)
    assert nc2_equinorm(z, labels) == pytest.approx((norms.std(correction=0) / norms.mean()).item())


def test_labels_need_not_be_consecutive_and_must_fit(gaussian: Rows) -> None:
    z, labels = gaussian(30, 4), torch.arange(30) % 3
    assert nc1_variability(z, 10 * labels - 5) == nc1_variability(z, labels)
    assert nc1_variability(z, labels.int()) == nc1_variability(z, labels)
    one = torch.zeros(30, dtype=torch.long)
    assert nc1_variability(z, one) is nc2_equinorm(z, one) is nc2_equiangular(z, one) is cdnv(z, one) is None
    for bad in (labels[:5], labels.double(), [0, 1, 2]):
        with pytest.raises(UsageError, match="labels are"):
            within_share(z, bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="0 to 1"):
        nc4_nearest_class(z, labels, gaussian(2, 4))
    with pytest.raises(UsageError, match="classifier has weights"):
        nc3_self_duality(z, labels, gaussian(3, 5))


# Views.


def test_lidar_counts_what_tells_images_apart(gaussian: Rows) -> None:
    image, noise = gaussian(400, 16), gaussian(800, 16, seed=1).reshape(400, 2, 16)
    views = image[:, None] + 0.1 * noise
    assert lidar(views) == pytest.approx(16, rel=0.06)  # of 400 images
    four = image * (torch.arange(16) < 4)
    assert lidar(four[:, None] + 0.1 * noise) == pytest.approx(4, rel=0.1)
    assert lidar(noise) == pytest.approx(
        16, rel=0.1
    )  # no signal at all: eigenvalues of 1 / q in all directions


def test_lidar_is_wrong_way_round_where_views_are_grouped_wrongly(gaussian: Rows) -> None:
    # A batch is laid out as all first views, then all second views; its neighbours are other images.
    def both(images: torch.Tensor) -> torch.Tensor:
        return torch.cat([images + 0.05 * gaussian(1000, 64, seed=s) for s in (1, 2)])

    healthy = gaussian(1000, 64) * torch.arange(1, 65) ** -0.5
    collapsed = gaussian(1000, 64) * (torch.arange(64) < 4)
    right = [lidar(torch.stack(both(z).chunk(2), dim=1)) for z in (healthy, collapsed)]
    wrong = [lidar(both(z).reshape(-1, 2, 64)) for z in (healthy, collapsed)]
    assert right[0] > 5 * right[1]  # type: ignore[operator]
    assert right[1] == pytest.approx(4.4, rel=0.1)
    assert wrong[1] > 0.9 * wrong[0]  # type: ignore[operator]  # what had collapsed reads like what had not
    assert wrong[1] > 10 * right[1]  # type: ignore[operator]


def test_lidar_does_not_depend_on_the_unit_but_the_published_delta_does(gaussian: Rows) -> None:
    views = gaussian(100, 8)[:, None] + 0.1 * gaussian(200, 8, seed=1).reshape(100, 2, 8)
    assert lidar(1e-3 * views) == pytest.approx(lidar(views), rel=1e-9)
    assert lidar(1e-3 * views, relative=False) != pytest.approx(lidar(views, relative=False), rel=1e-3)


def test_lidar_has_no_value_at_complete_collapse_and_one_for_views_that_agree(gaussian: Rows) -> None:
    assert lidar(torch.full((20, 2, 4), 0.1)) is None
    assert lidar(torch.ones(20, 2, 4) * 1e8 + 1e-9) is None
    assert lidar(gaussian(1, 8).reshape(1, 2, 4)) is None
    same = gaussian(200, 8)[:, None].expand(200, 3, 8)
    assert lidar(same) == pytest.approx(8, rel=0.05)
    with pytest.raises(UsageError, match="2 or more views"):
        lidar(gaussian(20, 4)[:, None])


def test_sums_of_views_add_up(gaussian: Rows) -> None:
    views = gaussian(300, 6).reshape(100, 3, 6)
    sums = ViewSums(6)
    for part in views.split(33):
        sums.update(part)
    assert lidar(sums) == pytest.approx(lidar(views), rel=1e-12)


def test_dime_grows_with_what_views_share(gaussian: Rows) -> None:
    z, noise = gaussian(200, 32), gaussian(200, 32, seed=1)
    values = [dime(z, z + scale * noise) for scale in (0.1, 1.0, 10.0)]
    assert values[0] > values[1] > values[2]  # type: ignore[operator]
    assert dime(z, noise) == pytest.approx(0, abs=0.02)
    assert dime(z[:, :1], z[:, :1]) == pytest.approx(
        0, abs=1e-9
    )  # a single direction has no pairs to tell apart


@pytest.mark.parametrize("relative", [True, False])
def test_lidar_of_fewer_vectors_than_dimensions_is_that_of_their_sums(gaussian: Rows, relative: bool) -> None:
    image, noise = gaussian(30, 100)[:, None], gaussian(60, 100, 1).reshape(30, 2, 100)
    views = image + 0.3 * noise
    assert lidar(views, relative=relative) == pytest.approx(
        lidar(ViewSums.of(views), relative=relative), rel=1e-9
    )
    agreeing = image.expand(30, 2, 100)
    assert lidar(agreeing) == pytest.approx(lidar(ViewSums.of(agreeing)), rel=1e-9)


def test_dime_takes_one_pairing_and_not_none(gaussian: Rows) -> None:
    z = gaussian(40, 6)
    assert (dime(z, z, pairings=1) or 0.0) > 0.1
    with pytest.raises(UsageError, match="at least one pairing, not 0"):
        dime(z, z, pairings=0)
