"""When a collapse began, of which kind, and by which mechanism: from records that say so by construction."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fullrank.cures.onset import begin_of_collapse, diagnose
from fullrank.report.run.reading import Run
from fullrank.training.records import EndRecord, EpochRecord

COLLAPSES = ("complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment")
KINDS = st.sampled_from(["healthy", "not decidable", *COLLAPSES])


def panel(epoch: int, kind: str, **more: Any) -> EpochRecord:
    return EpochRecord(epoch=epoch, step=10 * epoch, verdict={"kind": kind, "tap": "projector", **more})


def run_of(*kinds: str, end: str = "finished", config: dict[str, Any] | None = None, **last: Any) -> Run:
    panels = [panel(epoch, kind) for epoch, kind in enumerate(kinds, 1)]
    panels[-1:] = [panel(len(kinds), kinds[-1], **last)]
    return Run(Path("runs/a"), config or {}, epochs=panels, end=EndRecord(reason=end) if end else None)


@given(st.lists(KINDS, min_size=1, max_size=12))
def test_no_panel_after_the_onset_is_healthy_and_the_last_healthy_one_comes_before(kinds: list[str]) -> None:
    onset, healthy = begin_of_collapse(panel(epoch, kind) for epoch, kind in enumerate(kinds, 1))
    assert healthy == max((e for e, kind in enumerate(kinds, 1) if kind == "healthy"), default=None)
    after = [e for e, kind in enumerate(kinds, 1) if kind in COLLAPSES and e > (healthy or 0)]
    assert onset == min(after, default=None)


@given(st.lists(KINDS, min_size=1, max_size=12))
def test_a_run_is_collapsed_exactly_if_its_last_panel_says_so(kinds: list[str]) -> None:
    found = diagnose(run_of(*kinds))
    expected = "collapsed" if kinds[-1] in COLLAPSES else kinds[-1]
    assert found.state == expected
    assert (found.kinds != ()) == (expected == "collapsed")


@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from(COLLAPSES))
def test_a_run_that_falls_once_has_its_onset_there(sound: int, broken: int, kind: str) -> None:
    found = diagnose(run_of(*["healthy"] * sound, *[kind] * broken))
    assert (found.onset, found.healthy, found.kinds) == (sound + 1, sound, (kind,))


def test_a_run_that_never_was_healthy_has_no_healthy_epoch() -> None:
    found = diagnose(run_of("not decidable", "complete", "complete"))
    assert (found.state, found.onset, found.healthy) == ("collapsed", 2, None)


def test_the_untrained_network_is_no_healthy_epoch() -> None:
    assert begin_of_collapse([panel(0, "healthy"), panel(1, "complete")]) == (1, None)


def test_codes_that_are_used_alike_count_as_collapsed_though_the_projector_is_healthy() -> None:
    record = EpochRecord(
        epoch=3,
        verdict={"kind": "healthy", "tap": "projector"},
        verdicts={"codes": {"kind": "uniform-assignment", "tap": "codes", "why": "all alike"}},
    )
    found = diagnose(Run(Path("runs/a"), epochs=[record], end=EndRecord(reason="finished")))
    assert (found.state, found.kinds) == ("collapsed", ("uniform-assignment",))
    assert found.why == "codes: all alike"


def test_a_dip_of_a_run_that_goes_on_is_passing_and_one_at_the_end_of_a_run_is_not() -> None:
    assert diagnose(run_of("dimensional", end="", phase="transient")).state == "passing"
    assert diagnose(run_of("dimensional", end="finished", phase="transient")).state == "collapsed"


def test_a_run_without_a_panel_is_not_decidable() -> None:
    found = diagnose(Run(Path("runs/a")))
    assert found.state == "not decidable" and "train it for longer" in found.why


def test_evidence_names_the_setting_that_is_off_and_the_mechanism() -> None:
    config = {"method": "simsiam", "data": "shapes", "options": {"stop_gradient": False}}
    evidence = diagnose(run_of("healthy", "complete", config=config)).evidence
    assert any(
        "options.stop_gradient is False" in line and "served by a constant" in line for line in evidence
    )


def test_evidence_tells_of_a_target_whose_rank_is_the_lower_one() -> None:
    record = EpochRecord(epoch=1, verdict={"kind": "dimensional"}, rank_difference=-4.0)
    found = diagnose(Run(Path("runs/a"), epochs=[record], end=EndRecord(reason="finished")))
    assert any("target's rank is 4" in line for line in found.evidence)


def test_evidence_tells_of_codes_that_are_not_in_use() -> None:
    record = EpochRecord(epoch=1, verdict={"kind": "cluster"}, usage={"codes": 1024, "perplexity": 8.0})
    found = diagnose(Run(Path("runs/a"), epochs=[record], end=EndRecord(reason="finished")))
    assert any("of 1,024 codes are in use" in line for line in found.evidence)
