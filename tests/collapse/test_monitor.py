"""The monitor: readings while training, reports on held-out rows, a history that survives."""

import json
import math
from collections.abc import Callable
from contextlib import suppress

import pytest
import torch

from expect import known
from fullrank.collapse import CollapseMonitor, Moments, Panel, Report, level
from fullrank.errors import UsageError

Rows = Callable[..., torch.Tensor]


def run(monitor: CollapseMonitor, z: torch.Tensor, tap: str = "projector") -> Report:
    for chunk in z.split(64):
        monitor.observe({tap: chunk})
    return monitor.close()


def test_a_step_reads_the_level_of_each_tap(gaussian: Rows) -> None:
    z = gaussian(64, 16).float().requires_grad_()
    reading = CollapseMonitor().step({"projector": z, "backbone": torch.ones(64, 8, dtype=torch.bfloat16)})
    assert reading == {"projector": pytest.approx(level(z), rel=1e-5), "backbone": 0.0}


def test_a_step_is_measured_every_so_often(gaussian: Rows) -> None:
    monitor, taps = CollapseMonitor(every=3), {"z": gaussian(8, 4)}
    assert [bool(monitor.step(taps)) for _ in range(7)] == [True, False, False] * 2 + [True]
    resumed = CollapseMonitor(every=3)
    resumed.load_state_dict(monitor.state_dict())
    assert [bool(resumed.step(taps)) for _ in range(3)] == [False, False, True]


def test_a_step_with_nothing_to_read(gaussian: Rows) -> None:
    monitor = CollapseMonitor()
    assert monitor.step({}) == {}
    assert monitor.step({"z": gaussian(1, 4)}) == {}
    assert math.isnan(monitor.step({"z": torch.full((4, 4), float("nan"))})["z"])


def test_chunks_give_the_panel_of_the_whole(gaussian: Rows) -> None:
    za, zb = gaussian(500, 16), gaussian(500, 16, seed=1)
    monitor = CollapseMonitor()
    for a, b in zip(za.split(77), zb.split(77), strict=True):
        monitor.observe({"projector": a, "backbone": b}, pairs={"projector": (a, a + 0.1 * b)})
    report = monitor.close()
    whole = Panel.from_moments("projector", Moments.of(za), za, (za, za + 0.1 * zb))
    for name, measure in whole.measures.items():
        assert report.panels["projector"].value(name) == pytest.approx(measure.value, rel=1e-6), name
    assert "alignment" not in report.panels["backbone"].measures
    assert list(report.verdicts) == ["projector", "backbone"]
    assert report.verdict is report.verdicts["projector"]
    assert json.loads(json.dumps(report.as_dict()))["verdict"]["kind"] == "healthy"


def test_without_the_main_tap_the_last_one_counts(gaussian: Rows) -> None:
    monitor = CollapseMonitor()
    monitor.observe({"backbone": gaussian(100, 4), "predictor": torch.ones(100, 4)})
    report = monitor.close()
    assert (report.verdict.tap, report.verdict.kind) == ("predictor", "complete")


def test_the_reservoir_is_bounded(gaussian: Rows) -> None:
    monitor = CollapseMonitor(capacity=50)
    assert run(monitor, gaussian(300, 8)).panels["projector"].measures["uniformity"].n == 50


def test_a_growing_collapse_has_a_trend_and_is_named(gaussian: Rows) -> None:
    monitor, z = CollapseMonitor(), gaussian(640, 32)
    kinds, trends = [], []
    for constant in (0.0, 1.0, 2.0, 4.0, 16.0):
        report = run(monitor, z + constant)
        kinds.append(report.verdict.kind)
        trends.append(report.verdict.evidence[0].trend)
    assert kinds == ["healthy"] * 3 + ["complete"] * 2
    assert trends[0] is None
    later = [known(trend) for trend in trends[1:]]
    assert later == sorted(later, reverse=True)
    assert later[-1] < -0.9


def test_dimensions_that_die_one_by_one_are_named(gaussian: Rows) -> None:
    monitor, z = CollapseMonitor(), gaussian(640, 32)
    kinds = [run(monitor, z * (torch.arange(32) < k)).verdict.kind for k in (32, 24, 16, 4, 2)]
    assert kinds == ["healthy"] * 3 + ["dimensional"] * 2


def test_the_untrained_network_enters_no_history(gaussian: Rows) -> None:
    monitor = CollapseMonitor()
    monitor.observe({"projector": gaussian(200, 32)})
    assert monitor.close(trained=False).verdict.why == "no step taken yet"
    report = run(monitor, gaussian(200, 32) * (torch.arange(32) < 16))
    assert report.verdict.kind == "healthy"
    assert report.verdict.evidence[0].trend is None


def test_a_resumed_run_judges_identically(gaussian: Rows) -> None:
    first, z = CollapseMonitor(), gaussian(300, 32)
    run(first, z)
    resumed = CollapseMonitor()
    resumed.load_state_dict(json.loads(json.dumps(first.state_dict())))
    later = z * (torch.arange(32) < 4)
    a, b = run(first, later), run(resumed, later)
    assert a.verdict.kind == "dimensional"
    assert (a.verdicts, a.panels) == (b.verdicts, b.panels)
    assert first.state_dict()["history"] == resumed.state_dict()["history"]


def test_close_starts_anew(gaussian: Rows) -> None:
    monitor = CollapseMonitor()
    assert run(monitor, torch.ones(100, 4)).verdict.kind == "complete"
    assert run(monitor, gaussian(100, 4)).panels["projector"].n == 100
    with pytest.raises(UsageError, match="nothing was observed"):
        monitor.close()


def test_errors_name_the_tap(gaussian: Rows) -> None:
    monitor, bad = CollapseMonitor(), gaussian(5, 4)
    bad[3] = float("inf")
    with pytest.raises(UsageError, match="tap 'backbone': 1 of 5 embedding rows"):
        monitor.observe({"backbone": bad})
    with pytest.raises(UsageError, match=r"tap 'maps': .*\[2, 3, 4, 4\]: pool or flatten it"):
        monitor.observe({"maps": torch.zeros(2, 3, 4, 4)})
    with pytest.raises(UsageError, match="tap 'z': two views"):
        monitor.observe({}, pairs={"z": (torch.zeros(2, 3), torch.zeros(3, 3))})
    with pytest.raises(UsageError, match="every must be at least 1"):
        CollapseMonitor(every=0)


def test_it_counts_its_own_time(gaussian: Rows) -> None:
    monitor = CollapseMonitor()
    assert monitor.seconds == 0
    run(monitor, gaussian(100, 16))
    spent = monitor.seconds
    assert 0 < spent < 60
    monitor.step({"z": gaussian(10, 4)})
    assert monitor.seconds > spent


@pytest.mark.parametrize("bad", ["empty", "not finite", "narrow"])
def test_what_a_monitor_refuses_does_not_spoil_what_it_has_seen(gaussian: Rows, bad: str) -> None:
    z, monitor = gaussian(200, 16), CollapseMonitor()
    monitor.observe({"projector": z})
    worse = {"empty": z[:0], "not finite": z * float("nan"), "narrow": z[0]}[bad]
    with suppress(UsageError):
        monitor.observe({"backbone": worse})
    report = monitor.close()
    assert list(report.panels) == ["projector"]
    monitor.observe({"projector": z, "backbone": z})
    assert list(monitor.close().panels) == ["projector", "backbone"]


def test_a_monitor_that_could_not_judge_starts_anew(gaussian: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monitor = CollapseMonitor()
    monitor.observe({"projector": 1e-40 * gaussian(200, 16).double()})
    with pytest.raises(UsageError, match="scale them"):
        monitor.close()
    monitor.observe({"projector": gaussian(200, 16)})
    assert monitor.close().verdict.kind == "healthy"


def test_a_tensor_alone_is_the_tap_embedding(gaussian: Rows) -> None:
    monitor = CollapseMonitor()
    assert monitor.step(gaussian(64, 16)).keys() == {"embedding"}
    monitor.observe(gaussian(64, 16))
    assert list(monitor.close().panels) == ["embedding"]
    with pytest.raises(UsageError, match=r"a tensor \[n, d\], or several by name, not \[1.0, 2.0\]"):
        monitor.observe([1.0, 2.0])  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [8, 600])
def test_a_panel_is_printed_in_ten_lines_and_never_its_spectra(gaussian: Rows, width: int) -> None:
    z = gaussian(800, width)
    monitor = CollapseMonitor()
    monitor.observe({"projector": z}, {"projector": (z[:100], z[100:200])})
    report = monitor.close()
    lines = str(report.panels["projector"]).splitlines()
    assert len(lines) == 10 and all(len(line) < 60 for line in lines)
    assert lines[0] == f"projector: 800 rows of width {width}" and lines[2].startswith(
        "normalized std (level)"
    )
    assert len(repr(report.panels["projector"])) < 80 and "array" not in repr(report)
    assert str(report).splitlines()[1:] == lines
