"""One writer a folder: held, said, released however its owner ends."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fullrank import lock
from fullrank.errors import BusyError, UnwritableError
from fullrank.lock import is_being_written, require_unwritten, sole_writer

HOLD = """
import sys, time, os
from pathlib import Path
from fullrank.lock import sole_writer
with sole_writer(Path(sys.argv[1])):
    if sys.argv[2:]:
        if os.fork() == 0:
            time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path, *more: str) -> subprocess.Popen[str]:
    """A process that holds the folder, once it does."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, folder, *more], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def owner_of(folder: Path) -> int:
    """The process on record."""
    return int(json.loads((folder / ".owner.json").read_text())["process"])


def test_a_second_writer_is_told_who_holds_the_folder_and_since_when(tmp_path: Path) -> None:
    process = holder(tmp_path)
    try:
        with pytest.raises(BusyError, match=rf"written by process {process.pid} on \S+ since 20"):
            sole_writer(tmp_path).__enter__()
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_lock_of_a_process_that_was_killed_is_free_at_once(tmp_path: Path, how: signal.Signals) -> None:
    process = holder(tmp_path)
    process.send_signal(how)
    process.wait()
    with sole_writer(tmp_path):
        assert owner_of(tmp_path) == os.getpid()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_a_killed_process_that_nobody_takes_note_of_holds_nothing(tmp_path: Path) -> None:
    process = holder(tmp_path)
    process.kill()
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        time.sleep(0.01)
    assert not is_being_written(tmp_path)
    with sole_writer(tmp_path):
        assert owner_of(tmp_path) == os.getpid()
    process.wait()


def test_a_child_that_outlives_its_killed_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    process = holder(tmp_path, "with a child")
    process.kill()
    process.wait()
    with sole_writer(tmp_path):
        assert owner_of(tmp_path) == os.getpid()


def test_a_lock_that_a_last_child_of_the_dead_owner_lets_go_late_is_waited_for(tmp_path: Path) -> None:
    script = (
        "import fcntl, os, subprocess, sys\n"
        "from pathlib import Path\n"
        "from fullrank import lock\n"
        "with lock.sole_writer(Path(sys.argv[1])):\n"
        "    subprocess.Popen(['sleep', '1'], pass_fds=tuple(lock._held), stdout=subprocess.DEVNULL)\n"
        "    print('held', flush=True)\n"
        "    sys.stdin.read()\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path)]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    process.kill()
    process.wait()
    with sole_writer(tmp_path):
        assert owner_of(tmp_path) == os.getpid()


def test_nothing_is_left_in_a_folder_that_was_released(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        assert {path.name for path in tmp_path.iterdir()} == {".lock", ".owner.json"}
    assert list(tmp_path.iterdir()) == []


def test_an_error_within_releases_the_folder(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), sole_writer(tmp_path):
        raise ZeroDivisionError
    with sole_writer(tmp_path):
        assert owner_of(tmp_path) == os.getpid()


def test_a_refused_writer_leaves_the_owner_in_place(tmp_path: Path) -> None:
    with sole_writer(tmp_path):
        for _ in range(3):
            with pytest.raises(BusyError):
                sole_writer(tmp_path).__enter__()
        assert json.loads((tmp_path / ".owner.json").read_text())["process"] == os.getpid()


def test_a_copy_of_a_folder_that_is_being_written_is_free(tmp_path: Path) -> None:
    (folder := tmp_path / "run").mkdir()
    with sole_writer(folder):
        shutil.copytree(folder, copy := tmp_path / "copy")
        assert (copy / ".owner.json").exists() and not is_being_written(copy)
        require_unwritten(copy)
        with sole_writer(copy):
            assert is_being_written(copy) and is_being_written(folder)


def elsewhere(folder: Path, age: float) -> None:
    """An owner on another host whose heart beat so many seconds ago."""
    owner = folder / ".owner.json"
    owner.write_text(json.dumps({"host": "another-host", "process": 1, "since": "2026-01-01T00:00:00"}))
    os.utime(owner, (time.time() - age, time.time() - age))


def test_an_owner_on_another_host_holds_as_long_as_its_heart_beats(tmp_path: Path) -> None:
    elsewhere(tmp_path, age=lock.HEARTBEAT)
    with pytest.raises(BusyError, match="process 1 on another-host since 2026-01-01"):
        sole_writer(tmp_path).__enter__()
    assert json.loads((tmp_path / ".owner.json").read_text())["host"] == "another-host"


def test_a_dead_owner_on_another_host_is_taken_over(tmp_path: Path) -> None:
    elsewhere(tmp_path, age=lock.DEAD_AFTER + 5)
    with sole_writer(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["process"] == os.getpid()


def test_the_heart_beats_while_the_folder_is_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    with sole_writer(tmp_path):
        owner = tmp_path / ".owner.json"
        os.utime(owner, (0, 0))
        for _ in range(500):
            if owner.stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert owner.stat().st_mtime > 0


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"host": 3}'])
def test_a_damaged_record_of_the_owner_holds_nobody_up(tmp_path: Path, content: str) -> None:
    (tmp_path / ".owner.json").write_text(content)
    os.utime(tmp_path / ".owner.json", (0, 0))
    with sole_writer(tmp_path):
        assert owner_of(tmp_path) == os.getpid()


def test_of_many_at_once_one_holds_the_folder_at_any_time(tmp_path: Path) -> None:
    inside, most, entered = 0, 0, 0
    counting = threading.Lock()

    def enter() -> None:
        nonlocal inside, most, entered
        for _ in range(30):
            try:
                with sole_writer(tmp_path):
                    with counting:
                        inside, entered = inside + 1, entered + 1
                        most = max(most, inside)
                    with counting:
                        inside -= 1
            except BusyError:
                pass

    threads = [threading.Thread(target=enter) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert entered > 0
    assert list(tmp_path.iterdir()) == []


def test_whether_somebody_writes_is_told_without_writing(tmp_path: Path) -> None:
    require_unwritten(tmp_path)
    assert list(tmp_path.iterdir()) == []
    with sole_writer(tmp_path), pytest.raises(BusyError, match="is being written by process"):
        require_unwritten(tmp_path)
    require_unwritten(tmp_path)


@pytest.mark.parametrize("age", [-1e8, -lock.DEAD_AFTER - 5, lock.DEAD_AFTER + 5, 1e8])
def test_a_heart_that_beat_long_ago_or_in_a_far_future_is_of_nobody(tmp_path: Path, age: float) -> None:
    elsewhere(tmp_path, age)
    assert not is_being_written(tmp_path)


@pytest.mark.parametrize("age", [-lock.DEAD_AFTER / 2, 0, lock.DEAD_AFTER / 2])
def test_a_heart_that_beats_by_a_clock_a_little_off_is_alive(tmp_path: Path, age: float) -> None:
    elsewhere(tmp_path, age)
    assert is_being_written(tmp_path)


def test_an_owner_whose_clock_is_far_ahead_holds_as_long_as_its_heart_beats(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere(tmp_path, age=-1e8)

    def beat_ahead(_: float) -> None:
        os.utime(tmp_path / ".owner.json", (time.time() + 1e8 + 10, time.time() + 1e8 + 10))

    monkeypatch.setattr("fullrank.lock.time.sleep", beat_ahead)
    with pytest.raises(BusyError, match="process 1 on another-host"):
        sole_writer(tmp_path).__enter__()


@pytest.mark.parametrize("name", [".lock", ".owner.json"])
def test_a_folder_in_the_place_of_the_lock_or_its_owner_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(UnwritableError, match=rf"{name}: Is a directory; move it away$"):
        sole_writer(tmp_path).__enter__()
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_in_the_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "run").write_bytes(b"")
    with pytest.raises(UnwritableError, match=r"run: File exists; move it away$"):
        sole_writer(tmp_path / "run").__enter__()


ERRORS = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EROFS: "let this user write there, or take another folder",
    errno.EACCES: "let this user write there, or take another folder",
    errno.EIO: "Input/output error",
}


@pytest.mark.parametrize("number", ERRORS)
@pytest.mark.parametrize("name", ["_acquire", "_write"])
def test_what_the_system_says_of_a_lock_is_refused_in_a_line_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    def fail(path: Path) -> None:
        raise OSError(number, os.strerror(number), str(path))

    monkeypatch.setattr(lock, name, fail)
    with pytest.raises(UnwritableError, match=rf"cannot be written: .*{ERRORS[number]}$") as refusal:
        sole_writer(tmp_path).__enter__()
    assert refusal.value.exit_code == 2 and list(tmp_path.iterdir()) == []


def test_who_lost_a_folder_leaves_the_lock_of_the_one_that_took_its_place(tmp_path: Path) -> None:
    (folder := tmp_path / "run").mkdir()
    with sole_writer(folder):
        folder.rename(tmp_path / "elsewhere")
        folder.mkdir()
        process = holder(folder)
    try:
        with pytest.raises(BusyError, match=f"by process {process.pid}"):
            sole_writer(folder).__enter__()
    finally:
        process.kill()
        process.wait()
