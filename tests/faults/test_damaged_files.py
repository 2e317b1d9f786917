"""Damage of many families to whole files: refused in a line, or read with a word, never a traceback."""

from __future__ import annotations

import random
from importlib.util import find_spec
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fuzz.damage import FAMILIES, damaged
from fuzz.targets import TARGETS
from fuzz.trial import Trial

BAD = ("tracebacks", "hang", "memory over 2 GB", "silent in spite of a checksum")
EXAMPLES = 12
SLOW = {"run", "image-table", "zarr"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in TARGETS]
)
def test_a_damaged_file_is_no_traceback_no_hang_and_no_silence(name: str, tmp_path: Path) -> None:
    target = TARGETS[name]
    if not all(map(find_spec, target.needs)):
        pytest.skip(f"needs {target.needs}")
    trial = Trial(target, tmp_path / "files", tmp_path / "kept")
    whole = trial.seeds()

    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )  # fmt: skip
    @given(which=st.integers(0, len(whole) - 1), seed=st.integers(0, 2**32))
    def check(which: int, seed: int) -> None:
        data = whole[which]
        trial.one(data[:2] + damaged(data[2:], random.Random(seed)))
        assert {key: trial.counts[key] for key in BAD} == dict.fromkeys(BAD, 0), trial.faults

    check()
    assert trial.counts["inputs"] >= EXAMPLES


@pytest.mark.parametrize("name", ["npy", "npz", "safetensors", "sweep"])
def test_a_whole_file_is_read_as_before(name: str, tmp_path: Path) -> None:
    trial = Trial(TARGETS[name], tmp_path / "files", tmp_path / "kept")
    for data in trial.seeds():
        trial.one(data)
    assert trial.counts["as before"] == trial.counts["inputs"] > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_of_damage_changes_bytes_and_takes_empty_ones(family: str) -> None:
    data, changed = bytes(range(256)) + b"12 34", 0
    for seed in range(20):
        changed += FAMILIES[family](data, random.Random(seed)) != data
        FAMILIES[family](b"", random.Random(seed))
    assert changed > 10
