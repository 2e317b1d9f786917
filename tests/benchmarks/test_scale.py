"""The model of step time, the page that is made of it, and the row of weak scaling."""

from __future__ import annotations

import importlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]
SECONDS = st.floats(1e-4, 10.0)


@pytest.fixture(autouse=True)
def beside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def model() -> Any:
    spec = importlib.util.spec_from_file_location("scale_model", ROOT / "benchmarks" / "scale_model.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules["scale_model"] = module
    spec.loader.exec_module(module)
    return module


def maker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_scale_table", ROOT / "docs" / "make_scale_table.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_its_script_writes() -> None:
    assert (ROOT / "docs" / "scale.md").read_text() == maker().page(), "run python docs/make_scale_table.py"


def test_the_page_tells_what_was_measured_and_how_far_off_the_prediction_was() -> None:
    found = json.loads((ROOT / "benchmarks" / "scale.json").read_text())["check"]
    page = (ROOT / "docs" / "scale.md").read_text()
    assert found["date"] in page and found["command"] in page
    assert [row["processes"] for row in found["rows"]] == [1, 2, 4]
    for row in found["rows"][1:]:
        for kind in ("plain", "synchronised"):
            error = row[kind]["predicted"] / row[kind]["measured"] - 1
            assert error == pytest.approx(row[kind]["error"]) and f"{error:+.0%}" in page


def test_counts_of_known_networks_are_those_of_the_literature() -> None:
    networks = json.loads((ROOT / "benchmarks" / "scale.json").read_text())["networks"]
    resnet, base, large = networks.values()
    assert (resnet["backbone"], base["backbone"]) == (23_508_032, 85_798_656)
    assert large["backbone"] == 303_301_632
    assert resnet["flop"] == pytest.approx(8.2e9, rel=0.01)  # 4.1 GMAC
    assert base["flop"] == pytest.approx(35.2e9, rel=0.01)


def test_a_ring_sends_what_its_formula_says() -> None:
    links = model().Links(latency=1e-3, bandwidth=1e6)
    assert links.all_reduce(4e6, 4) == pytest.approx(2 * 3 * 1e-3 + 2 * 3 / 4 * 4)
    assert links.all_gather(4e6, 4) == pytest.approx(3 * 1e-3 + 3 / 4 * 4)
    assert links.all_reduce(4e6, 1) == 0.0


@given(SECONDS, SECONDS, st.floats(0, 1e9), st.floats(1e7, 1e12), st.integers(2, 512))
def test_a_step_takes_no_less_than_its_parts_and_no_more_than_all_in_turn(
    forward: float, backward: float, gradients: float, bandwidth: float, devices: int
) -> None:
    m = model()
    links = m.Links(1e-5, bandwidth, 2e-5, bandwidth / 2, 8)
    found = m.predict(m.Step(forward, backward, gradients=gradients, reduced=(4096.0,)), links, devices)
    assert found.compute + found.waits <= found.seconds * (1 + 1e-12)
    assert found.seconds <= (found.compute + found.messages) * (1 + 1e-12)
    assert 0 < found.efficiency <= 1


@settings(deadline=None)
@given(st.floats(0, 1e9))
def test_buckets_hold_all_gradients(gradients: float) -> None:
    assert sum(model().buckets(gradients)) == pytest.approx(gradients)


def test_messages_as_long_as_the_backward_pass_hide_but_for_the_last() -> None:
    m = model()
    gradients = m.FIRST_BUCKET + 3 * m.BUCKET
    links = m.Links(0.0, 2 * gradients)  # two devices: as long as the backward pass of half a second
    found = m.predict(m.Step(0.0, 0.5, gradients=gradients), links, 2)
    assert found.exposed == pytest.approx(0.5 * m.BUCKET / gradients, rel=1e-6)


def test_weak_scaling_is_the_time_of_one_process_over_that_of_two(monkeypatch: pytest.MonkeyPatch) -> None:
    scaling = importlib.import_module("weak_scaling")
    seconds = {("ours", 1): 0.9, ("ours", 2): 1.0, ("lightly", 1): 0.8, ("lightly", 2): 1.0}
    monkeypatch.setattr(scaling, "seconds", lambda way, n: seconds[way, n])
    plain, peer = scaling.rows(3)
    assert plain.turns == (0.9,) * 3 and peer.value == pytest.approx(0.9 / 0.8)
    assert (peer.ours, peer.theirs, peer.mark) == (0.9, 0.8, "")


def test_weak_scaling_is_a_group_of_the_one_table() -> None:
    assert "weak_scaling" in importlib.import_module("bench").GROUPS
    words = (ROOT / "benchmarks" / "weak_scaling_step.py").read_text()
    assert compile(words, "weak_scaling_step.py", "exec") is not None
