"""What was done to a run directory by accident or on purpose is refused in a line, or does no harm."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cli.helpers import call
from fullrank.errors import BusyError, FullrankError
from fullrank.images.walking import list_images
from fullrank.lock import sole_writer
from fullrank.training.checkpoint import TrainState
from fullrank.training.checkpoint_files import CheckpointFiles
from fullrank.training.run import resume
from fullrank.training.run_dir import RunDir
from training.test_loop import run
from training.test_resume import notes


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ended") / "run"
    run(out, epochs=1)
    return out


@pytest.fixture
def copy(ended: Path, tmp_path: Path) -> Path:
    return shutil.copytree(ended, tmp_path / "run")


def forge(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what every checkpoint holds, digests included."""
    files = CheckpointFiles(path / "checkpoints")
    for each in files.folder.glob("*.pt"):
        state = torch.load(each, weights_only=True)
        change(state)
        torch.save(state, each)
    (files.folder / "digests.json").unlink()


@pytest.mark.parametrize("digests", [None, "{", "[]"])
def test_a_run_without_its_list_of_digests_goes_on(copy: Path, digests: str | None) -> None:
    path = copy / "checkpoints" / "digests.json"
    path.unlink() if digests is None else path.write_text(digests)
    assert resume(copy).reason == "finished"


def test_the_verdict_is_told_where_nothing_is_left_but_the_end(copy: Path) -> None:
    (copy / "checkpoints" / "last.pt").write_bytes(b"x")
    said: list[str] = []
    kinds: list[str] = []
    resume(copy, [notes(said), lambda record: kinds.append(record.event)])
    assert kinds == ["start", "epoch", "end"]


def test_weights_that_are_not_finite_never_replace_a_sound_encoder(copy: Path) -> None:
    before = (copy / "encoder.safetensors").read_bytes()

    def poison(state: dict[str, Any]) -> None:
        next(iter(state["method"].values())).fill_(float("nan"))

    forge(copy, poison)
    with pytest.raises(FullrankError, match="is not finite"):
        resume(copy)
    assert (copy / "encoder.safetensors").read_bytes() == before


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("epoch", "2"), ("epoch", 2.5), ("epoch", None), ("epoch", -1), ("step", "a"), ("step", 10**16),
        ("loss_sum", "x"), ("loss_sum", float("nan")), ("loss_count", "x"), ("seconds", {}),
        ("seconds", None), ("images", "x"), ("rate_factor", "x"),
    ],
)  # fmt: skip
def test_a_state_of_other_kinds_than_were_written_is_refused(key: str, value: Any) -> None:
    values = {**TrainState().as_dict(), key: value}
    with pytest.raises(ValueError, match=key):
        TrainState.from_dict(values)


@pytest.mark.parametrize(
    ("key", "value"),
    [("progress", None), ("method", []), ("config", 5), ("config", {}), ("metrics_size", -1),
     ("metrics_size", float("inf")), ("optimizer", None), ("monitor", 3)],
)  # fmt: skip
def test_a_forged_checkpoint_is_one_line_and_leaves_the_records(copy: Path, key: str, value: Any) -> None:
    before = (copy / "metrics.jsonl").read_bytes()
    forge(copy, lambda state: state.update({key: value}))
    with pytest.raises(FullrankError) as caught:
        resume(copy)
    assert "\n" not in str(caught.value)
    assert (copy / "metrics.jsonl").read_bytes() == before


def test_records_that_are_a_link_are_never_cut(copy: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.txt"
    other.write_text("mine\n" * 10_000)
    (copy / "metrics.jsonl").unlink()
    (copy / "metrics.jsonl").symlink_to(other)
    with pytest.raises(FullrankError, match="is a link"):
        resume(copy)
    assert other.read_text() == "mine\n" * 10_000


@pytest.mark.parametrize("name", ["checkpoints/digests.json", ".owner.json", "metrics.jsonl"])
def test_a_pipe_in_a_run_does_not_hang_it(copy: Path, name: str) -> None:
    (copy / name).unlink(missing_ok=True)
    os.mkfifo(copy / name)
    if name == "metrics.jsonl":
        with pytest.raises(FullrankError, match="a pipe"):
            resume(copy)
    else:
        assert resume(copy).reason == "finished"


def test_a_second_damage_does_not_cover_the_first(copy: Path) -> None:
    for content in (b"one", b"two"):
        (copy / "checkpoints" / "last.pt").write_bytes(content)
        resume(copy)
    kept = sorted((copy / "checkpoints").glob("damaged-last*.pt"))
    assert [path.read_bytes() for path in kept] == [b"two", b"one"] or len(kept) == 2


def test_a_lock_that_was_removed_does_not_let_a_second_writer_in(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from fullrank.lock import sole_writer\n"
        "with sole_writer(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        process.send_signal(signal.SIGSTOP)
        (tmp_path / ".lock").unlink()
        with pytest.raises(BusyError, match=f"process {process.pid}"), sole_writer(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with sole_writer(tmp_path):  # its process is gone
        pass


@pytest.mark.parametrize("content", ["[" * 200_000, "{}", "null", '{"process": "x"}', ""])
def test_an_owner_that_cannot_be_read_holds_nothing(tmp_path: Path, content: str) -> None:
    (tmp_path / ".owner.json").write_text(content)
    with sole_writer(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["process"] == os.getpid()


def test_an_owner_whose_clock_is_ahead_and_whose_heart_is_still_is_taken_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fullrank import lock

    monkeypatch.setattr(lock, "HEARTBEAT", 0.01)
    owner = tmp_path / ".owner.json"
    owner.write_text(json.dumps({"host": "another", "process": 1}))
    os.utime(owner, (time.time() + 1e8, time.time() + 1e8))
    with sole_writer(tmp_path):
        assert json.loads(owner.read_text())["process"] == os.getpid()


def test_links_across_folders_are_listed_once(tmp_path: Path) -> None:
    for name, other in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        for number in range(20):
            (tmp_path / name / f"{number}.png").write_bytes(b"")
        for link in ("l1", "l2"):
            (tmp_path / name / link).symlink_to(tmp_path / other)
    (tmp_path / "root").symlink_to("/")
    (tmp_path / "tasks").symlink_to("/proc/self/task")
    skipped: dict[str, str] = {}
    assert len(list_images(tmp_path, skipped)) <= 80
    assert any("second link" in why for why in skipped.values())
    assert str(tmp_path / "root") + "/" in skipped
    assert str(tmp_path / "tasks") + "/" in skipped


def test_a_state_that_was_just_made_is_read_again() -> None:
    assert TrainState.from_dict(TrainState().as_dict()) == TrainState()


@pytest.mark.parametrize(("option", "says"), [("--num-nodes", "torchrun or SLURM"), ("--devices", "cores")])
def test_processes_that_nobody_starts_are_refused(tmp_path: Path, option: str, says: str) -> None:
    words = ("--data", "digits", "--limit", "64", "--epochs", "1", "--out", str(tmp_path / "run"))
    called = call("train", "simsiam", *words, option, "999")
    assert called.code == 2 and says in called.err
    assert not RunDir(tmp_path / "run").path.exists()
