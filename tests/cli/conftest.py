"""Every test stands in an empty directory, without data sets; runs that many look at are trained once."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.helpers import SMALL, Called, call


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The empty working directory of the test."""
    monkeypatch.setenv("FULLRANK_DATA", str(tmp_path / "no-data"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    place = tmp_path / "here"
    place.mkdir()
    monkeypatch.chdir(place)
    return place


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Called]:
    """A SimSiam run on shapes, and what training it printed."""
    run = tmp_path_factory.mktemp("cli") / "simsiam"
    return run, call("train", "simsiam", *SMALL, "--out", str(run))
