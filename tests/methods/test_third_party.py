"""A package of somebody else's brings a method along, by its entry point alone."""

from __future__ import annotations

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "third_party_method"


def can_build() -> bool:
    try:
        version = importlib.metadata.version("setuptools")
    except importlib.metadata.PackageNotFoundError:
        return False
    return tuple(map(int, version.split(".")[:2])) >= (70, 1)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the example is installed in, without network."""
    if not can_build():
        pytest.skip("building the example without network takes setuptools 70.1 or newer")
    place = tmp_path_factory.mktemp("third-party")
    copy = shutil.copytree(EXAMPLE, place / "source")  # building leaves files behind
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-index"]
    flags = ["--no-deps", "--no-build-isolation", "--target", str(place / "site"), str(copy)]
    subprocess.run([*pip, *flags], check=True)
    return place


def fullrank(installed: Path, *words: str) -> str:
    path = os.pathsep.join(filter(None, [str(installed / "site"), os.environ.get("PYTHONPATH", "")]))
    done = subprocess.run(
        [sys.executable, "-m", "fullrank", *words],
        cwd=installed,
        env=os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_is_one_file_of_less_than_sixty_lines() -> None:
    (file,) = EXAMPLE.glob("*.py")
    assert len(file.read_text().splitlines()) < 60


@pytest.mark.slow
def test_a_method_from_a_package_is_listed_with_what_it_is(installed: Path) -> None:
    (row,) = json.loads(fullrank(installed, "list", "methods", "--filter", "tico", "--json"))
    assert row["paper"] == "arXiv 2206.10698"
    assert row["taps"] == ["backbone", "projector", "target"]


@pytest.mark.slow
def test_a_method_from_a_package_trains_and_is_judged(installed: Path) -> None:
    small = ["--data", "shapes", "--limit", "256", "--epochs", "1", "--batch-size", "64"]
    small += [
        "--backbone",
        "resnet8-w16",
        "--options.proj-hidden-dim",
        "64",
        "--options.proj-output-dim",
        "32",
    ]
    out = fullrank(installed, "train", "tico", *small, "--out", "run", "--json")
    result = json.loads(out)
    assert result["reason"] == "finished"
    assert re.search("healthy|dimensional|complete", json.dumps(result["verdict"]))
    assert (installed / "run" / "report.html").is_file()
