"""Logistic regression is scikit-learn's, found faster, and says honestly how it ended."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from threadpoolctl import threadpool_info
from torch import Tensor

from fullrank.errors import UsageError
from fullrank.probes import fit_logistic, logistic_probe
from fullrank.probes.labelled import split_held_out
from fullrank.probes.logistic_solver import LogisticProblem


def data(n: int, seed: int, d: int = 20, classes: int = 4, spread: float = 1.5) -> tuple[Tensor, Tensor]:
    """Correlated columns of very different sizes, with a mean."""
    generator = torch.Generator().manual_seed(seed)
    fixed = torch.Generator().manual_seed(5)
    labels = torch.randint(classes, (n,), generator=generator)
    z = torch.randn(classes, d, generator=fixed)[labels] + spread * torch.randn(n, d, generator=generator)
    mixing = torch.randn(d, d, generator=fixed) * torch.arange(1, d + 1) ** -1.0
    return z @ mixing + 3, labels


@pytest.mark.parametrize("c", [1e-3, 0.1, 10.0])
@pytest.mark.parametrize("standardise", [False, True])
def test_weights_are_those_of_scikit_learn(c: float, standardise: bool) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    rows, labels = data(400, 0)
    rows = rows.double()
    ours = fit_logistic(rows, labels, c, standardise=standardise, tolerance=1e-7)
    regression = LogisticRegression(C=c, tol=1e-9, max_iter=10_000)
    scaler = StandardScaler() if standardise else FunctionTransformer()
    theirs = make_pipeline(scaler, regression).fit(rows.numpy(), labels.numpy())
    assert ours.converged
    expected = torch.from_numpy(theirs.predict_log_proba(rows.numpy()))
    torch.testing.assert_close(ours.scores(rows).log_softmax(1), expected, rtol=1e-4, atol=1e-5)


def test_single_precision_agrees_with_double() -> None:
    rows, labels = data(500, 0)
    single = fit_logistic(rows, labels, tolerance=1e-5)
    double = fit_logistic(rows.double(), labels, tolerance=1e-7)
    assert single.converged and single.weights.dtype == torch.float32
    agree = single.scores(rows).argmax(1) == double.scores(rows.double()).argmax(1)
    assert agree.double().mean() >= 0.996
    assert single.loss == pytest.approx(double.loss, rel=1e-6)


def test_the_gradient_is_that_of_autograd() -> None:
    rows, labels = data(300, 0)
    rows = (rows - rows.mean(0)).double()
    problem = LogisticProblem(rows, labels, 4)
    w = torch.randn(4, 20, dtype=torch.float64, requires_grad=True)
    b = torch.randn(4, dtype=torch.float64, requires_grad=True)
    loss = torch.nn.functional.cross_entropy(rows @ w.T + b, labels) + 0.3 / 2 * w.square().sum()
    loss.backward()
    value, of_w, of_b = problem.loss_and_gradient(w.detach(), b.detach(), 0.3, torch.float64)
    assert value == pytest.approx(loss.item(), rel=1e-12)
    torch.testing.assert_close(of_w, w.grad)
    torch.testing.assert_close(of_b, b.grad)


def test_double_precision_finishes_what_single_cannot() -> None:
    rows, labels = data(300, 0)
    fit = fit_logistic(rows, labels, tolerance=1e-7)
    assert fit.converged and fit.gradient <= 1e-7


def test_too_few_steps_are_confessed() -> None:
    rows, labels = data(300, 0)
    fit = fit_logistic(rows, labels, 100.0, tolerance=1e-8, steps=2)
    assert not fit.converged and fit.gradient > 1e-8


def test_threads_of_another_library_rest_while_ours_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["internal_api"] == "openblas"]

    seen, loss = [], LogisticProblem.loss_and_gradient

    def watched(self: LogisticProblem, *args: Any) -> Any:
        seen.append(threads())
        return loss(self, *args)

    monkeypatch.setattr(LogisticProblem, "loss_and_gradient", watched)
    before = threads()
    fit_logistic(torch.tensor([[-1.0], [1.0], [2.0]]), torch.tensor([0, 1, 0]))
    assert seen
    assert all(each == 1 for pools in seen for each in pools)
    assert threads()[: len(before)] == before


def test_the_intercept_is_not_penalised() -> None:
    rows, labels = torch.zeros(100, 2), (torch.arange(100) < 80).long()
    rows[:, 0] = torch.arange(100) % 2
    fit = fit_logistic(rows, labels, 1e-6)
    share = (fit.scores(rows)).softmax(1).mean(0)
    torch.testing.assert_close(share, torch.tensor([0.2, 0.8]), rtol=1e-3, atol=1e-3)


def test_a_start_nearby_saves_steps() -> None:
    rows, labels = data(400, 0)
    problem = LogisticProblem(rows - rows.mean(0), labels, 4)
    cold = problem.solve(1e-3, 1e-5)
    warm = problem.solve(1e-3, 1e-5, start=problem.solve(1.1e-3, 1e-5))
    assert warm.evaluations < cold.evaluations
    assert warm.value == pytest.approx(cold.value, rel=1e-6)


def test_labels_need_not_be_consecutive() -> None:
    rows, labels = data(300, 0)
    names = torch.tensor([3, 40, 41, 7])
    fit = fit_logistic(rows, names[labels])
    assert fit.classes.tolist() == [3, 7, 40, 41]
    assert fit.accuracy(rows, names[labels])[0] == fit_logistic(rows, labels).accuracy(rows, labels)[0]


def test_the_penalty_is_chosen_without_the_test_rows() -> None:
    (rows, labels), (test, asked) = data(300, 0), data(200, 1)
    honest = logistic_probe(rows, labels, test, asked)
    wrong = logistic_probe(rows, labels, test, (asked + 1) % 4)
    assert honest.fit.c == wrong.fit.c and honest.tried == wrong.tried
    assert honest.top1 > wrong.top1
    assert max(honest.tried, key=lambda tried: tried.top1).top1 == next(
        tried.top1 for tried in honest.tried if tried.c == honest.fit.c
    )


def test_the_same_seed_gives_the_same_numbers() -> None:
    (rows, labels), (test, asked) = data(300, 0), data(200, 1)
    first, second = (logistic_probe(rows, labels, test, asked, seed=3) for _ in range(2))
    assert first.as_dict() == second.as_dict()
    assert torch.equal(first.fit.weights, second.fit.weights)


def test_a_choice_at_the_end_of_the_sweep_is_said() -> None:
    (rows, labels), (test, asked) = data(300, 0), data(50, 1)
    assert logistic_probe(rows, labels, test, asked, cs=[1e-8, 1.0]).at_edge
    alone = logistic_probe(rows, labels, test, asked, cs=[1.0])
    assert not alone.at_edge and alone.held_out == 0 and alone.tried == ()


def test_unlabelled_rows_are_left_out() -> None:
    (rows, labels), (test, asked) = data(300, 0), data(100, 1)
    known, judged = torch.arange(300) % 3 > 0, torch.arange(100) % 2 > 0
    less = logistic_probe(rows[known], labels[known], test[judged], asked[judged])
    marked = logistic_probe(rows, labels.where(known, -1), test, asked.where(judged, -1))
    assert less.as_dict() == marked.as_dict()


def test_a_constant_column_does_no_harm() -> None:
    rows, labels = data(300, 0)
    with_constant = torch.cat([rows, torch.full((300, 1), 7.0)], dim=1)
    fit = fit_logistic(with_constant, labels, standardise=True)
    assert fit.converged and float(fit.weights[:, -1].abs().max()) < 1e-4
    plain = fit_logistic(rows, labels, standardise=True)
    torch.testing.assert_close(fit.scores(with_constant), plain.scores(rows), rtol=1e-2, atol=1e-2)


def test_a_class_that_training_lacks_is_missed() -> None:
    rows, labels = data(300, 0)
    result = logistic_probe(rows[labels < 3], labels[labels < 3], rows, labels, cs=[1.0])
    assert result.top1 <= float((labels < 3).double().mean())


def test_the_result_is_json_without_weights() -> None:
    (rows, labels), (test, asked) = data(200, 0), data(50, 1)
    text = json.dumps(logistic_probe(rows, labels, test, asked).as_dict())
    assert '"converged": true' in text and "weights" not in text


def test_the_held_out_part_has_its_share_of_every_class() -> None:
    labels = torch.tensor([0] * 50 + [1] * 20 + [2])
    keep, held = split_held_out(labels, 0.1, seed=1)
    assert torch.bincount(labels[held], minlength=3).tolist() == [5, 2, 0]
    assert torch.equal(torch.cat([keep, held]).sort().values, torch.arange(71))


def test_what_cannot_be_fitted_is_said_in_one_line() -> None:
    rows, labels = data(30, 0)
    with pytest.raises(UsageError, match="none of the 30 training rows has a label"):
        logistic_probe(rows, labels * 0 - 1, rows, labels)
    with pytest.raises(UsageError, match="none of the 30 test rows has a label"):
        logistic_probe(rows, labels, rows, labels * 0 - 1)
    with pytest.raises(UsageError, match="two classes"):
        fit_logistic(rows, labels * 0)
    with pytest.raises(UsageError, match="1 of 30 features are not finite"):
        fit_logistic(torch.cat([rows[:-1], rows[-1:] * torch.nan]), labels)
    with pytest.raises(UsageError, match="positive"):
        fit_logistic(rows, labels, c=0.0)
    with pytest.raises(UsageError, match="20 dimensions, test rows have 5"):
        logistic_probe(rows, labels, rows[:, :5], labels)
    with pytest.raises(UsageError, match="too few"):
        split_held_out(torch.arange(4))
