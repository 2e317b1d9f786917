"""The page of recipes says what the recipes say, and the list tells one of them whole."""

from __future__ import annotations

import importlib.util
import json
import shlex
from pathlib import Path

import pytest

from cli.helpers import call
from fullrank.training.recipes import load_recipe, recipe_names

SCRIPT = Path(__file__).parents[2] / "docs" / "make_recipes_table.py"


def test_the_page_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_recipes_table", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    page = module.page(map(load_recipe, recipe_names()))
    assert module.PAGE.read_text() == page, "run: python docs/make_recipes_table.py"


def test_a_recipe_is_listed_with_its_settings_and_its_commands() -> None:
    printed = call("list", "recipes", "imagenet/simsiam").out
    recipe = load_recipe("imagenet/simsiam")
    assert all(text in printed for text in (recipe.source, recipe.aims_at, "epoch-cosine", "torchrun"))
    row = json.loads(call("list", "recipes", "imagenet/simsiam", "--json").out)
    assert row["settings"]["batch_size"] == 512 and list(row["commands"]) == [
        "one node",
        "four nodes",
        "SLURM",
    ]
    assert list(json.loads(call("list", "recipes", "shapes/byol", "--json").out)["commands"]) == [
        "one machine"
    ]


def test_an_entry_of_any_list_can_be_named_and_a_mistyped_one_is_answered_with_the_nearest() -> None:
    assert "2011.10566" in call("list", "methods", "simsiam").out
    called = call("list", "recipes", "imagenet/simsaim")
    assert called.code == 2 and "did you mean 'imagenet/simsiam'" in called.err


@pytest.mark.parametrize("name", ["imagenet/mocov3", "imagenet100/cplearn", "imagenet/simsiam-256"])
def test_the_command_for_slurm_makes_a_script_that_asks_for_its_nodes(name: str, here: Path) -> None:
    pytest.importorskip("submitit")
    row = json.loads(call("list", "recipes", name, "--json").out)
    called = call(*shlex.split(row["commands"]["SLURM"])[1:], "--dry-run")
    assert called.code == 0, called.err
    gpus = shlex.split(row["commands"]["SLURM"])
    number = gpus[gpus.index("--slurm-gpus-per-node") + 1]
    for line in ("--nodes=4", f"--gpus-per-node={number}", f"--ntasks-per-node={number}"):
        assert f"#SBATCH {line}\n" in called.out
