"""Linear probe: logistic regression, the penalty chosen on held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.moments import all_finite
from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.probes.labelled import split_held_out, two_classes
from fullrank.probes.logistic_solver import LogisticProblem
from fullrank.probes.neighbours import SQUARED_SAFELY
from fullrank.probes.shared import LabelledPart, labelled_part
from fullrank.progress import report_progress

CS = tuple(10.0**exponent for exponent in range(-4, 2))
TOLERANCE = 1e-5
ROWS = 8192  # that are judged at a time


@dataclass(frozen=True)
class LogisticFit:
    """A linear classifier of features as they were given, standardised or not.

    Attributes:
        weights: [C, d], float32 or, for such features, float64.
        bias: [C].
        classes: int64 [C], the label that each row of the weights stands for, ascending.
        c: scikit-learn's C, the weight of the summed loss against half the squared weights.
        loss: what was minimised, a mean over rows with its penalty.
        gradient: largest entry of its gradient at the end, by size.
        converged: whether that is within the tolerance.
        evaluations: of the loss and its gradient.
    """

    weights: Tensor
    bias: Tensor
    classes: Tensor
    c: float
    loss: float
    gradient: float
    converged: bool
    evaluations: int

    def scores(self, features: Tensor) -> Tensor:
        """Logits [m, C] of features [m, d]."""
        return features.to(self.weights.dtype) @ self.weights.T + self.bias

    def accuracy(self, features: Tensor, labels: Tensor, peers: Peers | None = None) -> tuple[float, float]:
        """Top-1 and top-min(5, C) over all processes; unknown classes are missed."""
        first = five = 0
        for x, y in zip(torch.split(features, ROWS), torch.split(labels, ROWS), strict=True):
            order = self.scores(x).topk(min(5, len(self.classes)), dim=1).indices
            hits = self.classes[order] == y[:, None]
            first += int(hits[:, 0].sum())
            five += int(hits.any(1).sum())
        right, among, rows = (peers or Peers(alone=True)).sums(first, five, len(features))
        return right / rows, among / rows


@dataclass(frozen=True)
class TriedC:
    """A penalty of a sweep.

    Attributes:
        c: scikit-learn's C.
        top1: on the held-out rows.
        top5: likewise.
        converged: whether the fit on the other rows is within the tolerance.
    """

    c: float
    top1: float
    top5: float
    converged: bool


@dataclass(frozen=True)
class LogisticResult:
    """Accuracy of a linear probe, its penalty chosen on held-out rows.

    Attributes:
        top1: on the test rows.
        top5: likewise; top-C with fewer than five classes.
        fit: on all training rows, with the penalty that was chosen.
        train_top1: of that fit on the rows it was fitted to.
        tried: the sweep, C ascending.
        at_edge: the best C is the least or the greatest of several that were tried: more might be better.
        standardised: whether features were scaled to unit variance before.
        train: labelled training rows.
        test: labelled test rows.
        held_out: training rows that the penalty was chosen on; 0 where there was no choice.
    """

    top1: float
    top5: float
    fit: LogisticFit
    train_top1: float
    tried: tuple[TriedC, ...]
    at_edge: bool
    standardised: bool
    train: int
    test: int
    held_out: int

    def as_dict(self) -> dict[str, Any]:
        """JSON-able; without the weights."""
        fit = self.fit
        plain = {name: value for name, value in vars(self).items() if name not in ("fit", "tried")}
        return {
            **plain,
            "classes": len(fit.classes),
            "dim": fit.weights.shape[1],
            **{name: getattr(fit, name) for name in ("c", "loss", "gradient", "converged", "evaluations")},
            "tried": [vars(tried) for tried in self.tried],
        }


def logistic_probe(
    train: Tensor,
    train_labels: Tensor,
    test: Tensor,
    test_labels: Tensor,
    *,
    cs: Sequence[float] = CS,
    standardise: bool = True,
    held_out: float = 0.1,
    seed: int = 0,
    tolerance: float = TOLERANCE,
    steps: int = 1000,
    peers: Peers | None = None,
) -> LogisticResult:
    """Fit a linear classifier and judge it; held-out rows choose the penalty.

    The sweep goes from strong to weak penalties, each starting from the last one's solution; the best (of
    equal ones the strongest penalty) is fitted again to all training rows. Deterministic on a CPU. The test
    rows choose nothing.

    Args:
        train: features [n, d], single or double precision.
        train_labels: integers [n]; below 0 means unlabelled, which is left out.
        test: features [m, d], on the same device.
        test_labels: integers [m], likewise; a class that training lacks is missed.
        cs: values of scikit-learn's C to choose from; a single one is taken as it is.
        standardise: whether features are scaled to unit variance on the training rows; without, the penalty
            depends on their scale.
        held_out: share of every class, in (0, 1).
        seed: of the held-out rows.
        tolerance, steps: see `fit_logistic`.
        peers: processes that each hold a part of training and test rows; None: this one holds all.

    Raises:
        UsageError: no labelled row on either side, one class, values that are not finite, widths that differ,
            no C or one that is not positive, or too few rows to hold some out.

    Example:
        >>> generator = torch.Generator().manual_seed(0)
        >>> labels = torch.arange(3).repeat(50)
        >>> rows = 4 * torch.eye(3)[labels] + torch.randn(150, 3, generator=generator)
        >>> result = logistic_probe(rows[:100], labels[:100], rows[100:], labels[100:])
        >>> result.top1 > 0.9, result.fit.converged, result.held_out
        (True, True, 9)
    """
    peers = peers or Peers(alone=True)
    part = labelled_part(train, train_labels, "training rows", peers)
    tested = labelled_part(test, test_labels, "test rows", peers)
    train, train_labels, test, test_labels = part.rows, part.labels, tested.rows, tested.labels
    if train.shape[1] != test.shape[1]:
        raise UsageError(f"training rows have {train.shape[1]} dimensions, test rows have {test.shape[1]}")
    if not cs or min(cs) <= 0:
        raise UsageError(f"values of C are positive, and one at least, not {list(cs)}")
    cs, best, held = sorted(set(cs)), 0, 0
    tried: list[TriedC] = []
    if len(cs) > 1:
        kept, left = split_held_out(part.all_labels, held_out, seed)
        keep, out, held = part.own(kept), part.own(left), len(left)
        judged, judged_labels = train[out], train_labels[out]
        first = int((kept < part.first).sum())
        fitted = LabelledPart(train[keep], train_labels[keep], part.all_labels[kept.to(train.device)], first)
        fits = _fits(fitted, cs, standardise, tolerance, steps, peers)
        tried = [TriedC(fit.c, *fit.accuracy(judged, judged_labels, peers), fit.converged) for fit in fits]
        best = max(range(len(cs)), key=lambda i: (tried[i].top1, -i))
    (fit,) = _fits(part, [cs[best]], standardise, tolerance, steps, peers)
    top1, top5 = fit.accuracy(test, test_labels, peers)
    return LogisticResult(
        top1=top1,
        top5=top5,
        fit=fit,
        train_top1=fit.accuracy(train, train_labels, peers)[0],
        tried=tuple(tried),
        at_edge=len(cs) > 1 and best in (0, len(cs) - 1),
        standardised=standardise,
        train=len(part.all_labels),
        test=len(tested.all_labels),
        held_out=held,
    )


def fit_logistic(
    features: Tensor,
    labels: Tensor,
    c: float = 1.0,
    *,
    standardise: bool = False,
    tolerance: float = TOLERANCE,
    steps: int = 1000,
) -> LogisticFit:
    """Multinomial logistic regression with an L2 penalty on the weights.

    Minimises `sum_i -log p_{y_i}(x_i) + |W|^2 / (2 C)` over n, as scikit-learn's LogisticRegression with the
    same C does, which of two classes has one row of weights (`penalty_of`).

    Args:
        features: [n, d]; double precision is kept, all else is single.
        labels: integers [n]; below 0 means unlabelled, which is left out.
        c: scikit-learn's C, positive.
        standardise: as StandardScaler before; the weights that come back are for the features as they are.
        tolerance: the largest entry of the gradient of the mean loss, by size, at which it ends; like
            scikit-learn's `tol`. Where single precision cannot reach it, double precision goes on; below 1e-7
            even that need not do.
        steps: the most L-BFGS steps in each precision; where they do not do, `converged` is false.

    Raises:
        UsageError: no labelled row, one class, values that are not finite, or C or tolerance not positive.

    Example:
        >>> fit = fit_logistic(torch.tensor([[-1.0], [-0.5], [0.5], [1.0]]), torch.tensor([3, 3, 7, 7]))
        >>> fit.converged, fit.classes[fit.scores(torch.tensor([[0.2]])).argmax(1)].tolist()
        (True, [7])
    """
    if c <= 0 or tolerance <= 0:
        raise UsageError(f"C and the tolerance are positive, not {c} and {tolerance}")
    alone = Peers(alone=True)
    (fit,) = _fits(
        labelled_part(features, labels, "features", alone), [c], standardise, tolerance, steps, alone
    )
    return fit


def _fits(
    part: LabelledPart,
    cs: Sequence[float],
    standardise: bool,
    tolerance: float,
    steps: int,
    peers: Peers,
) -> list[LogisticFit]:
    """A fit for every C, which ascend, to the rows of all processes."""
    two_classes(part.all_labels)
    names, n = torch.unique(part.all_labels), len(part.all_labels)
    member = torch.searchsorted(names, part.labels)
    rows = part.rows.to(torch.promote_types(part.rows.dtype, torch.float32))
    several = peers.size > 1
    middle = (
        peers.reduce(rows.sum(0, dtype=torch.float64)) / n if several else rows.mean(0, dtype=torch.float64)
    )
    mean = middle.to(rows)
    rows = rows - mean
    scale = unit = _units(rows, peers, standardise)
    rows = rows * unit if bool((unit != 1).any()) else rows
    if standardise:
        squares = rows.square()
        spread = peers.reduce(squares.sum(0, dtype=torch.float64)) / n if several else squares.mean(0)
        spread = spread.sqrt().to(rows)
        varies = spread > torch.finfo(rows.dtype).eps * (mean * unit).abs()
        inverse = torch.where(varies, 1 / spread, 0.0)
        rows, scale = rows * inverse, inverse.double() * unit.double()
    problem = LogisticProblem(rows, member, len(names), peers, part.first)
    fits, found = [], None
    for number, c in enumerate(cs):
        report_progress("fitting the classifier", number, len(cs))
        found = problem.solve(penalty_of(c, n, len(names)), tolerance, steps, found)
        weights = found.weights * scale.double()
        if not all_finite(weights.to(mean.dtype)):
            raise UsageError(
                "the features are too small for weights of their precision: scale them to about 1"
            )
        fits.append(
            LogisticFit(
                weights=weights.to(mean.dtype),
                bias=(found.intercepts - weights @ mean.double()).to(mean.dtype),
                classes=names,
                c=c,
                loss=found.value,
                gradient=found.gradient,
                converged=found.gradient <= tolerance,
                evaluations=found.evaluations,
            )
        )
    return fits


def penalty_of(c: float, n: int, classes: int) -> float:
    """The factor of |W|^2 / 2 beside the mean loss that scikit-learn's C stands for.

    Of two classes scikit-learn fits one row of weights w, where a softmax has w/2 and -w/2, whose squares add
    up to half of w's.

    Example:
        >>> penalty_of(1.0, 100, 3), penalty_of(1.0, 100, 2)
        (0.01, 0.02)
    """
    return (2 if classes == 2 else 1) / (c * n)


def _units(rows: Tensor, peers: Peers, standardise: bool) -> Tensor:
    """Factors [d], mostly 1, for columns whose squares can be summed.

    Raises:
        UsageError: the numbers are too large; without `standardise` their scale may not change.
    """
    largest = rows.abs().amax(0) if len(rows) else rows.new_zeros(rows.shape[1])
    largest = peers.reduce(largest, "max") if peers.size > 1 else largest
    low, high = SQUARED_SAFELY
    if not all_finite(largest) or (not standardise and bool((largest >= high).any())):
        raise UsageError(
            f"the largest number of these features is {float(largest.nan_to_num(torch.inf).max()):.3g}: "
            "scale them to about 1"
        )
    if not standardise:
        return torch.ones_like(largest)
    usual = ((largest > low) & (largest < high)) | (largest == 0)
    return torch.where(usual, 1.0, 1 / largest.clamp_min(torch.finfo(rows.dtype).tiny))
