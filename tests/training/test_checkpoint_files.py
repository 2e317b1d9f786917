"""Checkpoints have a past: the newest sound one is taken, and what is wrong with newer ones is said."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fullrank.errors import NotFiniteError
from fullrank.training import checkpoint_files
from fullrank.training.checkpoint_files import CheckpointFiles, DamagedCheckpointError


@pytest.fixture
def files(tmp_path: Path) -> CheckpointFiles:
    return CheckpointFiles(tmp_path)


def state(step: int, value: float = 0.5) -> dict[str, Any]:
    return {"method": {"weight": torch.full((64,), value + step)}, "optimizer": {}, "step": step}


def step_of(path: Path) -> int:
    return int(torch.load(path, weights_only=True)["step"])


def kept(files: CheckpointFiles) -> dict[str, int]:
    return {path.stem: step_of(path) for path in sorted(files.folder.glob("*.pt"))}


@pytest.mark.parametrize("keep", [1, 2, 3, 5])
def test_the_last_ones_are_kept_under_names_that_tell_their_order(files: CheckpointFiles, keep: int) -> None:
    for step in range(7):
        files.write(state(step), keep)
    names = ["last", *(f"last-{number}" for number in range(1, keep))]
    assert kept(files) == {name: 6 - number for number, name in enumerate(names)}


def test_three_are_kept_where_no_number_is_asked_for(files: CheckpointFiles) -> None:
    for step in range(5):
        files.write(state(step))
    assert kept(files) == {"last": 4, "last-1": 3, "last-2": 2}


def test_fewer_are_kept_once_fewer_are_asked_for(files: CheckpointFiles) -> None:
    for step in range(5):
        files.write(state(step), keep=5)
    files.write(state(5), keep=2)
    assert kept(files) == {"last": 5, "last-1": 4}


def truncated(content: bytes, place: float) -> bytes:
    return content[: int(place * (len(content) - 1))]


def flipped(content: bytes, place: float) -> bytes:
    at = int(place * (len(content) - 1))
    return content[:at] + bytes([content[at] ^ 0x10]) + content[at + 1 :]


def zeroed(content: bytes, place: float) -> bytes:
    at = int(place * (len(content) - 1))
    return (
        content[:at] + bytes(len(content[at : at + 64])) + content[at + 64 :]
        if any(content[at : at + 64])
        else flipped(content, place)
    )


def longer(content: bytes, place: float) -> bytes:
    return content + b"more"


DAMAGES = [truncated, flipped, zeroed, longer]


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damage=st.sampled_from(DAMAGES), place=st.floats(0, 1), damaged=st.integers(1, 2))
def test_whatever_was_damaged_is_passed_over_by_name(
    tmp_path_factory: pytest.TempPathFactory,
    damage: Callable[[bytes, float], bytes],
    place: float,
    damaged: int,
) -> None:
    files = CheckpointFiles(tmp_path_factory.mktemp("run"))
    for step in range(3):
        files.write(state(step))
    names = ["last", "last-1"][:damaged]
    for name in names:
        path = files.path(name)
        path.write_bytes(damage(path.read_bytes(), place))
    found = files.newest()
    assert found is not None
    assert found.state["step"] == 2 - damaged
    assert [str(files.path(name)) in line for name, line in zip(names, found.passed_over, strict=True)] == [
        True
    ] * damaged


def old_format(length: int) -> bytes:
    """Head of what `torch.save` wrote before it wrote archives."""
    content = io.BytesIO()
    torch.save({"step": 1}, content, _use_new_zipfile_serialization=False)
    return content.getvalue()[:length]


JUNK: dict[str, Callable[[int], bytes]] = {
    "a word": lambda length: (b"junk" * 16)[:length],
    "zeros": bytes,
    "noise": lambda length: random.Random(length).randbytes(length),
    "the head of an archive": lambda length: (b"PK\x03\x04" * 16)[:length],
    "the head of the old format": old_format,
}


@pytest.mark.parametrize("kind", JUNK)
def test_a_few_bytes_of_anything_are_refused_as_damage(files: CheckpointFiles, kind: str) -> None:
    for length in range(65):
        files.path("last").write_bytes(JUNK[kind](length))
        with pytest.raises(DamagedCheckpointError, match=r"no checkpoint can be read: .*last\.pt"):
            files.newest()


@pytest.mark.parametrize("digests", ["", "junk", "[]"])
@pytest.mark.parametrize("kind", JUNK)
def test_with_the_list_of_digests_lost_too_the_checkpoint_before_is_taken(
    files: CheckpointFiles, kind: str, digests: str
) -> None:
    files.write(state(1))
    files.write(state(2))
    (files.folder / "digests.json").write_text(digests)
    files.path("last").write_bytes(JUNK[kind](4))
    found = files.newest()
    assert found is not None and found.path == files.path("last-1")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02.", b"\x00" * 4096])
def test_without_a_list_of_digests_what_cannot_be_read_is_passed_over(
    files: CheckpointFiles, content: bytes
) -> None:
    files.write(state(1))
    files.write(state(2))
    (files.folder / "digests.json").unlink()  # as in runs from before
    files.path("last").write_bytes(content)
    found = files.newest()
    assert found is not None and found.state["step"] == 1


@pytest.mark.parametrize("digests", [b"", b"{", b"[" * 100_000, b'{"a": 1}', b'[1, "x"]'])
def test_a_damaged_list_of_digests_does_not_stand_in_the_way(files: CheckpointFiles, digests: bytes) -> None:
    files.write(state(1))
    (files.folder / "digests.json").write_bytes(digests)
    found = files.newest()
    assert found is not None and found.state["step"] == 1


def test_where_none_is_sound_each_is_named(files: CheckpointFiles) -> None:
    files.write(state(1))
    files.keep_healthy()
    files.path("last").write_bytes(b"")
    files.path("healthy").write_bytes(b"x")
    with pytest.raises(DamagedCheckpointError, match=r"last\.pt is empty; .*healthy\.pt is damaged"):
        files.newest()


def test_a_folder_in_place_of_a_checkpoint_is_passed_over(files: CheckpointFiles) -> None:
    files.write(state(1))
    files.write(state(2))
    files.path("last").unlink()
    files.path("last").mkdir()
    found = files.newest()
    assert found is not None and found.state["step"] == 1


def test_damage_in_place_does_not_reach_the_healthy_one(files: CheckpointFiles) -> None:
    files.write(state(1))
    files.keep_healthy()
    with files.path("last").open("r+b") as file:  # the same file, not a new one under its name
        file.write(b"damage")
    found = files.newest()
    assert found is not None
    assert (found.path.name, found.state["step"]) == ("healthy.pt", 1)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("part", ["method", "optimizer", "probe"])
def test_what_is_not_finite_is_never_written(files: CheckpointFiles, value: float, part: str) -> None:
    files.write(state(1))
    poisoned = state(2) | {part: {"layers": [{"weight": torch.tensor([1.0, value])}]}}
    with pytest.raises(NotFiniteError, match=rf"{part}\.layers\.0\.weight is not finite"):
        files.write(poisoned)
    assert kept(files) == {"last": 1}
    assert not list(files.folder.glob(".*"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_every_width_of_number_is_looked_at(files: CheckpointFiles, dtype: torch.dtype) -> None:
    with pytest.raises(NotFiniteError):
        files.write({"method": {"weight": torch.tensor([torch.nan], dtype=dtype)}})
    files.write({"method": {"weight": torch.tensor([1.0], dtype=dtype), "count": torch.tensor(2**60)}})


def test_a_disk_that_gives_back_something_else_keeps_the_checkpoint_before(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    files.write(state(1))
    monkeypatch.setattr(checkpoint_files, "_sha256", lambda path: "0" * 64)
    with pytest.raises(OSError, match="does not give back what was written"):
        files.write(state(2))
    monkeypatch.undo()
    assert kept(files) == {"last": 1}


@pytest.mark.parametrize("call", ["replace", "hardlink_to", "unlink"])
def test_a_rotation_that_dies_on_its_way_is_finished_by_the_next(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    class Killed(BaseException):
        pass

    class Countdown:
        left = 0

    original = getattr(Path, call)

    def dies(self: Path, *rest: Any, **options: Any) -> Any:
        Countdown.left -= 1
        if Countdown.left == 0:
            raise Killed
        return original(self, *rest, **options)

    for at in range(1, 5):
        for step in range(4):
            files.write(state(step))
        monkeypatch.setattr(Path, call, dies)
        Countdown.left = at
        with contextlib.suppress(Killed):
            files.write(state(4))
        monkeypatch.setattr(Path, call, original)
        found = files.newest()
        assert found is not None and found.state["step"] in (3, 4)
        files.write(state(5))
        steps = kept(files)
        assert steps["last"] == 5 and len(set(steps.values())) == len(steps) == 3
        for path in files.folder.iterdir():
            path.unlink()


def test_the_digests_are_those_of_the_files(files: CheckpointFiles) -> None:
    for step in range(3):
        files.write(state(step))
    known = json.loads((files.folder / "digests.json").read_text())
    for path in files.folder.glob("*.pt"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() in known


def test_the_list_of_digests_does_not_grow_for_ever(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint_files, "MOST_DIGESTS", 8)
    for step in range(20):
        files.write({"step": step})
    assert len(json.loads((files.folder / "digests.json").read_text())) == 9


def test_a_full_disk_is_an_os_error_that_names_the_file(
    files: CheckpointFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise RuntimeError("[enforce fail at inline_container.cc:671] . unexpected pos 64 vs 0")

    files.write(state(1))
    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="No space left") as caught:
        files.write(state(2))
    assert caught.value.errno == errno.ENOSPC
    assert kept(files) == {"last": 1}


def test_a_sound_one_takes_the_place_of_damaged_ones_which_are_set_aside(files: CheckpointFiles) -> None:
    for step in range(3):
        files.write(state(step))
    files.path("last").write_bytes(b"damaged")
    found = files.newest()
    assert found is not None
    files.promote(found.path)
    assert step_of(files.path("last")) == 1
    assert (files.folder / "damaged-last.pt").read_bytes() == b"damaged"
