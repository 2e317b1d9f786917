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

from fullrank.probes import knn_predict
from fullrank.probes.estimators import KNNProbe, LinearProbe

GENERATOR = np.random.default_rng(0)
LABELS = np.arange(120) % 4
ROWS = np.eye(8)[LABELS] * 2 + GENERATOR.standard_normal((120, 8))


@parametrize_with_checks([KNNProbe(), LinearProbe()])  # type: ignore[untyped-decorator,unused-ignore]
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


@pytest.mark.parametrize("probe", [KNNProbe(k=0), KNNProbe(temperature=0.0), LinearProbe(C=-1.0)])
def test_what_cannot_be_is_refused(probe: Any) -> None:
    with pytest.raises(ValueError, match="positive"):
        probe.fit(ROWS, LABELS)
