"""Multinomial logistic regression, in coordinates in which it is easy.

With rows x centred, W the weights [C, d], b the intercepts and p the softmax of W x + b, minimised is

    f(W, b) = mean_i -log p_{y_i}(x_i) + lambda/2 |W|^2.

Where W = 0 and classes are balanced, its Hessian is the Kronecker product of (I - 1 1^T / C) / C and
S = X^T X / n, plus lambda. Weights are therefore written as W = V D U^T with S = U diag(s) U^T and
D = diag(s / C + lambda)^(-1/2), in which the curvature starts as one in every direction: L-BFGS needs a third
to a sixth of the steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from fullrank.collapse.peers import Peers

ROWS = 2048  # at a time, so that they are still in the cache for the gradient
SPECTRUM_ROWS = 16  # times d: as many give the spectrum, which only has to be about right
SMALLEST_GAIN = {torch.float32: 1e-9, torch.float64: 1e-16}  # of the loss in a step; below is rounding


@dataclass(frozen=True)
class Solution:
    """Result of the minimisation.

    Attributes:
        weights: [C, d], float64, on the device of the rows, as are the
        intercepts: [C].
        value: f, in float64 sums.
        gradient: the largest entry of its gradient, by size.
        evaluations: of f and its gradient.
    """

    weights: Tensor
    intercepts: Tensor
    value: float
    gradient: float
    evaluations: int


class LogisticProblem:
    """Rows and classes, prepared for any number of penalties.

    Args:
        rows: [n, d], centred.
        labels: int64 [n], 0 to C - 1.
        classes: C.
        peers: processes that each hold a part of the rows; None: this one holds all.
        first: place of this process's first row among those of all.

    Example:
        >>> rows = torch.tensor([[-1.0], [-0.5], [0.5], [1.0]])
        >>> problem = LogisticProblem(rows, torch.tensor([0, 0, 1, 1]), 2)
        >>> found = problem.solve(penalty=0.1, tolerance=1e-8)
        >>> found.gradient < 1e-8, round(float(found.weights[1, 0]), 3)
        (True, 1.11)
    """

    def __init__(
        self, rows: Tensor, labels: Tensor, classes: int, peers: Peers | None = None, first: int = 0
    ) -> None:
        self.rows, self.labels, self.classes = rows, labels, classes
        self.peers = peers or Peers(alone=True)
        self.n = int(self.peers.sums(len(rows))[0])
        step = max(1, self.n // (SPECTRUM_ROWS * rows.shape[1]))
        some = rows[-first % step :: step]
        products = self.peers.reduce((some.T @ some).double())
        spectrum, self.axes = torch.linalg.eigh(products / self.peers.sums(len(some))[0])
        self.spectrum = spectrum.clamp_min(0)

    def solve(
        self, penalty: float, tolerance: float, steps: int = 1000, start: Solution | None = None
    ) -> Solution:
        """Minimise f by L-BFGS (scipy's), in single and then double precision.

        Args:
            penalty: lambda, positive.
            tolerance: the largest entry of the gradient to end with; scikit-learn's `tol`.
            steps: the most in each precision.
            start: another penalty's solution to start from.
        """
        d = self.rows.shape[1]
        zero = torch.zeros(self.classes, d + 1, dtype=torch.float64, device=self.rows.device)
        at = start or Solution(zero[:, :d], zero[:, d], float("inf"), float("inf"), 0)
        evaluations = 0
        for dtype in (torch.float32, torch.float64):
            if torch.promote_types(dtype, self.rows.dtype) == dtype:
                at = self._minimise(penalty, tolerance, steps, at, dtype, evaluations)
                evaluations = at.evaluations
                if at.gradient <= tolerance:
                    break
        return at

    def _minimise(
        self, penalty: float, tolerance: float, steps: int, start: Solution, dtype: torch.dtype, before: int
    ) -> Solution:
        from scipy.optimize import OptimizeResult, minimize
        from threadpoolctl import ThreadpoolController

        d, scale = self.rows.shape[1], self.classes**0.5
        stretch = (self.spectrum / self.classes + penalty).rsqrt()
        best: list[Solution] = []
        evaluations = before

        def placed(v: Tensor) -> tuple[Tensor, Tensor]:
            return (v[:, :d] * stretch) @ self.axes.T, v[:, d] * scale

        def loss(flat: object) -> tuple[float, object]:
            nonlocal evaluations
            evaluations += 1
            weights, intercepts = placed(torch.as_tensor(flat).to(self.axes).view(self.classes, d + 1))
            value, of_weights, of_intercepts = self.loss_and_gradient(weights, intercepts, penalty, dtype)
            size = max(float(of_weights.abs().max()), float(of_intercepts.abs().max()))
            best[:] = [Solution(weights, intercepts, value, size, evaluations)]
            gradient = torch.cat([of_weights @ self.axes * stretch, of_intercepts[:, None] * scale], dim=1)
            return value, gradient.flatten().cpu().numpy()

        def done(intermediate_result: OptimizeResult) -> None:
            if best[0].gradient <= tolerance:
                raise StopIteration

        first = torch.cat([start.weights @ self.axes / stretch, start.intercepts[:, None] / scale], dim=1)
        options = {"maxiter": steps, "maxfun": 2 * steps, "gtol": 0.0, "ftol": SMALLEST_GAIN[dtype]}
        # Threads of scipy's OpenBLAS spin on after each of its small steps, where PyTorch's should run.
        with ThreadpoolController().select(internal_api="openblas").limit(limits=1):
            flat = first.flatten().cpu().numpy()
            end = minimize(loss, flat, jac=True, method="L-BFGS-B", callback=done, options=options)
            if best[0].gradient > tolerance:  # the last place that was tried need not be the best one
                loss(end.x)
        return best[0]

    def loss_and_gradient(
        self, weights: Tensor, intercepts: Tensor, penalty: float, dtype: torch.dtype
    ) -> tuple[float, Tensor, Tensor]:
        """f, and its gradient with respect to weights [C, d] and intercepts [C], float64."""
        n = self.n
        w, b = weights.to(dtype), intercepts.to(dtype)[:, None]
        of_weights, of_intercepts = torch.zeros_like(weights), torch.zeros_like(intercepts)
        value = torch.zeros((), dtype=torch.float64, device=weights.device)
        for x, y in zip(torch.split(self.rows, ROWS), torch.split(self.labels, ROWS), strict=True):
            x, y = x.to(dtype), y[None]
            log_p = torch.addmm(b, w, x.T).log_softmax(dim=0)  # a row per class: five times as fast
            value -= log_p.gather(0, y).sum(dtype=torch.float64)
            error = log_p.exp_()
            error.scatter_add_(0, y, error.new_full(y.shape, -1.0))
            of_weights += error @ x
            of_intercepts += error.sum(1, dtype=torch.float64)
        if self.peers.size > 1:
            packed = torch.cat([of_weights, of_intercepts[:, None]], dim=1).flatten()
            whole = self.peers.reduce(torch.cat([packed, value[None]]))
            value, packed = whole[-1], whole[:-1].reshape(len(of_weights), -1)
            of_weights, of_intercepts = packed[:, :-1].clone(), packed[:, -1].clone()
        of_weights = of_weights / n + penalty * weights
        return float(value) / n + penalty / 2 * float(weights.square().sum()), of_weights, of_intercepts / n
