"""Help is complete and quick, and the lists are for people and for scripts."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from cli.helpers import call, save_images
from fullrank.__main__ import main as fullrank_main
from fullrank.cli import COMMANDS
from fullrank.cli.listing import LISTS, list_rows
from fullrank.cli.quick import HEAVY
from fullrank.cli.train_help import COMMAND_TEXTS, FIRST, GROUPS
from fullrank.training.config import TrainConfig


@pytest.mark.parametrize("word", [*COMMANDS, "train simsiam", "train byol", "train shapes/simsiam"])
def test_help_of_every_command_shows_an_example(word: str) -> None:
    called = call(*word.split(), "--help")
    assert called.code == 0 and called.err == ""
    assert called.out.count(f"fullrank {word} ") >= 2, "usage and an example"


@pytest.mark.parametrize("word", ["--help", "-h", ""])
def test_help_names_every_command(word: str) -> None:
    called = call(*word.split())
    assert called.code == 0 and all(f"  {name} " in called.out for name in COMMANDS)


@pytest.mark.parametrize("method", ["simsiam", "byol"])
def test_every_option_of_train_has_a_text(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    rows = [row.strip() for row in call("train", method, "--help-all").out.splitlines()]
    bare = []
    for i, row in enumerate(rows):
        if row.startswith("--"):
            text = row.partition("  ")[2].strip() or rows[i + 1]  # a long option has its text in the next row
            if text.startswith(("(default", "--")) or "(default: " not in " ".join(rows[i : i + 5]):
                bare.append(row)
    assert len(rows) > 100 and not bare


def test_every_option_is_in_one_group_of_the_help_and_ten_come_first() -> None:
    grouped = [name for names in GROUPS.values() for name in names]
    fields = {field.name for field in dataclasses.fields(TrainConfig)} - {"method", "options"}
    assert len(grouped) == len(set(grouped)) and set(grouped) == fields | set(COMMAND_TEXTS)
    assert len(FIRST) == 10 and set(FIRST) <= fields
    shown = call("train", "simsiam", "--help").out
    texts = [line for line in shown.splitlines() if line.startswith("  --")]
    assert len(texts) == 10 and len(shown.splitlines()) < 80
    assert all(f"--{name.replace('_', '-')}" in shown.replace("[no-]", "") for name in fields)


def test_the_help_shows_the_defaults_for_the_data_that_was_named(tmp_path: Path) -> None:
    save_images(tmp_path / "photos", 300, size=40)
    shown = " ".join(call("train", "simsiam", "--data", str(tmp_path / "photos"), "--help").out.split())
    assert "Defaults are those for" in shown
    assert "or 224 for large images. (default: 40)" in shown and "(default: simsiam-cifar)" in shown


def test_the_methods_own_options_are_in_its_help() -> None:
    assert "--options.tau-base" in call("train", "byol", "--help").out


QUICK = """
import sys
from fullrank.cli import main
for name in {heavy!r}:
    assert name not in sys.modules, name
try:
    code = main(sys.argv[1:])
except SystemExit as stop:
    code = stop.code or 0
found = [name for name in {heavy!r} if name in sys.modules]
assert not found, found
assert not [name for name in sys.modules if name.startswith("fullrank.methods")]  # nothing half imported
sys.exit(code)
"""


@pytest.mark.parametrize(
    "words",
    ["--help", *(f"{name} --help" for name in COMMANDS), "train byol --help", "train cifar10/dino --help-all",
     "lab failures --help", "evaluate linear --help", "train", "lab",
     *(f"list {what} --json" for what in LISTS)],
)  # fmt: skip
def test_help_and_lists_do_not_import_what_is_heavy(words: str) -> None:
    run = [sys.executable, "-c", QUICK.format(heavy=sorted(HEAVY)), *words.split()]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout


@pytest.mark.parametrize("what", LISTS)
def test_a_quick_list_is_the_same_as_with_the_packages(what: str) -> None:
    run = [
        sys.executable,
        "-c",
        QUICK.format(heavy=[]).replace("assert not", "pass; 0 and"),
        "list",
        what,
        "--json",
    ]
    quick = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert json.loads(quick) == list_rows(what)


def test_a_list_that_needs_torch_is_made_with_it(tmp_path: Path) -> None:
    code = """
import sys
from fullrank import cli
calls = []
class Command:
    @staticmethod
    def run(words):
        from torch import ones
        calls.append(float(ones(2).sum()))
        print(calls)
        return 0
cli.importlib.import_module = lambda name: Command
assert cli.main(["list", "methods"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[2.0]", done.stderr


def test_stand_ins_are_known_and_leave_nothing_behind() -> None:
    code = """
import sys
from fullrank.cli.quick import active, is_stand_in, stand_ins
with stand_ins():
    import torch
    class Layer(torch.nn.Module): pass
    assert is_stand_in([1, torch.float32]) and is_stand_in(4 * torch.finfo(torch.float64).eps) and active()
assert not active() and "torch" not in sys.modules and not is_stand_in([1, "a"])
from torch import nn
assert nn.Linear(2, 3).weight.shape == (3, 2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_version() -> None:
    assert call("--version").out.startswith("fullrank ")


@pytest.mark.parametrize("what", LISTS)
def test_lists_have_the_same_names_for_scripts_and_for_people(what: str) -> None:
    rows = json.loads(call("list", what, "--filter", "s", "--json").out)
    assert rows and all(row["name"] for row in rows)
    shown = call("list", what, "--filter", "s").out
    assert "\x1b" not in shown
    assert [row["name"] for row in rows if row["name"] not in shown] == []


def test_filter_keeps_the_names_that_contain_it() -> None:
    names = [row["name"] for row in json.loads(call("list", "backbones", "--filter", "w16", "--json").out)]
    assert {"resnet8-w16", "resnet14-w16", "resnet20-w16"} <= set(names)
    assert all("w16" in name for name in names)


@pytest.mark.parametrize("what", ["methods", "data", "metrics"])
def test_a_list_in_a_pipe_has_a_line_an_entry(what: str) -> None:
    assert len(call("list", what).out.splitlines()) == 1 + len(json.loads(call("list", what, "--json").out))


def test_interrupted_while_the_command_line_is_imported_it_says_so_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("fullrank.cli.main", interrupted)
    assert fullrank_main() == 130
    assert capsys.readouterr().err == "fullrank: interrupted before anything was begun\n"


def test_what_is_listed_can_be_trained() -> None:
    methods = json.loads(call("list", "methods", "--json").out)
    assert all(call("train", row["name"], "--help").code == 0 for row in methods)


def test_a_method_alone_is_enough_to_train() -> None:
    from fullrank.cli.train import parse_options, starting_point
    from fullrank.training.planning import plan_run

    method, layers, recipe = starting_point("simsiam", [])
    assert (method, recipe) == ("simsiam", "shapes/simsiam")
    assert parse_options(method, layers, [], "fullrank train simsiam").data == "shapes"
    assert plan_run("simsiam", {}).data.name == "shapes"
