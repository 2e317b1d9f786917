"""What README, CHANGELOG and docs count is there, and what they measured stands in the benchmarks' files."""

from __future__ import annotations

import json
import pkgutil
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/glossary.md", "docs/methods.md"),
    *("docs/commands.md", "docs/choose_a_method.md", "docs/speed.md", "docs/start.md", "docs/compare.md"),
]


def _count(what: str) -> int:
    from fullrank.labs import LABS
    from fullrank.methods import METHODS
    from fullrank.training.recipes import load_recipe, recipe_names
    from fullrank.views import VIEWS

    ours = {"methods": METHODS.values(), "labs": LABS.values()}
    if what in ours:  # without those of installed packages
        return sum(item.__module__.startswith("fullrank.") for item in ours[what])
    if what == "metrics":  # one row each, written from their table
        return len(re.findall(r"^\| `", (ROOT / "docs" / "metrics.md").read_text(), re.MULTILINE))
    if what == "made cases":
        return int(_measured("verdicts.json")["cases"])
    if what == "settings":  # of the literature
        sources = [load_recipe(name).source for name in recipe_names()]
        return sum(not source.startswith("tried here") for source in sources)
    return len(recipe_names() if what == "recipes" else VIEWS)


def _measured(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / name).read_text())


COUNTED = re.compile(r"\b(\d+) (methods|labs|metrics|recipes|settings|presets|made cases)\b")


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_counts_is_what_there_is(page: str) -> None:
    for n, what in COUNTED.findall((ROOT / page).read_text()):
        assert int(n) == _count(what), f'in {page} write "{_count(what)} {what}" instead of "{n} {what}"'


@pytest.mark.parametrize("what", ["methods", "labs", "metrics", "recipes", "made cases"])
def test_readme_counts(what: str) -> None:
    assert what in {what for _, what in COUNTED.findall((ROOT / "README.md").read_text())}


def test_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110


def test_a_page_names_every_method() -> None:
    from fullrank.methods import METHODS

    page = "docs/choose_a_method.md"
    text = (ROOT / page).read_text().split("## The methods")[1].split("##")[0]
    names = re.split(r"[,;:.]\s", " ".join(text.split("One file each")[0].split()))
    listed = [name.removeprefix("and for comparison ").strip(" .") for name in names]
    listed = [name for name in listed if name and not name.endswith("for comparison")]
    plain = {re.sub("[-_ ]", "", name.lower()) for name in listed}
    in_words = {"teacherstudent": "teacherandstudent", "distill": "frozenteacherregression"}
    ours = [n.replace("_", "") for n, m in METHODS.items() if m.__module__.startswith("fullrank.")]
    named = {in_words.get(name, name) for name in ours}
    assert not named - plain, f'in {page}, "The methods", add {sorted(named - plain)}'
    assert not plain - named, f'in {page}, "The methods", remove {sorted(plain - named)}: there is no such'
    assert len(listed) == len(plain), f'{page}, "The methods", names one twice: {listed}'


@pytest.mark.parametrize("page", ["README.md", "docs/commands.md"])
def test_a_pages_verdicts_are_those_of_the_benchmark(page: str) -> None:
    words = " ".join((ROOT / page).read_text().split())
    measured = _measured("verdicts.json")
    assert measured["named right"] == 1 and re.search(
        "the verdict is right on all|on all of 347 made cases", words
    )
    std, rank = (round(100 * measured[f"collapsed or not, {name}"]) for name in ("std", "RankMe"))
    assert f"collapsed from healthy on {std} % of them, a threshold on RankMe on {rank} %" in words


def test_the_speeds_are_those_of_the_benchmark() -> None:
    table = (ROOT / "docs" / "speed.md").read_text().split("| how many times as fast |")[1].split("\n\n")[0]
    peers = "a bare|the bare|lightly|stable|torchvision|kornia|faiss|scikit|reading"
    stated = re.findall(rf"(?<![.\d])(\d+(?:\.\d+)?) (?={peers})", table)
    assert len(stated) >= 12
    measured = {float(f"{median(row['turns']):.2g}") for row in _measured("cpu.json")["rows"]}
    assert {float(number) for number in stated} <= measured


NAMES = re.compile(r"\bfullrank(?:\.\w+)+")


IMPORTED = ["commands", "glossary", "metrics", "read_a_verdict", "start", "verdict"]


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", *(f"docs/{name}.md" for name in IMPORTED)])
def test_what_a_page_names_can_be_imported(page: str) -> None:
    for name in sorted(set(NAMES.findall((ROOT / page).read_text()))):
        assert pkgutil.resolve_name(name) is not None


def test_what_was_renamed_is_found_under_its_new_name() -> None:
    rows = re.findall(r"^\| .+ \| (.+) \|$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    named = {name for row in rows for name in NAMES.findall(row) if "NAME" not in name}
    assert len(named) > 20
    for name in sorted(named):
        assert pkgutil.resolve_name(name) is not None
