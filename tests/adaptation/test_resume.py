"""An adaptation that was interrupted goes on by the same command, to the same end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fullrank
from adaptation.helpers import SMALL, Adapt, same, weights
from cli.helpers import records
from fullrank.adaptation.result import Adaptation, read_result
from fullrank.errors import UsageError
from fullrank.training.records import AdaptationRecord, EndRecord, RunRecord, StepRecord


class Killed(BaseException):
    """Stands for a process that ends."""


def interrupted(start: Path, out: Path, at: type[RunRecord], epoch: int) -> None:
    """Begin an adaptation that ends at a record."""

    def listen(record: RunRecord) -> None:
        if isinstance(record, at) and record.epoch == epoch:
            raise Killed

    with pytest.raises(Killed):
        fullrank.adapt(start, out=out, listeners=[listen], **SMALL)


@pytest.mark.parametrize(
    ("at", "epoch"), [(AdaptationRecord, 0), (StepRecord, 1), (AdaptationRecord, 3), (EndRecord, 4)]
)
def test_it_goes_on_to_the_same_end(
    at: type[RunRecord], epoch: int, start: Path, adapt: Adapt, adapted: Adaptation, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    interrupted(start, out, at, epoch)
    result = adapt(out)
    assert records(out) == records(adapted.path)
    assert same(weights(out), weights(adapted.path))
    assert (result.sentence, result.findings) == (adapted.sentence, adapted.findings)


def test_resume_goes_on_with_it_too(start: Path, adapted: Adaptation, tmp_path: Path) -> None:
    out = tmp_path / "run"
    interrupted(start, out, AdaptationRecord, 2)
    fullrank.resume(out)
    found = read_result(out)
    assert found is not None
    assert found.findings == adapted.findings


def test_what_has_ended_is_told_again_and_not_trained(adapt: Adapt, adapted: Adaptation) -> None:
    before = records(adapted.path)
    assert adapt(adapted.path) == adapted
    assert records(adapted.path) == before


@pytest.mark.parametrize("changes", [{"keep": 0.9}, {"lr": 0.5}, {"labels": "report"}, {"method": "byol"}])
def test_another_adaptation_does_not_go_on_there(
    changes: dict[str, Any], adapt: Adapt, adapted: Adaptation
) -> None:
    with pytest.raises(UsageError, match="take another --out"):
        adapt(adapted.path, **changes)


def test_a_damaged_result_is_named(adapted: Adaptation, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    copy.mkdir()
    (copy / "adaptation.json").write_text(json.dumps({"settings": {}, "result": {"adapted": 1}}))
    with pytest.raises(UsageError, match=r"adaptation\.json is damaged"):
        read_result(copy)
