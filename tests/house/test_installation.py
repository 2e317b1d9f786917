"""A bare installation has the collapse metrics; what needs more says which extra brings it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import fullrank
from fullrank.cli import main
from fullrank.errors import EXTRAS, UsageError, require_packages

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CORE = {"numpy", "safetensors", "torch", "yaml"}
MODULES = {
    "lightning-fabric": "lightning_fabric",
    "pillow": "PIL",
    "pillow-heif": "pillow_heif",
    "pyyaml": "yaml",
    "scikit-learn": "sklearn",
}
BY_WAY_OF = {"scipy"}  # scikit-learn's own


def _modules(requirements: list[str]) -> set[str]:
    names = {re.split(r"[<>=\[]", requirement)[0] for requirement in requirements}
    return {MODULES.get(name, name) for name in names}


def test_the_core_is_four_packages() -> None:
    assert _modules(PROJECT["dependencies"]) == CORE


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_table_of_extras_is_the_projects(extra: str) -> None:
    listed = _modules(PROJECT["optional-dependencies"][extra])
    assert set(EXTRAS[extra]) - BY_WAY_OF <= listed
    assert listed <= {module for modules in EXTRAS.values() for module in modules}


def test_whatever_is_imported_belongs_to_the_core_or_to_an_extra() -> None:
    known = {"fullrank", *sys.stdlib_module_names, *BY_WAY_OF, *CORE}
    for requirements in PROJECT["optional-dependencies"].values():
        known |= {module.partition("-")[0] for module in _modules(requirements)}
    for file in (ROOT / "src" / "fullrank").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert {name.partition(".")[0] for name in names} <= known, file


def test_a_missing_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def without(name: str) -> None:
        raise ModuleNotFoundError("No module named 'timm.data'", name="timm.data")

    monkeypatch.setattr("fullrank.cli.importlib.import_module", without)
    assert main(["train", "simsiam"]) == 2
    assert capsys.readouterr().err == "fullrank: this needs timm: pip install 'fullrank[train]'\n"


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("jinja2", r"this needs jinja2: pip install 'fullrank\[report\]'"),
        ("sklearn", r"scikit-learn \(sklearn\)"),
    ],
)
def test_what_a_page_needs_is_asked_for_before_training(
    module: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullrank.errors.find_spec", lambda name: None if name == module else name)
    with pytest.raises(UsageError, match=said):
        require_packages(module)
    if module == "jinja2":
        with pytest.raises(UsageError, match=said):
            fullrank.train("simsiam", out="nowhere", limit=64)
        assert main(["demo"]) == 2


def test_another_missing_module_is_no_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name="fullrank.cli.nothing")

    monkeypatch.setattr("fullrank.cli.importlib.import_module", without)
    with pytest.raises(ModuleNotFoundError):
        main(["train", "simsiam"])


BARE = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
import torch
from fullrank.collapse import CollapseMonitor
monitor = CollapseMonitor()
monitor.observe({{"features": torch.randn(512, 16, generator=torch.Generator().manual_seed(0))}})
print(monitor.close().verdict.kind)
"""


def test_a_bare_installation_judges_a_tensor() -> None:
    absent = {module for modules in EXTRAS.values() for module in modules}
    run = [sys.executable, "-c", BARE.format(absent=absent)]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "healthy"


def test_the_version_stands_in_one_place() -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert fullrank.__version__ in (ROOT / "CITATION.cff").read_text()
