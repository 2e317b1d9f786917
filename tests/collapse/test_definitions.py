"""Every metric keeps what it promises: range, invariances, None for what is not defined."""

from __future__ import annotations

import doctest
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from collapse.inputs import QUICK, around, assert_in_range, changed, drawn, example, rows_of, value
from fullrank.collapse import Moments, Reservoir
from fullrank.collapse.metrics import COLLAPSES, METRICS, NEEDS, Metric, Spectra
from fullrank.errors import FullrankError, UsageError

NAMES = list(METRICS)
ROOT = Path(__file__).parents[2]
CHANGES = ("rotation", "scale", "translation", "permutation", "replication")
PROMISES = [(name, change) for name in NAMES for change in CHANGES if change in METRICS[name].invariances]
SIZES = {"n": st.integers(20, 36), "d": st.integers(3, 8), "seed": st.integers(0, 999)}


@pytest.mark.parametrize(("name", "change"), PROMISES)
@given(**SIZES)
@settings(max_examples=4, deadline=None)
def test_a_stated_invariance_holds(name: str, change: str, n: int, d: int, seed: int) -> None:
    entry = METRICS[name]
    inputs = example(entry, n, d, seed)
    before, after = value(name, *inputs), value(name, *changed(entry, inputs, change, seed + 7))
    assert (after is None) == (before is None)
    assert before is None or after == pytest.approx(before, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
@given(n=st.integers(1, 30), d=st.integers(1, 8), seed=st.integers(0, 999))
@settings(max_examples=10, deadline=None)
def test_values_keep_to_the_stated_range(name: str, n: int, d: int, seed: int) -> None:
    entry = METRICS[name]
    inputs = example(entry, n, 2 if entry.needs == "scores" and d < 2 else d, seed)
    assert_in_range(entry, value(name, *inputs), inputs)


DEGENERATE = {
    "constant": torch.full((12, 4), 0.1, dtype=torch.float64),
    "zero": torch.zeros(12, 4, dtype=torch.float64),
    "rank one": drawn(12, 1) @ drawn(1, 4, seed=1),
    "one row": drawn(1, 4),
    "two rows": drawn(2, 4),
    "fewer rows than dimensions": drawn(6, 16),
    "two points": drawn(2, 4).repeat(6, 1),
    "one dead unit": drawn(12, 4) * torch.tensor([1.0, 1.0, 1.0, 0.0]),
    "one-hot": torch.eye(4, dtype=torch.float64).repeat(4, 1),
    "integers": (5 * drawn(12, 4)).long(),
    "bfloat16": drawn(12, 4).bfloat16(),
    "constant but for the last digits": 1 + 1e-15 * drawn(12, 4),
    "huge": 1e60 * drawn(12, 4),
    "tiny": 1e-60 * drawn(12, 4),
}


@pytest.mark.parametrize("name", NAMES)
def test_degenerate_rows_have_a_value_in_range_or_none(name: str) -> None:
    entry = METRICS[name]
    for case, z in DEGENERATE.items():
        inputs = around(entry, z)
        assert_in_range(entry, value(name, *inputs), inputs, case)


OF_A_CONSTANT = {
    "level": 0.0,
    "centred_share": 0.0,
    "mean_cosine": 1.0,
    "rankme_uncentred": 1.0,
    "rankme_unit": 1.0,
    "stable_rank": 1.0,
    "matrix_entropy": 0.0,
    "wasserstein_uniformity": 2**0.5,
    "self_cluster": 1.0,
    "visreg_scale": 1.0,
    "uniformity": 0.0,
    "coherence": 1.0,
    "norm_variation": 0.0,
    "cluster_learnability": 1.0,
    "alignment": 0.0,
    "dime": 0.0,
    "numerical_rank": 0.0,
    **{name: None for name in METRICS if METRICS[name].spectrum == "centred" and name != "numerical_rank"},
    "mean_cosine_centred": None,
    "self_cluster_centred": None,
    "two_nn": None,
    "two_nn_fit": None,
    "local_dimension": None,
    "local_dimension_spread": None,
    "mixture_entropy": None,
    "legacy_mixture_entropy": None,
    "sigreg_ratio_standardised": None,
    "visreg_shape": None,
    "lidar": None,
    "within_share": None,
    "nc1_variability": None,
    "nc2_equinorm": None,
    "nc2_equiangular": None,
    "nc3_self_duality": None,
    "cdnv": None,
    "dense_score": None,
}


@pytest.mark.parametrize("name", OF_A_CONSTANT)
def test_a_constant_has_its_value_or_none(name: str) -> None:
    found = value(name, *around(METRICS[name], DEGENERATE["constant"]))
    assert found == (None if OF_A_CONSTANT[name] is None else pytest.approx(OF_A_CONSTANT[name], abs=1e-7))


RANK_ONE = {
    "erank_centred": 1.0,
    "participation_ratio": 1.0,
    "participation_ratio_corrected": 1.0,
    "nesum": 1.0,
    "numerical_rank": 1.0,
    "isoscore": 0.0,
    "auc": 1.0,
    "auc_rescaled": 1.0,
    "early_enrichment": 0.75,
    "top_share": 1.0,
    "condition_number": None,
    "inverse_condition_number": 0.0,
    "self_cluster": 1.0,
    "alpha_req": None,
}


@pytest.mark.parametrize("name", RANK_ONE)
def test_rank_one_has_its_value_or_none(name: str) -> None:
    found = value(name, DEGENERATE["rank one"])
    assert found == (None if RANK_ONE[name] is None else pytest.approx(RANK_ONE[name], abs=1e-6))


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_not_finite_are_refused_in_one_line(name: str) -> None:
    entry = METRICS[name]
    for place, bad in product(range(rows_of(entry)), (float("nan"), float("inf"))):
        inputs = [part.clone() for part in example(entry, 12, 4, 0)]
        if inputs[place].is_floating_point():
            inputs[place][3] = bad
            with pytest.raises(UsageError, match=r"not (all )?finite") as caught:
                value(name, *inputs)
            assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_what_has_another_shape_is_refused_in_one_line(name: str) -> None:
    entry = METRICS[name]
    first, *rest = example(entry, 12, 4, 0)
    for wrong in (first[0, 0], first[..., None], first[..., :0], first.flatten()):
        with pytest.raises(UsageError) as caught:
            value(name, wrong, *rest)
        assert "\n" not in str(caught.value)
    if rows_of(entry) == 2:
        with pytest.raises(UsageError):
            value(name, first, rest[0][:5], *rest[1:])


@pytest.mark.parametrize("name", NAMES)
def test_no_rows_are_refused_or_not_defined(name: str) -> None:
    inputs = [part[:0] for part in example(METRICS[name], 12, 4, 0)[: rows_of(METRICS[name])]]
    rest = example(METRICS[name], 12, 4, 0)[rows_of(METRICS[name]) :]
    try:
        assert value(name, *inputs, *rest) is None
    except UsageError as error:
        assert "\n" not in str(error)  # noqa: PT017 - None and a clear line are both right


@pytest.mark.parametrize("name", [name for name in NAMES if METRICS[name].needs in ("spectrum", "moments")])
def test_rows_moments_and_spectra_are_one_input(name: str) -> None:
    z = drawn(40, 6) + 0.3
    moments = Moments.of(z)
    whole = value(name, z)
    assert value(name, moments) == pytest.approx(whole, rel=1e-9)
    assert value(name, Spectra(moments)) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_complete(name: str) -> None:
    entry = METRICS[name]
    assert entry.name == name
    assert entry.needs in NEEDS
    assert set(entry.sees) <= set(COLLAPSES)
    assert entry.invariances <= set(CHANGES)
    for words in (
        entry.blind,
        entry.cost,
        entry.reference,
        entry.better,
        entry.low,
        entry.high,
        entry.variant,
    ):
        assert words and "\n" not in words
    assert bool(entry.spectrum) == (entry.needs in ("spectrum", "unit spectrum"))
    assert set(QUICK.get(name, {})) <= set(entry.knobs)


@pytest.mark.parametrize("function", {entry.function: None for entry in METRICS.values()})
def test_a_function_says_what_it_does_and_shows_it(function: Callable[..., object]) -> None:
    text = " ".join((inspect.getdoc(function) or "").split())
    given = {"dim", *list(inspect.signature(function).parameters)[:1]}  # as the head of the module has it
    missing = {name for name in {*inspect.signature(function).parameters} - given if f"{name}:" not in text}
    assert "Example:" in text, f"{function.__name__} has no docstring with an Example"
    assert not missing - {"labels"}, f"{function.__name__}'s docstring does not explain {missing}"
    assert any(test.examples for test in doctest.DocTestFinder(recurse=False).find(function))


def test_every_collapse_is_seen_by_several_metrics() -> None:
    for letter in COLLAPSES:
        assert sum(letter in entry.sees for entry in METRICS.values()) >= 3, letter


def test_every_pure_function_of_a_spectrum_is_a_metric() -> None:
    from fullrank.collapse.metrics import decay, ranks

    own = {
        name
        for module in (ranks, decay)
        for name, item in vars(module).items()
        if inspect.isfunction(item) and item.__module__ == module.__name__ and not name.startswith("_")
    }
    public = own - {"cumulative_curve", "rankme"}
    assert public <= {entry.function.__name__ for entry in METRICS.values()}


def test_an_unknown_metric_or_option_is_answered_with_the_nearest() -> None:
    with pytest.raises(FullrankError, match="unknown metric 'rankme_unti'; did you mean 'rankme_unit'"):
        METRICS["rankme_unti"]
    with pytest.raises(UsageError, match=r"alpha_req has no option 'start' \(options: first, last\)"):
        METRICS["alpha_req"](drawn(40, 6), start=3)


def test_an_entry_gives_all_that_its_function_returns() -> None:
    entry: Metric = METRICS["alpha_req"]
    fit = entry.result(drawn(400, 64) * torch.arange(1, 65) ** -0.5, first=5)
    assert (fit.first, fit.last) == (5, 64)
    assert 0.9 < fit.r2 <= 1
    assert fit.alpha == entry(drawn(400, 64) * torch.arange(1, 65) ** -0.5, first=5)


def test_the_sample_of_a_reservoir_is_input_for_points() -> None:
    sample = Reservoir(4, 50)
    sample.add(drawn(200, 4))
    assert value("two_nn", sample.rows) == pytest.approx(4, rel=0.4)


def test_the_table_in_the_documentation_is_up_to_date() -> None:
    script = ROOT / "docs" / "make_metrics_table.py"
    spec = importlib.util.spec_from_file_location("make_metrics_table", script)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    shown = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")
    assert shown == module.page(), f"run {Path(sys.executable).name} docs/make_metrics_table.py"
    assert all(re.search(rf"`{name}`", shown) for name in NAMES)
