"""Probes as scikit-learn knows estimators, equal to the probes themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from fullrank.errors import UsageError
from fullrank.probes import knn_predict
from fullrank.probes.estimators import KNNProbe, LinearProbe

GENERATOR = np.random.default_rng(0)
LABELS = np.arange(120) % 4
ROWS = np.eye(8)[LABELS] * 2 + GENERATOR.standard_normal((120, 8))


@parametrize_with_checks([KNNProbe(k=1), LinearProbe()])  # type: ignore[untyped-decorator,unused-ignore]
def test_scikit_learn_takes_it_for_an_estimator(estimator: Any, check: Any) -> None:
    assert check(estimator) is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_neighbours_vote_as_in_the_probe(dtype: Any) -> None:
    rows = ROWS.astype(dtype)
    own = knn_predict(
        torch.from_numpy(rows[80:]), torch.from_numpy(rows[:80]), torch.from_numpy(LABELS[:80]), 7
    )
    assert KNNProbe(k=7).fit(rows[:80], LABELS[:80]).predict(rows[80:]).tolist() == own.tolist()


@pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
def test_the_linear_probe_is_scikit_learns(c: float) -> None:
    own = LinearProbe(C=c).fit(ROWS, LABELS).predict_proba(ROWS)
    peer = make_pipeline(StandardScaler(), LogisticRegression(C=c, tol=1e-8, max_iter=5000))
    assert np.abs(own - peer.fit(ROWS, LABELS).predict_proba(ROWS)).max() < 1e-3


def test_grids_pipelines_and_words_as_labels() -> None:
    words = np.array(["ash", "birch", "cedar", "elm"])[LABELS]
    search = GridSearchCV(KNNProbe(), {"k": [1, 5, 20]}, cv=3).fit(ROWS, words)
    assert search.best_params_["k"] in (1, 5, 20) and set(search.predict(ROWS)) <= set(words)
    assert cross_val_score(make_pipeline(StandardScaler(), LinearProbe()), ROWS, words, cv=3).mean() > 0.6


WRONG: list[Any] = [None, "a", True, float("nan"), float("inf"), 0, -1.0, [1], 1 + 2j]


@pytest.mark.parametrize("value", WRONG)
@pytest.mark.parametrize(("probe", "name"), [(KNNProbe, "k"), (KNNProbe, "temperature"), (LinearProbe, "C")])
def test_what_cannot_be_is_refused_in_a_line_with_its_name(probe: Any, name: str, value: Any) -> None:
    with pytest.raises(UsageError, match="positive") as caught:
        probe(**{name: value}).fit(ROWS, LABELS)
    assert str(caught.value).startswith(name) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("k", "message"), [(1.5, "whole number"), (121, "n_samples = 120: take k from 1 to 120")]
)
def test_neighbours_that_cannot_be_counted_are_refused(k: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KNNProbe(k=k).fit(ROWS, LABELS)


@pytest.mark.parametrize("k", [np.int64(7), np.uint8(7)])
def test_counts_of_numpy_are_counts(k: Any) -> None:
    assert KNNProbe(k=k).fit(ROWS, LABELS).score(ROWS, LABELS) > 0.6


@pytest.mark.parametrize("probe", [KNNProbe(k=7), LinearProbe()])
@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30, 1e200])
def test_the_scale_of_features_does_not_matter(probe: Any, scale: float) -> None:
    usual = probe.fit(ROWS, LABELS).predict_proba(ROWS)
    found = probe.fit(ROWS * scale, LABELS).predict_proba(ROWS * scale)
    assert np.abs(found - usual).max() < 1e-3


@pytest.mark.parametrize("probe", [KNNProbe(k=7), LinearProbe()])
@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_single_precision_does_not_matter(probe: Any, scale: float) -> None:
    rows = (ROWS * scale).astype(np.float32)
    usual = probe.fit(ROWS, LABELS).predict_proba(ROWS)
    assert np.abs(probe.fit(rows, LABELS).predict_proba(rows) - usual).max() < 1e-3


@pytest.mark.parametrize(("dtype", "scale"), [(np.float32, 1e30), (np.float64, 1e200)])
def test_large_features_that_are_not_standardised_are_refused(dtype: Any, scale: float) -> None:
    with pytest.raises(UsageError, match="scale them to about 1"):
        LinearProbe(standardise=False).fit((ROWS * scale).astype(dtype), LABELS)


@pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
@pytest.mark.parametrize("standardise", [False, True])
def test_two_classes_have_scikit_learns_coefficients_and_probabilities(c: float, standardise: bool) -> None:
    labels = LABELS % 2
    own = LinearProbe(C=c, standardise=standardise).fit(ROWS, labels)
    rows = StandardScaler().fit_transform(ROWS) if standardise else ROWS
    peer = LogisticRegression(C=c, tol=1e-9, max_iter=5000).fit(rows, labels)
    weights = (own.fit_.weights[1] - own.fit_.weights[0]).numpy() * (ROWS.std(0) if standardise else 1.0)
    assert np.abs(weights - peer.coef_[0]).max() < 1e-4
    assert np.abs(own.predict_proba(ROWS) - peer.predict_proba(rows)).max() < 1e-4


@pytest.mark.parametrize("probe", [KNNProbe(k=7), LinearProbe()])
def test_masked_entries_are_refused_not_read(probe: Any) -> None:
    masked = np.ma.masked_greater(ROWS, 3.0)
    count = int(masked.mask.sum())
    with pytest.raises(UsageError, match=f"{count} entries are masked"):
        probe.fit(masked, LABELS)
    with pytest.raises(UsageError, match="are masked"):
        probe.fit(ROWS, LABELS).predict(masked)
    probe.fit(np.ma.array(ROWS), LABELS)
