"""A monitor that threads share measures what one thread would; what holds no numbers is refused in a line."""

from __future__ import annotations

import copy
import pickle
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import fullrank
from fullrank.collapse import CollapseMonitor
from fullrank.errors import UsageError

ROWS = torch.randn(1600, 12, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Python changes from thread to thread every few instructions."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("often_switched")
def test_rows_of_several_threads_are_measured_as_those_of_one() -> None:
    alone, shared = CollapseMonitor(), CollapseMonitor()
    chunks = [({"z": z, "w": -z}, {"z": (z, z + 0.1)}) for z in ROWS.split(20)]
    for taps, pairs in chunks:
        alone.observe(taps, pairs)
    with ThreadPoolExecutor(4) as threads:
        for done in [threads.submit(shared.observe, taps, pairs) for taps, pairs in chunks]:
            done.result()
    one, several = alone.close(), shared.close()
    for tap, panel in one.panels.items():
        assert several.panels[tap].n == panel.n == len(ROWS)
        for name in ("level", "erank_centred"):
            assert several.panels[tap].value(name) == pytest.approx(panel.value(name), rel=1e-6)


@pytest.mark.usefixtures("often_switched")
def test_steps_of_several_threads_are_all_counted() -> None:
    monitor = CollapseMonitor(every=10**9)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: monitor.step(ROWS[:2]), range(400)))
    assert monitor.state_dict()["calls"] == 400


def test_copies_and_pickles_of_a_monitor_go_on() -> None:
    monitor = CollapseMonitor()
    monitor.observe(ROWS)
    for copied in (copy.deepcopy(monitor), pickle.loads(pickle.dumps(monitor))):
        copied.observe(ROWS)
        assert copied.close().panels["embedding"].n == 2 * len(ROWS)


NO_NUMBERS = {
    "device meta": ROWS.to("meta"),
    "to_dense": ROWS.to_sparse(),
    "sparse": ROWS.to_sparse_csr(),
    "dequantize": torch.quantize_per_tensor(ROWS, 0.1, 0, torch.qint8),
    "booleans": ROWS > 0,
    "nested": torch.nested.nested_tensor([ROWS]),
}


@pytest.mark.parametrize("why", NO_NUMBERS)
@pytest.mark.parametrize("ask", ["observe", "codes", "pairs", "step", "audit"])
def test_a_tensor_without_numbers_is_refused_alike_everywhere(why: str, ask: str) -> None:
    z, monitor = NO_NUMBERS[why], CollapseMonitor()
    asked: dict[str, Any] = {
        "observe": lambda: monitor.observe(z),
        "codes": lambda: monitor.observe({"codes": z}),
        "pairs": lambda: monitor.observe({}, {"z": (ROWS, z)}),
        "step": lambda: monitor.step(z),
        "audit": lambda: fullrank.audit(z),
    }
    with pytest.raises(UsageError, match=why) as caught:
        asked[ask]()
    assert "\n" not in str(caught.value) and "damaged" not in str(caught.value)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_numbers_of_eight_bits_are_measured_as_the_same_in_single_precision(dtype: torch.dtype) -> None:
    def judged(z: Tensor) -> float | None:
        monitor = CollapseMonitor()
        monitor.observe({"z": z, "codes": z}, {"z": (z, z)})
        return monitor.close().panels["z"].value("erank_centred")

    assert judged(ROWS.to(dtype)) == judged(ROWS.to(dtype).float())


def test_masked_entries_are_refused_and_counted_and_an_empty_mask_is_none() -> None:
    masked = np.ma.masked_greater(ROWS.numpy(), 2.0)
    with pytest.raises(UsageError, match=f"{int(masked.mask.sum())} entries of the array are masked"):
        fullrank.audit(masked)
    assert fullrank.audit(np.ma.array(ROWS.numpy())).n == len(ROWS)
