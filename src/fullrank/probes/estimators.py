"""Probes as scikit-learn estimators, for pipelines and cross-validation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from numbers import Integral, Real
from typing import Any, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from fullrank.coercion import shown
from fullrank.errors import UsageError
from fullrank.probes.knn import counted_votes, vote_weights
from fullrank.probes.logistic import fit_logistic
from fullrank.probes.neighbours import nearest

__all__ = ["KNNProbe", "LinearProbe"]


class _Probe(ClassifierMixin, BaseEstimator, ABC):  # type: ignore[misc]
    """Validation of features and labels for all probes."""

    def _labelled(self, X: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Features [n, d] and places of their classes [n]; sets `classes_`."""
        _refuse_masked(X, y)
        X, y = validate_data(self, X, y, dtype=(np.float64, np.float32))
        check_classification_targets(y)
        self.classes_, places = np.unique(y, return_inverse=True)
        return _tensor(X), torch.from_numpy(places.astype(np.int64))

    def _features(self, X: Any) -> Tensor:
        check_is_fitted(self)
        _refuse_masked(X)
        return _tensor(validate_data(self, X, dtype=(np.float64, np.float32), reset=False))

    def predict(self, X: Any) -> np.ndarray:
        """Classes [m] of features [m, d]."""
        places = self.predict_proba(X).argmax(1)
        found: np.ndarray = self.classes_[places]
        return found

    @abstractmethod
    def predict_proba(self, X: Any) -> np.ndarray:
        """Shares of the classes [m, c], which sum to 1."""


class KNNProbe(_Probe):
    """The k nearest rows by cosine vote by their similarity.

    Args:
        k: neighbours, at most as many as there are rows.
        temperature: of the weights exp(similarity / temperature), positive.

    Example:
        >>> features, labels = np.eye(3).repeat(4, 0), np.array(["a", "b", "c"]).repeat(4)
        >>> probe = KNNProbe(k=4).fit(features, labels)
        >>> probe.predict([[0.1, 0.9, 0.0]]).tolist(), probe.score(features, labels)
        (['b'], 1.0)
    """

    bank_: Tensor
    bank_labels_: Tensor

    def __init__(self, k: int = 20, temperature: float = 0.07) -> None:
        self.k, self.temperature = k, temperature

    def fit(self, X: Any, y: Any) -> Self:
        """Keep features [n, d] and labels [n]."""
        k: Any = self.k
        if isinstance(k, bool | np.bool_) or not isinstance(k, Integral) or k < 1:
            raise UsageError(f"k is a positive whole number, not {shown(self.k)}")
        _check_positive("temperature", self.temperature)
        bank, labels = self._labelled(X, y)
        if self.k > len(bank):
            raise UsageError(
                f"k = {self.k} neighbours are more than n_samples = {len(bank)}: take k from 1 to {len(bank)}"
            )
        self.bank_, self.bank_labels_ = bank, labels
        return self

    def predict_proba(self, X: Any) -> np.ndarray:
        """Shares of the votes [m, c]."""
        queries = self._features(X)
        k = int(self.k)
        similarity, rows = nearest(queries.to(self.bank_.dtype), self.bank_, k)
        weights = vote_weights(similarity, "similarity", self.temperature)
        (votes,) = counted_votes(self.bank_labels_[rows], weights, [k], len(self.classes_))
        shares = votes.double()
        found: np.ndarray = (shares / shares.sum(1, keepdim=True)).numpy()
        return found


class LinearProbe(_Probe):
    """Multinomial logistic regression with an L2 penalty.

    Args:
        C: of scikit-learn's LogisticRegression, positive.
        standardise: as a StandardScaler before it.

    Example:
        >>> features, labels = np.eye(3).repeat(4, 0), np.array(["a", "b", "c"]).repeat(4)
        >>> LinearProbe().fit(features, labels).predict([[0.1, 0.9, 0.0]]).tolist()
        ['b']
    """

    def __init__(self, C: float = 1.0, standardise: bool = True) -> None:
        self.C, self.standardise = C, standardise

    def fit(self, X: Any, y: Any) -> Self:
        """Fit to features [n, d] and labels [n]; sets `fit_`, a `LogisticFit`."""
        _check_positive("C", self.C)
        features, places = self._labelled(X, y)
        if len(self.classes_) < 2:
            raise UsageError(f"a classifier needs two classes, and there is one class: {self.classes_[0]}")
        fit = fit_logistic(features, places, self.C, standardise=self.standardise)
        self.fit_ = fit
        return self

    def decision_function(self, X: Any) -> np.ndarray:
        """Scores [m, c]; of two classes those of the second against the first [m]."""
        features = self._features(X)
        scores: np.ndarray = self.fit_.scores(features).double().numpy()
        return scores[:, 1] - scores[:, 0] if len(self.classes_) == 2 else scores

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities of the classes [m, c]."""
        features = self._features(X)
        found: np.ndarray = self.fit_.scores(features).double().softmax(1).numpy()
        return found


def _check_positive(name: str, value: Any) -> None:
    """Raise UsageError for anything but a number above 0 that is finite."""
    is_number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    if not is_number or not math.isfinite(value) or value <= 0:
        raise UsageError(f"{name} is a positive number, not {shown(value)}")


def _refuse_masked(*arrays: Any) -> None:
    """Raise UsageError for masked entries, whose numbers would be read."""
    masked = 0
    for each in arrays:
        masked += int(np.ma.getmaskarray(each).sum()) if isinstance(each, np.ma.MaskedArray) else 0
    if masked:
        raise UsageError(f"{masked:,} entries are masked: fill them, or leave their rows out")


def _tensor(X: np.ndarray) -> Tensor:
    return torch.from_numpy(np.array(X))
