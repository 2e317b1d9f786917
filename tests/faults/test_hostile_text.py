"""JSON, YAML and logs from strangers: nested, endless, cut or of another kind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from faults.refusals import assert_refused

# JSON and YAML


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '{"a":' * 10**5, "{" * 70 + "}" * 70, "9" * 10**5, '"\\ud800', "\x00", ""]
)
def test_json_of_any_kind_is_one_line(text: str, tmp_path: Path) -> None:
    from fullrank.untrusted.parsing import read_json

    (tmp_path / "config.json").write_text(text)
    with assert_refused("nested more than 64 deep|no JSON|no mapping"):
        read_json(tmp_path / "config.json")


def test_half_a_character_in_json_can_be_written_again() -> None:
    from fullrank.untrusted.parsing import parse_json

    assert parse_json(r'{"a": ["\ud800"]}', "here") == {"a": ["?"]}


ALIASES = "a0: &a0 [x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 30)
)
YAML = {
    "aliases": ALIASES,
    "depth": "a: " + "[" * 500,
    "a circle": "a: &a [*a]",
    "month": "a: 2001-99-99",
    "a class": "!!python/object/apply:os.system ['touch sprung']",
}


@pytest.mark.parametrize("kind", YAML)
def test_yaml_of_any_kind_is_one_line_and_no_class_is_made(kind: str, tmp_path: Path) -> None:
    from fullrank.report.run.reading import read_run
    from fullrank.training.recipes import load_recipe
    from fullrank.training.run_dir import RunDir

    for name in ("config.yaml", "own.yaml"):
        (tmp_path / name).write_text(YAML[kind])
    with assert_refused("config.yaml is damaged"):
        RunDir.open(tmp_path).config()
    with assert_refused("is not valid YAML"):
        load_recipe(str(tmp_path / "own.yaml"))
    assert read_run(tmp_path).notes[0].startswith("config.yaml is left out")
    assert not Path("sprung").exists()


def test_lines_of_a_log_with_values_of_another_kind_are_left_out_and_counted(tmp_path: Path) -> None:
    from fullrank.report.run.page import write_page
    from fullrank.report.run.reading import read_run

    good = {"event": "step", "epoch": 0, "step": 1, "loss": -0.5}
    odd = [
        {**good, "loss": "low"},
        {**good, "level": 3},
        {**good, "step": 10**30},
        {**good, "terms": {"a": [1]}},
    ]
    panels = [
        {"event": "epoch", "epoch": 0, "step": 2, "panels": value} for value in (3, {"z": {"measures": 3}})
    ]
    lines = [json.dumps(value) for value in (good, *odd, *panels)] + ["[" * 10**5, '{"event": "st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    run = read_run(tmp_path)
    assert (len(run.steps), run.damaged) == (1, 7)
    assert run.notes == ("metrics.jsonl ends in half a line, which is left out",)
    notes: list[str] = []
    assert "half a line" in write_page(tmp_path, notes.append).read_text()
    assert notes[0] == "7 damaged line(s) in metrics.jsonl were left out." and "half a line" in notes[1]


def test_half_a_sweep_is_read_as_far_as_it_is_whole(tmp_path: Path) -> None:
    from fullrank.jobs.command import read_sweep

    whole = json.dumps({"lr=1": ["simsiam", "--lr", "1"], "lr=2": ["simsiam", "--lr", "2"]}, indent=1)
    (tmp_path / "sweep.json").write_text(whole[:-20])
    known, note = read_sweep(tmp_path / "sweep.json")
    assert known == {"lr=1": ["simsiam", "--lr", "1"]}
    assert "is cut short: the 1 runs that are whole in it count" in note


@pytest.mark.parametrize("n", ["9" * 400, "-1", '"many"', "1e999"])
def test_an_audit_of_no_number_of_rows_is_damaged(n: str, tmp_path: Path) -> None:
    from fullrank.report.compare.subjects import open_subject

    whole = '{"verdict": "healthy", "why": "", "tap": "z", "metrics": {}, "d": 8, "n": ' + n + "}"
    (tmp_path / "audit.json").write_text(whole)
    with assert_refused("is damaged, or not what `fullrank audit` writes"):
        open_subject(str(tmp_path), measure=False)
