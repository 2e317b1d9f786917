"""Two processes with half the rows each see what one process sees, to the last digits."""

from pathlib import Path

import pytest

from processes import results_of

WORKER = Path(__file__).parent / "gloo_worker.py"


def test_two_processes_give_the_report_of_one(tmp_path: Path) -> None:
    (one,) = results_of(WORKER, 1, tmp_path / "unused")
    first, second = results_of(WORKER, 2, tmp_path / "rendezvous")
    assert first == second
    assert first["panels"].keys() == one["panels"].keys() == {"projector", "head"}
    assert first["sums"] == pytest.approx(one["sums"], rel=1e-10, abs=1e-12)
    assert first["far"] == pytest.approx(one["far"], rel=1e-9)
    assert first["sampled"] == one["sampled"] == 60
    assert first["outliers"] == one["outliers"] == ["healthy", 60, 1340]
    assert first["verdict"]["kind"] == one["verdict"]["kind"] == "healthy"
    for tap, panel in one["panels"].items():
        assert first["panels"][tap]["n"] == panel["n"]
        assert first["panels"][tap]["measures"].keys() == panel["measures"].keys()
        for name, measure in panel["measures"].items():
            for key, number in measure.items():
                other = first["panels"][tap]["measures"][name][key]
                assert other == (number if number is None else pytest.approx(number, rel=1e-10)), (tap, name)
