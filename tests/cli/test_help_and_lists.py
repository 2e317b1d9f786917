"""Help is complete and quick, and the lists are for people and for scripts."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from cli.helpers import call
from fullrank.cli import COMMANDS

LISTS = ("methods", "data", "views", "backbones", "recipes")


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
    rows = [row.strip(" │|") for row in call("train", method, "--help").out.splitlines()]
    rows = rows[next(i for i, row in enumerate(rows) if row.startswith("-h,")) :]
    bare = []
    for i, row in enumerate(rows):
        if not row.startswith("--") or set(row) == {"-"}:
            continue
        text = row.partition("  ")[2].strip() or rows[i + 1]  # a long option has its text in the next row
        if text.startswith(("(default", "--")):
            bare.append(row)
    assert not bare


def test_the_methods_own_options_are_in_its_help() -> None:
    assert "--options.tau-base" in call("train", "byol", "--help").out


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys; from fullrank.cli import main; main(['--help']); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


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


def test_what_is_listed_can_be_trained() -> None:
    methods = json.loads(call("list", "methods", "--json").out)
    assert all(call("train", row["name"], "--help").code == 0 for row in methods)


def test_a_method_alone_is_enough_to_train() -> None:
    from fullrank.cli.train import parse_options, starting_point, to_config

    method, layers, recipe = starting_point("simsiam", [])
    assert (method, recipe) == ("simsiam", "shapes/simsiam")
    args, sources = parse_options(method, layers, [], "fullrank train simsiam")
    assert to_config(args).data == "shapes" and sources.data.name == "shapes"
