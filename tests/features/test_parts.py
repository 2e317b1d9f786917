"""Processes that embed together: one claim for all, and a part that does not come is named."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from fullrank.errors import FullrankError, UsageError
from fullrank.features import parts, writing
from fullrank.features.claims import claim
from fullrank.features.parts import Parts, leave_word, locked, record_of
from fullrank.features.writing import StoreWriter
from fullrank.options import EmbedOptions

SETTINGS = {"subject": "net", "data": "photos", "limit": 0, "taps": ["features"], "fingerprint": "9f"}


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"ABSENT": 0.5, "GONE": 0.1, "PAUSE": 0.02, "SAID": 0.1}.items():
        monkeypatch.setattr(parts, name, seconds)


def writer(folder: Path, rank: int, world: int = 2, rows: int = 4) -> StoreWriter:
    """A process that has written its part, and is still there."""
    found = StoreWriter(folder, "train", SETTINGS, rank=rank, world_size=world)
    indices = torch.arange(rows) + rank * rows
    found.add({"features": indices[:, None].float()}, indices, None, rows)
    return found


def killed(found: StoreWriter) -> None:
    found._record(done=False)
    found.lock.close()


def failed(found: StoreWriter) -> None:
    killed(found)
    leave_word(found.partial, found.rank, found.world_size, OSError("the disk is full"))


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize(
    ("end", "said"),
    [(killed, r"died without a word, as of kill -9 or"), (failed, r"failed: OSError: the disk is full")],
)
def test_a_part_whose_process_has_ended_is_named_with_how(
    end: Callable[[StoreWriter], None], said: str, world: int, tmp_path: Path
) -> None:
    writers = [writer(tmp_path / "F", rank, world) for rank in range(world)]
    end(writers[-1])
    assert all(each.finish({}) is None for each in writers[:-1])
    heard = []
    for each in writers[:-1]:
        named = (
            rf"^rank {world - 1} of {world} \(process {os.getpid()} on \S+\) {said}.*; its part of train is"
        )
        with pytest.raises(FullrankError, match=named) as error:
            each.parts.wait()
        heard.append(error.value.said_elsewhere)
    assert heard == [False, *[True] * (world - 2)], "it is said once"


def test_a_part_that_nobody_has_begun_is_waited_for_a_while_and_then_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = writer(tmp_path / "F", 0)
    first.finish({})
    with pytest.raises(FullrankError, match="rank 1 of 2 has not begun its part; its part of train"):
        first.parts.wait()
    assert "note    waits for the part of rank 1 of 2" in capsys.readouterr().err


def test_what_a_process_left_in_a_command_before_is_not_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(writer(tmp_path / "F", 1))
    for path in (tmp_path / "F" / ".train.partial").glob("*/progress.json"):
        os.utime(path, (0, 0))
    monkeypatch.setattr(parts, "ABSENT", 9.0)
    first = writer(tmp_path / "F", 0)
    assert first.parts.lost() == ""
    first.finish({})
    again = threading.Timer(0.5, lambda: writer(tmp_path / "F", 1, rows=0).finish({}))
    again.start()
    first.parts.wait()
    again.join()


def test_a_process_that_is_at_work_is_waited_for_however_long_it_takes(tmp_path: Path) -> None:
    first, second = writer(tmp_path / "F", 0), writer(tmp_path / "F", 1)
    first.finish({})
    ending = threading.Timer(1.5, lambda: second.finish({}))  # far longer than all patience
    ending.start()
    first.parts.wait()
    ending.join()
    assert first.place.exists() and second.joined and not first.joined


def test_parts_are_joined_by_who_waits_where_the_last_process_ended_before(tmp_path: Path) -> None:
    first, second = writer(tmp_path / "F", 0), writer(tmp_path / "F", 1)
    first.finish({})
    second._record(done=True)
    for file in second.files.values():
        file.close()
    second.lock.close()
    first.parts.wait()
    assert first.join({}) == first.place and first.joined


def test_who_is_ended_by_a_launcher_names_the_process_that_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writing, "processes", lambda: (0, 2, 0))
    first = writer(tmp_path / "F", 0)

    def ended() -> None:
        with writing._telling_others(tmp_path / "F", EmbedOptions(split="train")):
            killed(writer(tmp_path / "F", 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ended()
    said = capsys.readouterr().err
    assert said.startswith("fullrank: rank 1 of 2 (process ") and "died without a word" in said
    assert first.parts.lost() and not Parts(first.place, first.partial, 2, 3, 0.0).lost()


def test_an_error_is_left_for_the_others_but_not_in_the_place_of_a_part_that_is_done(tmp_path: Path) -> None:
    first, second = writer(tmp_path / "F", 0), writer(tmp_path / "F", 1)
    first.finish({})
    leave_word(first.partial, 0, 2, UsageError("too late"))
    leave_word(first.partial, 1, 2, UsageError("another process is writing"))
    assert "error" not in record_of(first.parts.part(0)) and "error" not in record_of(first.parts.part(1))
    leave_word(tmp_path / "elsewhere", 1, 2, UsageError("no"))
    assert not (tmp_path / "elsewhere").exists()
    second.finish({})


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": 50}, r"features of another command \(limit 0, not 50\)"),
        ({"data": "elsewhere"}, r"features of another command \(data photos, not elsewhere\)"),
        ({"fingerprint": "c0"}, "features of other images of photos: another process opened others"),
    ],
)
def test_a_process_with_other_words_or_images_is_refused(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    claim(tmp_path / "F", SETTINGS | {"layout": "npy"})
    with pytest.raises(UsageError, match=said):
        claim(tmp_path / "F", SETTINGS | {"layout": "npy"} | changes)


def test_of_many_processes_with_other_settings_one_has_the_folder(tmp_path: Path) -> None:
    """They all come at the same time, into a folder that is not there."""
    for attempt in range(20):
        folder, barrier = tmp_path / str(attempt), threading.Barrier(8)
        accepted, refused = list[int](), list[str]()

        def ask(limit: int, folder: Path = folder, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            try:
                claim(folder, SETTINGS | {"layout": "npy", "limit": limit})
                accepted.append(limit)  # noqa: B023
            except UsageError as error:
                refused.append(str(error))  # noqa: B023

        threads = [threading.Thread(target=ask, args=(each % 4,)) for each in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert accepted in ([accepted[0]] * 2,), "both processes of the one, and no other"
        assert len(refused) == 6 and all("the features of another command" in line for line in refused)


def test_a_folder_from_before_fingerprints_goes_on(tmp_path: Path) -> None:
    before = {key: value for key, value in SETTINGS.items() if key != "fingerprint"} | {"layout": "npy"}
    claim(tmp_path / "F", before)
    claim(tmp_path / "F", SETTINGS | {"layout": "npy"})
    assert "fingerprint" not in json.loads((tmp_path / "F" / "embed.json").read_text())


def test_a_lock_that_is_only_asked_about_is_had(tmp_path: Path) -> None:
    asking = locked(tmp_path / "lock")
    threading.Timer(0.01, asking.close).start()
    locked(tmp_path / "lock", "busy").close()
    with locked(tmp_path / "lock"), pytest.raises(UsageError, match="busy"):
        locked(tmp_path / "lock", "busy")
