"""Clusterings and how they agree with classes: scikit-learn's numbers, and no flattery unsaid."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import Tensor

from fullrank.collapse.kmeans import SAMPLE
from fullrank.errors import UsageError
from fullrank.probes import (
    by_first_choice,
    by_kmeans,
    by_legacy_argmax,
    cluster_agreement,
    kmeans,
)


def clouds(n: int, k: int, seed: int, spread: float = 1.0, d: int = 16) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(k, (n,), generator=generator)
    centres = 3 * torch.randn(k, d, generator=torch.Generator().manual_seed(8))
    return centres[labels] + spread * torch.randn(n, d, generator=generator), labels


def numbers(n: int, most: int, seed: int) -> Tensor:
    return torch.randint(most, (n,), generator=torch.Generator().manual_seed(seed))


def test_information_and_pairs_are_scikit_learns() -> None:
    from sklearn import metrics

    assigned, labels = numbers(300, 7, 0), numbers(300, 4, 1)
    assigned[:150] = labels[:150]
    found = cluster_agreement(assigned, labels)
    pair = labels.numpy(), assigned.numpy()
    assert found.nmi == metrics.normalized_mutual_info_score(*pair)
    assert found.ami == metrics.adjusted_mutual_info_score(*pair)
    assert found.ari == metrics.adjusted_rand_score(*pair)


def test_accuracy_is_that_of_the_best_renaming() -> None:
    assigned, labels = numbers(60, 4, 0), numbers(60, 4, 1)
    best = max(
        float((torch.tensor(names)[assigned] == labels).double().mean())
        for names in itertools.permutations(range(4))
    )
    assert cluster_agreement(assigned, labels).accuracy == pytest.approx(best)


def test_purity_counts_the_most_frequent_class() -> None:
    found = cluster_agreement(torch.tensor([0, 0, 0, 1, 1, 4]), torch.tensor([0, 0, 1, 1, 1, 0]))
    assert found.purity == pytest.approx(5 / 6)
    assert (found.clusters, found.used, found.classes) == (5, 3, 2)


def test_over_clustering_is_said_and_has_no_accuracy() -> None:
    labels = torch.arange(3).repeat(10)
    found = cluster_agreement(torch.arange(30), labels)
    assert found.purity == 1.0 and found.over_clustered and found.accuracy is None
    assert found.ari == pytest.approx(0.0, abs=1e-12)


def test_unused_clusters_count_as_clusters() -> None:
    labels = torch.arange(3).repeat(10)
    found = cluster_agreement(labels, labels, clusters=100)
    assert found.over_clustered and found.accuracy is None and found.used == 3


def test_one_cluster_for_all_reads_zero() -> None:
    found = cluster_agreement(torch.zeros(40).long(), torch.arange(4).repeat(10), clusters=4)
    assert (found.nmi, found.ari, found.perplexity, found.entropy) == (0.0, 0.0, 1.0, 0.0)
    assert found.accuracy == found.purity == 0.25


def test_clusters_used_alike_have_the_largest_perplexity() -> None:
    found = cluster_agreement(torch.arange(8).repeat(5), torch.arange(8).repeat(5))
    assert found.perplexity == pytest.approx(8.0) and found.entropy == pytest.approx(1.0)


def test_unlabelled_rows_do_not_count() -> None:
    assigned, labels = numbers(100, 4, 0), numbers(100, 4, 1)
    known = torch.arange(100) % 3 > 0
    assert cluster_agreement(assigned, labels.where(known, -1), 4) == cluster_agreement(
        assigned[known], labels[known], 4
    )


def test_codes_are_first_choices() -> None:
    scores, labels = torch.randn(50, 6, generator=torch.Generator().manual_seed(0)), numbers(50, 3, 1)
    found = by_first_choice(scores, labels)
    assert found.origin == "codes"
    assert found.agreement == cluster_agreement(scores.argmax(1), labels, 6)


def test_the_legacy_argmax_says_that_it_is_one_and_turns_with_the_features() -> None:
    rows, labels = clouds(400, 4, 0)
    rotation, _ = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))
    first, turned = by_legacy_argmax(rows, labels), by_legacy_argmax(rows @ rotation, labels)
    assert first.origin == "legacy argmax of features"
    assert first.agreement.nmi != turned.agreement.nmi


def test_kmeans_finds_clear_clusters_on_three_seeds() -> None:
    rows, labels = clouds(600, 5, 0, 0.5)
    for seed in range(3):
        found = by_kmeans(rows, labels, seed=seed, restarts=5)
        assert found.agreement.accuracy == 1.0 and found.agreement.clusters == 5 and found.converged


def test_rows_without_a_label_take_part_in_kmeans() -> None:
    rows, labels = clouds(600, 5, 0, 0.5)
    found = by_kmeans(rows, labels.where(torch.arange(600) % 2 > 0, -1), restarts=5)
    assert found.agreement.rows == 300 and found.agreement.accuracy == 1.0


@pytest.mark.parametrize("spread", [1.0, 4.0])
def test_kmeans_takes_the_plain_steps(spread: float) -> None:
    """From the same start to a standstill, with all its shortcuts, it is where plain Lloyd is."""
    rows, _ = clouds(2500, 12, 0, spread)
    rows = rows.double()
    start = rows[:12].clone()
    centres = start.clone()
    for _ in range(300):
        nearest = torch.cdist(rows, centres).argmin(1)
        centres = torch.stack([rows[nearest == c].mean(0) for c in range(12)])
    found = kmeans(rows, 12, start=start, tolerance=0.0)
    assert found.converged
    torch.testing.assert_close(found.centres, centres)
    assert torch.equal(found.nearest, torch.cdist(rows, centres).argmin(1))
    assert found.inertia == pytest.approx(float((rows - centres[nearest]).square().sum()))


def test_samples_end_as_low_as_scikit_learn() -> None:
    from sklearn.cluster import KMeans

    rows, _ = clouds(4000, 30, 0, 3.0)
    assert len(rows) > SAMPLE * 10
    ours = sum(kmeans(rows, 10, seed=seed).inertia for seed in range(6)) / 6
    theirs = sum(KMeans(10, n_init=1, random_state=s).fit(rows.numpy()).inertia_ for s in range(6)) / 6
    assert ours <= 1.02 * theirs


def test_the_same_seed_gives_the_same_clusters() -> None:
    rows, _ = clouds(1500, 8, 0, 3.0)
    first, second = kmeans(rows, 8, seed=4), kmeans(rows, 8, seed=4)
    assert torch.equal(first.nearest, second.nearest) and first.inertia == second.inertia


def test_more_clusters_than_different_rows_do_no_harm() -> None:
    found = kmeans(torch.eye(3).repeat(5, 1), 6)
    assert found.inertia == pytest.approx(0.0, abs=1e-9) and bool(found.centres.isfinite().all())


def test_one_cluster_is_the_mean() -> None:
    rows, _ = clouds(100, 3, 0)
    torch.testing.assert_close(kmeans(rows, 1).centres[0], rows.mean(0))


def test_results_are_json_on_one_level() -> None:
    rows, labels = clouds(100, 3, 0)
    found = by_kmeans(rows, labels)
    flat = json.loads(json.dumps(found.as_dict()))
    assert flat["origin"] == "k-means" and flat["over_clustered"] is False and flat["nmi"] <= 1


def test_what_cannot_be_clustered_is_said_in_one_line() -> None:
    rows, labels = clouds(30, 3, 0)
    with pytest.raises(UsageError, match="none of the 30"):
        by_first_choice(rows, labels * 0 - 1)
    with pytest.raises(UsageError, match="none of the 30"):
        by_kmeans(rows, labels * 0 - 1)
    with pytest.raises(UsageError, match="two classes"):
        by_kmeans(rows, labels * 0)
    with pytest.raises(UsageError, match="finite"):
        by_first_choice(rows * torch.nan, labels)
    with pytest.raises(UsageError, match="1 to 30 clusters"):
        kmeans(rows, 31)
    with pytest.raises(UsageError, match="one integer a row"):
        cluster_agreement(labels.float(), labels)
    with pytest.raises(UsageError, match="numbered from 0 to 1"):
        cluster_agreement(labels, labels, clusters=2)
