"""Streaming metrics: chunks, orders, processes and what was saved give the value of the whole."""

from __future__ import annotations

import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torchmetrics import MetricCollection

from collapse.inputs import QUICK, Inputs, drawn, example, rows_of, value
from fullrank.collapse import streaming
from fullrank.collapse.metrics import METRICS, class_name
from fullrank.collapse.sampling import row_keys
from fullrank.errors import UnknownNameError, UsageError
from processes import results_of

NAMES = list(METRICS)
SAMPLED = ("points", "neighbours", "clusters", "pairs", "labels", "classifier", "tokens")
WORKER = Path(__file__).parent / "streaming_worker.py"


def built(name: str, inputs: Inputs, **options: Any) -> streaming.CollapseMetric:
    """The streaming metric of an entry, for rows of this shape; `capacity` only where it keeps a sample."""
    entry, z = METRICS[name], inputs[0]
    if entry.needs not in SAMPLED:
        options.pop("capacity", None)
    shape: dict[str, Any] = {"dim": z.shape[-1]}
    if entry.needs == "scores":
        shape = {"codes": z.shape[1]}
    elif entry.needs == "tokens":
        shape = {"tokens": z.shape[1], "dim": z.shape[2]}
    elif entry.needs == "classifier":
        shape = {"weight": inputs[2], "bias": inputs[3]}
    metric: streaming.CollapseMetric = getattr(streaming, class_name(name))(
        **shape, **QUICK.get(name, {}), **options
    )
    return metric


def fed(name: str, inputs: Inputs, chunk: int = 1000, **options: Any) -> streaming.CollapseMetric:
    metric = built(name, inputs, **options)
    for part in zip(*(z.split(chunk) for z in inputs[: rows_of(METRICS[name])]), strict=True):
        metric.update(*part)
    return metric


def number(metric: streaming.CollapseMetric) -> float | None:
    computed = metric.compute()
    assert computed is None or (computed.dtype == torch.float64 and computed.shape == ())
    return None if computed is None else float(computed)


def shuffled(name: str, inputs: Inputs) -> Inputs:
    order = torch.randperm(len(inputs[0]), generator=torch.Generator().manual_seed(3))
    count = rows_of(METRICS[name])
    return (*(part[order] for part in inputs[:count]), *inputs[count:])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("capacity", [1000, 24])
def test_chunks_and_order_change_nothing(name: str, capacity: int) -> None:
    inputs = example(METRICS[name], 60, 6, 0)
    whole = number(fed(name, inputs, capacity=capacity))
    assert whole is not None
    for metric in (
        fed(name, inputs, 7, capacity=capacity),
        fed(name, shuffled(name, inputs), capacity=capacity),
        fed(name, shuffled(name, inputs), 11, capacity=capacity),
    ):
        assert number(metric) == pytest.approx(whole, rel=1e-10, abs=1e-12)
    if capacity == 1000 and "permutation" in METRICS[name].invariances:
        assert whole == pytest.approx(value(name, *inputs), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_saved_and_a_pickled_metric_go_on_as_one_that_was_not(name: str) -> None:
    inputs = example(METRICS[name], 60, 6, 0)
    count = rows_of(METRICS[name])
    first, second = tuple(z[:40] for z in inputs[:count]), tuple(z[40:] for z in inputs[:count])
    metric, loaded = fed(name, (*first, *inputs[count:])), built(name, inputs)
    loaded.load_state_dict(metric.state_dict())
    copy = pickle.loads(pickle.dumps(metric))
    for each in (metric, loaded, copy):
        each.update(*second)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchmetrics counts updates, not what was loaded
            assert number(each) == pytest.approx(number(fed(name, inputs)), rel=1e-10, abs=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_reset_metric_has_seen_nothing(name: str) -> None:
    inputs = example(METRICS[name], 60, 6, 0)
    metric = fed(name, example(METRICS[name], 50, 6, 9))
    metric.reset()
    with pytest.warns(UserWarning, match="before"):  # noqa: PT031
        try:
            assert number(metric) is None
        except UsageError as error:
            assert "no embedding rows were seen" in str(error)  # noqa: PT017 - both are right
    metric.update(*inputs[: rows_of(METRICS[name])])
    if METRICS[name].needs != "classifier":  # whose classifier is another one
        assert number(metric) == pytest.approx(number(fed(name, inputs)), rel=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_a_forward_pass_gives_the_value_of_its_batch_and_keeps_all(name: str) -> None:
    inputs = example(METRICS[name], 60, 6, 0)
    count = rows_of(METRICS[name])
    metric = built(name, inputs, capacity=50)
    batches = [tuple(z[place] for z in inputs[:count]) for place in (slice(0, 40), slice(40, 60))]
    for batch in batches:
        of_batch = metric(*batch)
        expected = number(fed(name, (*batch, *inputs[count:]), capacity=50))
        assert (None if of_batch is None else float(of_batch)) == (
            None if expected is None else pytest.approx(expected, rel=1e-10, abs=1e-12)
        )
    assert number(metric) == pytest.approx(number(fed(name, inputs, capacity=50)), rel=1e-10, abs=1e-12)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(2, marks=[pytest.mark.slow, pytest.mark.acceptance]),
        pytest.param(3, marks=pytest.mark.slow),
    ],
)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """Values of all metrics in every process of a group, which works them all out at once."""
    return results_of(WORKER, request.param, tmp_path_factory.mktemp("group") / "rendezvous")


@pytest.mark.parametrize("case", ["split", "one-sided", "sampled"])
@pytest.mark.parametrize("name", NAMES)
def test_processes_give_the_value_of_one(shared: list[Any], name: str, case: str) -> None:
    options = {"capacity": 24} if case == "sampled" else {}
    alone = number(fed(name, example(METRICS[name], 60, 6, 0), **options))
    for found in shared:
        assert found[f"{name}, {case}"] == pytest.approx(alone, rel=1e-10, abs=1e-12)


def test_processes_hand_each_other_the_rows_of_one_sample(shared: list[Any]) -> None:
    gathered = shared[0]["rows gathered"]
    assert gathered == 24


def test_a_collection_of_moments_updates_once_for_all() -> None:
    names = [name for name in NAMES if METRICS[name].needs in ("spectrum", "unit spectrum", "moments")]
    z = drawn(80, 6)
    collection = MetricCollection([built(name, (z,)) for name in names])
    for part in z.split(30):
        collection.update(part)
    assert len(collection.compute_groups) == 1
    computed = collection.compute()
    for name in names:
        found, expected = computed[class_name(name)], value(name, z)
        assert (found is None) == (expected is None)
        assert found is None or float(found) == pytest.approx(expected, rel=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_states_are_double_whatever_comes_in_and_is_asked(dtype: torch.dtype) -> None:
    z = drawn(50, 4)
    metric = built("erank_centred", (z,)).to(dtype)
    metric.update(z.to(dtype))
    assert metric.scatter.dtype == torch.float64
    assert number(metric) == pytest.approx(value("erank_centred", z.to(dtype)), rel=1e-12)


def test_values_that_are_not_defined_compute_to_none() -> None:
    assert number(fed("erank_centred", (torch.ones(9, 3),))) is None
    assert number(fed("two_nn", (torch.ones(9, 3),))) is None


def test_options_are_those_of_the_function_and_of_torchmetrics() -> None:
    z = drawn(200, 40)
    metric = streaming.AlphaReq(dim=40, first=3, last=30, sync_on_compute=False)
    metric.update(z)
    assert number(metric) == pytest.approx(METRICS["alpha_req"](z, first=3, last=30))
    with pytest.raises(UnknownNameError, match="unknown option of AlphaReq 'frist'; did you mean 'first'"):
        streaming.AlphaReq(dim=40, frist=3)
    with pytest.raises(AttributeError, match="did you mean 'RankmeUnit'"):
        _ = streaming.RankmeUnti
    with pytest.raises(UsageError, match="at least one row"):
        streaming.Uniformity(dim=3, capacity=0)


@pytest.mark.parametrize("name", NAMES)
def test_rows_that_are_not_finite_are_refused_and_not_taken_in(name: str) -> None:
    inputs = example(METRICS[name], 30, 6, 0)
    metric = fed(name, inputs)
    before = number(metric)
    bad = [z.clone() for z in inputs[: rows_of(METRICS[name])]]
    bad[0][2] = float("nan")
    with pytest.raises(UsageError, match=r"not (all )?finite"):
        metric.update(*bad)
    metric._computed = None
    assert number(metric) == before


def test_what_has_another_shape_is_refused() -> None:
    labels = torch.zeros(5, dtype=torch.long)
    for metric, inputs in (
        (streaming.Level(dim=4), (drawn(5, 3),)),
        (streaming.Uniformity(dim=4), (drawn(5, 3),)),
        (streaming.Alignment(dim=4), (drawn(5, 4), drawn(6, 4))),
        (streaming.Lidar(dim=4), (drawn(5, 2, 3),)),
        (streaming.Cdnv(dim=4), (drawn(5, 4), labels[:3])),
        (streaming.Cdnv(dim=4), (drawn(5, 4), labels.double())),
        (streaming.CodeEntropy(codes=4), (drawn(5, 3),)),
        (streaming.DenseScore(tokens=3, dim=4), (drawn(5, 2, 4),)),
    ):
        with pytest.raises(UsageError) as caught:
            metric.update(*inputs)
        assert "\n" not in str(caught.value)


def test_a_sample_is_uniform_over_the_rows() -> None:
    rows = torch.arange(20_000.0)[:, None]
    kept = rows[row_keys([rows]).argsort()[:1000], 0]
    assert abs(kept.mean().item() - 10_000) < 4 * 5774 / 1000**0.5
    for period in (2, 10, 64):
        assert (kept % period).long().bincount(minlength=period).min() > 0.4 * 1000 / period
    few_digits = rows.bfloat16().double()  # only a few upper bits differ, and keys scatter nonetheless
    assert len(row_keys([few_digits]).unique()) == len(few_digits.unique())


def test_the_collapse_room_imports_nothing_but_torch_and_what_torch_imports() -> None:
    modules = "{name.partition('.')[0] for name in sys.modules}"
    code = (
        f"import sys, torch, numpy; before = {modules}; import fullrank.collapse; print(*{modules} - before)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    allowed = {"fullrank", "safetensors", "yaml", *sys.stdlib_module_names}
    assert set(out.stdout.split()) <= allowed
