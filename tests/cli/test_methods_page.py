"""The page of methods in the docs says what the registry and the measurements say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cli.helpers import call
from fullrank.methods import METHODS

DOCS = Path(__file__).parents[2] / "docs"
ONE = {"knn": [0.80, 0.82, 0.84], "knn_untrained": [0.5, 0.5, 0.5], "verdict": ["healthy"] * 3}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_methods_table", DOCS / "make_methods_table.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    """The list without what other packages brought along."""
    listed = json.loads(call("list", "methods", "--json").out)
    return [row for row in listed if METHODS[row["name"]].__module__.startswith("fullrank.")]


def test_the_page_is_up_to_date(script: ModuleType, rows: list[dict[str, Any]]) -> None:
    measured = json.loads(script.MEASURED.read_text()) if script.MEASURED.is_file() else {}
    assert script.PAGE.read_text() == script.page(rows, measured), "run: python docs/make_methods_table.py"


def test_every_method_is_on_the_page_with_its_paper_its_mechanism_and_its_taps(
    script: ModuleType, rows: list[dict[str, Any]]
) -> None:
    lines = script.page(rows, {}).splitlines()
    for row in rows:
        (line,) = [line for line in lines if line.startswith(f"| `{row['name']}` |")]
        cls = METHODS[row["name"]]
        assert all(part in line for part in (cls.paper, str(cls.year), cls.mechanism, ", ".join(row["taps"])))


def test_what_was_measured_is_a_mean_with_its_spread_beside_the_untrained_one(
    script: ModuleType, rows: list[dict[str, Any]]
) -> None:
    page = script.page(rows, {"byol": ONE})
    assert "| 82.0 ± 2.0 % (50.0 ± 0.0 %) | healthy |" in page
    assert page.count("| - | - |") == len(rows) - 1


def test_seeds_that_disagree_are_counted(script: ModuleType, rows: list[dict[str, Any]]) -> None:
    page = script.page(rows, {"byol": ONE | {"verdict": ["healthy", "dimensional", "healthy"]}})
    assert "2 x healthy, 1 x dimensional" in page


def test_a_measurement_of_no_method_is_refused(script: ModuleType, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(ValueError, match="has byool"):
        script.page(rows, {"byool": ONE})
