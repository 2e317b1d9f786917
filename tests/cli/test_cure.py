"""`fullrank cure` from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cures.fake import write_arms, write_run
from fullrank.cli import main
from fullrank.cures.cure import make_plan, run_cure
from fullrank.cures.options import CureOptions
from fullrank.cures.plan import CurePlan

BROKEN = ["complete"] * 8
WORDS = ["--most", "2", "--minutes", "1000"]


def test_a_healthy_run_has_nothing_to_cure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", ["healthy"] * 4)
    assert main(["cure", str(run)]) == 0
    assert capsys.readouterr().out.startswith("nothing to cure: the run is healthy")
    assert not (run / "cure").exists()


def test_what_is_not_decidable_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = write_run(tmp_path / "run", ["not decidable"] * 4)
    assert main(["cure", str(run), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "not decidable"


def test_a_dry_run_lists_arms_and_cost_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", BROKEN)
    assert main(["cure", str(run), *WORDS, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    for words in ("untreated", "stop-gradient", "options.stop_gradient False → True", "about"):
        assert words in printed
    assert not (run / "cure").exists()


def test_the_table_the_headline_and_the_command_are_printed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", BROKEN)
    options = CureOptions(most=2, minutes=1000.0)
    plan = make_plan(run, options)
    assert isinstance(plan, CurePlan)
    write_arms(plan, {"stop-gradient": ("healthy", 0.5), "untreated": ("complete", 0.3)})
    run_cure(plan, options)
    assert main(["cure", str(run), *WORDS, "--quiet"]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for words in ("+20.0 ± 0.0 points", "Cured by “stop-gradient”", "go on fullrank resume", "cure.html"):
        assert words in printed


def test_what_is_no_run_ends_in_a_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cure", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("option", ["--most=0", "--seeds=0", "--minutes=-1"])
def test_an_option_that_cannot_be_ends_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["cure", str(write_run(tmp_path / "run", BROKEN)), option]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("place", [1, 5, 8], ids=["early", "late", "the last one"])
@pytest.mark.parametrize("damage", ['{"event": "epoch", "verdict": {"kind": ["a"]}}', "\x00\x00", "{", "[]"])
def test_damaged_records_are_named_and_no_run_is_called_healthy_for_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: int, damage: str
) -> None:
    run = write_run(tmp_path / "run", ["healthy", *BROKEN[1:]])
    lines = (run / "metrics.jsonl").read_text().splitlines()
    lines[place] = damage
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["cure", str(run), "--dry-run"]) == 2
    said = capsys.readouterr()
    assert "is damaged (1 line cannot be read)" in said.err and said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("place", ["encoders/new", "checkpoints", ".", "..", "cure/cells"])
def test_a_cure_goes_nowhere_into_the_run_but_to_its_own_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    run = write_run(tmp_path / "run", BROKEN)
    assert main(["cure", str(run), *WORDS, "--dry-run", "--out", str(run / place)]) == 2
    assert "is a part of the run: a cure goes into" in capsys.readouterr().err


def test_a_config_of_fewer_epochs_than_the_records_is_not_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", BROKEN, epochs=3)
    assert main(["cure", str(run), "--dry-run"]) == 2
    assert "has records of 8 epochs, and 3 in config.yaml" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--minutes=1e308", "--minutes=nan", "--epochs=99999999999999999999"])
def test_numbers_beyond_all_bounds_end_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str
) -> None:
    assert main(["cure", str(write_run(tmp_path / "run", BROKEN)), option, "--dry-run"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_one_seed_is_promising_and_not_a_cure(tmp_path: Path) -> None:
    options = CureOptions(most=1, seeds=1, minutes=1000.0)
    plan = make_plan(write_run(tmp_path / "run", BROKEN), options)
    assert isinstance(plan, CurePlan)
    write_arms(plan, {"stop-gradient": ("healthy", 0.5), "untreated": ("complete", 0.3)})
    found = run_cure(plan, options)
    assert found.as_dict()["state"] == "promising"
    assert found.headline.startswith("Promising") and "too few to say cured" in found.headline
