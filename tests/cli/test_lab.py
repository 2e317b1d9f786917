"""`fullrank lab` runs a lab, says what is wrong in one line, and writes the page again from what is there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.helpers import call
from fullrank.labs import LABS
from labs.toy import Toy


@pytest.fixture(autouse=True)
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LABS._items, "toy", Toy)


def toys(*words: str) -> Any:
    return call("lab", "toy", "--jobs", "1", "--no-figures", *words)


def test_without_a_name_the_labs_are_named() -> None:
    called = call("lab")
    assert called.code == 0 and "asymmetry" in called.out and "failures" in called.out


def test_labs_are_listed_with_presets_and_parts() -> None:
    rows = {row["name"]: row for row in json.loads(call("list", "labs", "--json").out)}
    assert {"laptop", "paper"} <= set(rows["failures"]["presets"])
    assert rows["asymmetry"]["parts"] == ["tutorial", "tutorial-fixed", "simsiam-2x2", "asym-siam"]


def test_a_lab_ends_with_its_claims_its_page_and_exit_code_0(here: Path) -> None:
    called = toys()
    assert called.code == 0
    assert "confirmed      High is higher." in called.out and "page    labs/toy/report.html" in called.out
    assert {"lab.json", "report.html", "plan.json", "cells"} == {
        p.name for p in (here / "labs/toy").iterdir()
    }


def test_json_is_one_object_with_claims_and_the_page(here: Path) -> None:
    found = json.loads(toys("--json", "--seeds", "4,2", "--parts", "two").out)
    assert found["seeds"] == [4, 2] and found["parts"] == ["two"] and found["missing"] == {}
    assert found["claims"][0]["verdict"] == "confirmed" and (here / found["page"]).is_file()


def test_seeds_and_parts_may_be_added_and_the_page_shows_them_all(here: Path) -> None:
    toys("--seeds", "0", "--parts", "one")
    toys("--seeds", "1", "--parts", "two")
    jobs = json.loads((here / "labs/toy/lab.json").read_text())["cells"]
    done = {(job["part"], job["seed"]) for job in jobs}
    assert done == {("one", 0), ("two", 1)}
    toys()
    assert len(json.loads((here / "labs/toy/lab.json").read_text())["cells"]) == 8


def test_a_failing_job_is_named_in_one_line_and_where_all_fail_there_is_no_page(here: Path) -> None:
    for preset in ("all-broken", "broken"):
        called = toys("--preset", preset, "--seeds", "0", "--parts", "one", "--out", f"labs/{preset}")
        page = here / "labs" / preset / "report.html"
        assert called.code == 1 and called.err.count("\n") == 1 and "this arm is broken" in called.err
        assert page.exists() is (preset == "broken")
    assert called.err == "fullrank: one: low, seed 0 failed: this arm is broken\n"
    assert "this arm is broken" in page.read_text()


def test_the_page_is_written_again_without_running_anything(here: Path) -> None:
    toys("--seeds", "0", "--parts", "one")
    page = here / "labs/toy/report.html"
    page.unlink()
    stamp = {p: p.stat().st_mtime_ns for p in (here / "labs/toy/jobs").rglob("*")}
    assert toys("--report-only").code == 0 and page.is_file()
    assert stamp == {p: p.stat().st_mtime_ns for p in (here / "labs/toy/jobs").rglob("*")}


def test_another_preset_in_the_same_folder_is_refused_in_one_line() -> None:
    toys("--seeds", "0", "--parts", "one")
    called = toys("--preset", "broken")
    assert called.code == 2 and called.err.count("\n") == 1
    assert "labs/toy holds the lab toy with the preset laptop" in called.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("lab", "asymetry"), "unknown lab 'asymetry'; did you mean 'asymmetry'?"),
        (("lab", "toy", "--preset", "lapto"), "unknown preset 'lapto'; did you mean 'laptop'?"),
        (("lab", "toy", "--parts", "on"), "unknown part of toy 'on'; did you mean 'one'?"),
        (("lab", "toy", "--seeds", "1,x"), "--seeds takes numbers with commas between"),
        (("lab", "toy", "--seeds", "1,1"), "--seeds are whole numbers"),
        (("lab", "toy", "--data", "shapes"), "needs no data"),
        (("lab", "toy", "--report-only"), "holds no lab"),
        (("lab", "toy", "--dry-run", "--report-only"), "leave it out, or --report-only"),
        (("lab", "toy", "--dry-run", "--only", "one-low-seed-0"), "leave it out, or --only"),
        (("lab", "toy", "--jbos", "2"), "unknown option --jbos"),
    ],
)
def test_bad_usage_is_one_line_and_exit_code_2(words: tuple[str, ...], message: str) -> None:
    called = call(*words)
    assert called.code == 2 and called.err.startswith("fullrank: ") and called.err.count("\n") == 1
    assert message in called.err


def test_a_folder_of_somebody_elses_is_refused(here: Path) -> None:
    (here / "mine").mkdir()
    (here / "mine" / "work.txt").write_text("work")
    called = toys("--out", "mine")
    assert called.code == 2 and "mine exists already and holds no lab" in called.err
    assert [path.name for path in (here / "mine").iterdir()] == ["work.txt"]


def test_a_dry_run_lists_the_runs_and_neither_runs_nor_writes(here: Path) -> None:
    called = toys("--dry-run", "--parts", "one")
    assert called.code == 0 and not (here / "labs").exists()
    assert "high" in called.out and "low" in called.out
    assert "plan      6 runs of 6 to do, 1 at a time: no finished run tells how long" in called.out


def test_a_dry_run_takes_its_estimate_from_finished_runs_alone(here: Path) -> None:
    toys("--seeds", "0", "--parts", "one")
    for arm, seconds in {"high": 60.0, "low": 120.0}.items():
        file = here / f"labs/toy/cells/one-{arm}-seed-0/result.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), "seconds": seconds}))
    found = json.loads(toys("--dry-run", "--json", "--seeds", "0,1", "--parts", "one,two").out)
    runs = {run["name"]: run for run in found["runs"]}
    assert found["state"] == "planned" and len(runs) == 8
    assert [name for name, run in runs.items() if run["done"]] == ["one: high, seed 0", "one: low, seed 0"]
    assert runs["one: high, seed 1"]["seconds"] == 60 and runs["two: low, seed 1"]["seconds"] == 90
    assert found["seconds"] == 60 + 120 + 4 * 90


def test_a_dry_run_of_a_finished_lab_has_nothing_left() -> None:
    toys("--seeds", "0", "--parts", "one")
    assert "every job has a result" in toys("--dry-run").out


def test_a_dry_run_knows_the_epochs_of_what_is_trained() -> None:
    found = json.loads(call("lab", "failures", "--dry-run", "--json", "--seeds", "0").out)
    assert found["seconds"] is None and all(run["epochs"] >= 1 for run in found["runs"])
