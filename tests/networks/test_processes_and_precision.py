"""Collectives whose gradients are one process's, and losses that stay in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from fullrank.errors import FullrankError
from fullrank.networks.precision import in_full_precision, or_diverged
from fullrank.networks.processes import (
    from_first_process,
    gather_rows,
    mean_over_processes,
    own_rows,
    sum_over_processes,
    world,
)
from processes import printed_together

WORKER = Path(__file__).parent / "processes_worker.py"
HALVES = [torch.float16, torch.bfloat16]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What one process computes, then each of two."""
    folder = tmp_path_factory.mktemp("processes")
    outputs = {(rank, size): folder / f"{size}-{rank}.pt" for size in (1, 2) for rank in range(size)}
    calls = [[str(r), str(size), str(folder / "meet"), str(output)] for (r, size), output in outputs.items()]
    printed_together(WORKER, calls)
    return [torch.load(output, weights_only=True) for output in outputs.values()]


@pytest.mark.parametrize(
    "name",
    [
        "gather_rows",
        "gather_columns",
        "sum_over_processes",
        "mean_over_processes",
        "log_mean_of_codes",
        "log_mean_of_codes_far",
    ],
)
@pytest.mark.parametrize("what", ["value", "gradient"])
def test_two_processes_compute_what_one_does_of_the_whole_batch(
    results: list[dict[str, Any]], name: str, what: str
) -> None:
    one, *two = (result[name][what] for result in results)
    for other in two:
        torch.testing.assert_close(other, one, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("what", ["value", "gradient", "mean", "variance"])
def test_synchronised_batch_norm_is_that_of_the_whole_batch(results: list[dict[str, Any]], what: str) -> None:
    one, *two = (result["batch_norm"][what] for result in results)
    for other in two:
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


def test_a_queue_holds_the_rows_of_all_processes_in_one_order(results: list[dict[str, Any]]) -> None:
    one, *two = (result["queue"] for result in results)
    assert all(torch.equal(other, one) for other in two)


def test_own_rows_and_gather_rows_undo_each_other(results: list[dict[str, Any]]) -> None:
    one, *two = (result["own_rows"] for result in results)
    assert all(torch.equal(other, one) for other in two)


def test_all_processes_take_the_first_ones_draw_in_whatever_memory_order(
    results: list[dict[str, Any]],
) -> None:
    one, *two = (result["from_first_process"] for result in results)
    assert all(torch.equal(other, one) for other in two)


def test_the_draw_of_a_later_process_is_not_written_over(results: list[dict[str, Any]]) -> None:
    assert all(result["untouched"] for result in results)


@pytest.mark.parametrize(
    "function", [gather_rows, sum_over_processes, mean_over_processes, own_rows, from_first_process]
)
def test_without_a_process_group_everything_is_the_identity(function: Any) -> None:
    x = torch.randn(4, 3)
    assert world() == (0, 1)
    assert torch.equal(function(x), x)


# precision


@in_full_precision
def product(x: Tensor, y: Tensor) -> Tensor:
    return x @ y


@in_full_precision
def product_of_both(pair: list[Tensor]) -> Tensor:
    return pair[0] @ pair[1]


def operands(dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(16, 16, generator=generator, dtype=torch.float64).to(dtype) for _ in range(2)]


@pytest.fixture
def autocast() -> Iterator[None]:
    with torch.autocast("cpu", torch.bfloat16):
        yield


@pytest.mark.parametrize("dtype", HALVES)
def test_half_precision_arguments_become_single(dtype: torch.dtype) -> None:
    x, y = operands(dtype)
    assert torch.equal(product(x, y), x.float() @ y.float())


@pytest.mark.usefixtures("autocast")
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
@pytest.mark.parametrize("form", ["positional", "keyword", "list", "tuple", "list by keyword"])
def test_autocast_does_not_round_inside(dtype: torch.dtype, form: str) -> None:
    x, y = operands(dtype)
    result = {
        "positional": lambda: product(x, y),
        "keyword": lambda: product(x, y=y),
        "list": lambda: product_of_both([x, y]),
        "tuple": lambda: product_of_both((x, y)),  # type: ignore[arg-type]
        "list by keyword": lambda: product_of_both(pair=[x, y]),
    }[form]()
    with torch.autocast("cpu", enabled=False):
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert torch.equal(result, x.to(wide) @ y.to(wide))


@pytest.mark.usefixtures("autocast")
def test_autocast_rounds_again_behind_it() -> None:
    x, y = operands(torch.float32)
    product(x, y)
    assert (x @ y).dtype == torch.bfloat16


@pytest.mark.usefixtures("autocast")
def test_autocast_is_on_again_after_an_error_inside() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        product(torch.ones(2, 3), torch.ones(2, 3))
    assert torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("form", ["tensors", "list"])
def test_autocast_of_the_arguments_own_device_is_what_is_switched_off(
    form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: set[str] = set()

    def never(kind: str) -> bool:
        asked.add(kind)
        return False

    monkeypatch.setattr(torch, "is_autocast_enabled", never)
    with FakeTensorMode():
        x, y = (torch.ones(2, 2, device="cuda", dtype=torch.bfloat16) for _ in range(2))
        result = product(x, y) if form == "tensors" else product_of_both([x, y])
    assert "cuda" in asked
    assert result.dtype == torch.float32


def test_what_is_no_tensor_passes_as_it_is() -> None:
    @in_full_precision
    def echo(*values: Any, **named: Any) -> Any:
        return values, named

    given = ("text", 3, None, [1, 2], {"a": 1})
    assert echo(*given, key=(1, 2)) == (given, {"key": (1, 2)})


def test_gradients_pass_back_in_the_arguments_precision() -> None:
    x, y = (tensor.requires_grad_() for tensor in operands(torch.bfloat16))
    assert torch.autograd.grad(product(x, y).sum(), x)[0].dtype == torch.bfloat16


def test_a_failed_decomposition_says_that_training_diverged() -> None:
    with (
        pytest.raises(FullrankError, match="training has diverged: lower --lr, or clip") as raised,
        or_diverged(),
    ):
        torch.linalg.eigh(torch.full((3, 3), torch.nan))
    assert "\n" not in str(raised.value)


def test_any_other_failure_passes_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="must be batches of square matrices"), or_diverged():
        torch.linalg.eigh(torch.ones(2, 3))
