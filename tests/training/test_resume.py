"""A run goes on from its newest sound checkpoint, with its own settings, and makes again what was lost."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fullrank.errors import FullrankError, UsageError
from fullrank.training.checkpoint_files import DamagedCheckpointError
from fullrank.training.records import Listener, RunRecord, StartRecord
from fullrank.training.run import may_continue, resume
from fullrank.training.run_dir import RunDir
from training.test_loop import config, cut_run, records, run


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four epochs, and the same one cut in its last."""
    folder = tmp_path_factory.mktemp("runs")
    run(folder / "whole", epochs=4)
    cut_run(folder / "cut", 11, epochs=4)
    return folder


@pytest.fixture
def cut(made: Path, tmp_path: Path) -> Path:
    """A copy of the run that was cut."""
    return shutil.copytree(made / "cut", tmp_path / "run")


def checkpoints(path: Path) -> Path:
    return path / "checkpoints"


def notes(into: list[str]) -> Listener:
    def listen(record: RunRecord) -> None:
        if isinstance(record, StartRecord):
            into.extend(record.notes)

    return listen


def edit(path: Path, **changes: Any) -> None:
    values = yaml.safe_load((path / "config.yaml").read_text())
    (path / "config.yaml").write_text(yaml.safe_dump(values | changes))


def assert_same_run(ours: Path, theirs: Path) -> None:
    assert records(ours) == records(theirs)
    weights = [torch.load(checkpoints(p) / "last.pt", weights_only=True)["method"] for p in (ours, theirs)]
    assert all(torch.equal(weights[0][key], value) for key, value in weights[1].items())


@pytest.mark.parametrize("damage", [b"", b"half", None], ids=["empty", "half", "missing"])
@pytest.mark.parametrize("damaged", [1, 2, 3])
def test_damaged_checkpoints_are_passed_over_with_a_line_and_the_end_is_the_same(
    cut: Path, made: Path, damage: bytes | None, damaged: int
) -> None:
    said: list[str] = []
    kept = ["last.pt", "last-1.pt", "last-2.pt"]
    (checkpoints(cut) / "healthy.pt").unlink(missing_ok=True)
    for name in kept[:damaged]:
        if damage is None:
            (checkpoints(cut) / name).unlink()
        else:
            (checkpoints(cut) / name).write_bytes(damage)
    if damaged == 3:
        with pytest.raises(FullrankError, match="no checkpoint"):
            resume(cut)
        assert (cut / "metrics.jsonl").read_bytes() == (made / "cut/metrics.jsonl").read_bytes()
        return
    resume(cut, [notes(said)])
    assert_same_run(cut, made / "whole")
    if damage is not None:
        assert all(any(name in line for line in said) for name in kept[:damaged])


def test_what_went_wrong_with_each_checkpoint_is_said_where_none_is_sound(cut: Path) -> None:
    for path in checkpoints(cut).glob("*.pt"):
        path.write_bytes(b"")
    with pytest.raises(DamagedCheckpointError, match=r"last\.pt is empty; .*last-1\.pt is empty"):
        resume(cut)


def test_where_it_goes_on_is_said(cut: Path) -> None:
    said: list[str] = []
    resume(cut, [notes(said)])
    assert any("goes on after epoch 3 of 4, step 9 of 12, from" in line for line in said)


@pytest.mark.parametrize(("key", "value"), [("lr", 0.9), ("seed", 5), ("limit", 32), ("weight_decay", 0.0)])
def test_an_edited_setting_is_refused_until_it_is_allowed(cut: Path, key: str, value: Any) -> None:
    before = (cut / "metrics.jsonl").read_bytes()
    edit(cut, **{key: value})
    with pytest.raises(UsageError, match=f"--override {key}"):
        resume(cut)
    assert (cut / "metrics.jsonl").read_bytes() == before
    assert not list(cut.glob(".*"))


def test_an_allowed_change_is_what_the_next_resume_takes_for_granted(cut: Path) -> None:
    resume(cut, changes={"lr": 0.01}, override=["lr"])
    assert RunDir(cut).config().lr == 0.01
    assert resume(cut).reason == "finished"


def test_another_backbone_does_not_fit_the_checkpoint_in_one_line(cut: Path) -> None:
    edit(cut, backbone="resnet8-w8")
    with pytest.raises(UsageError, match=r"does not fit the run's config\.yaml") as caught:
        resume(cut, override=["backbone"])
    assert "\n" not in str(caught.value)


def test_another_optimiser_does_not_fit_the_checkpoint_in_one_line(cut: Path) -> None:
    with pytest.raises(UsageError, match=r"does not fit the run's config\.yaml"):
        resume(cut, changes={"optimizer": "adamw"}, override=["optimizer"])


def test_a_run_that_has_ended_goes_on_when_it_is_to_be_longer(made: Path, tmp_path: Path) -> None:
    run(tmp_path / "short", epochs=2, schedule="constant", warmup_epochs=0)
    run(tmp_path / "long", epochs=4, schedule="constant", warmup_epochs=0)
    assert resume(tmp_path / "short", changes={"epochs": 4}).reason == "finished"
    ours, theirs = records(tmp_path / "short"), records(tmp_path / "long")
    assert [r["loss"] for r in ours if r["event"] == "step"] == [
        r["loss"] for r in theirs if r["event"] == "step"
    ]
    assert [r["event"] for r in ours].count("end") == 1


def test_a_run_cannot_be_made_shorter_than_it_is_and_stays_as_it_was(made: Path) -> None:
    before = records(made / "whole")
    with pytest.raises(UsageError, match=r"has trained 4 epochs, and cannot end after 2.*4 or more"):
        resume(made / "whole", changes={"epochs": 2})
    assert records(made / "whole") == before and RunDir(made / "whole").config().epochs == 4


@pytest.mark.parametrize("lost", ["encoder.safetensors", "checkpoints/healthy.pt"])
def test_what_follows_from_the_checkpoint_is_made_again(made: Path, tmp_path: Path, lost: str) -> None:
    ended = shutil.copytree(made / "whole", tmp_path / "run")
    if not (ended / lost).exists():
        pytest.skip("this run has none")
    (ended / lost).unlink()
    resume(ended)
    assert (ended / lost).exists()


def test_the_encoder_of_a_run_that_collapsed_is_its_last_healthy_one_even_if_it_was_killed_before(
    tmp_path: Path,
) -> None:
    run(tmp_path / "run", epochs=2)
    found = RunDir(tmp_path / "run")
    state = torch.load(found.checkpoints.path("last"), weights_only=True)
    healthy = {**state, "progress": {**state["progress"], "last": _judged(state, "healthy")}}
    found.checkpoints.write(healthy)
    found.checkpoints.keep_healthy()
    collapsed = {**state, "method": {k: v * 0 for k, v in state["method"].items()}}
    collapsed["progress"] = {**state["progress"], "ended": "collapsed", "last": _judged(state, "complete")}
    found.checkpoints.write(collapsed)  # and killed before the encoder is in place
    resume(tmp_path / "run")
    from safetensors.torch import load_file

    encoder = load_file(tmp_path / "run/encoder.safetensors")
    assert all(torch.equal(value, state["method"][f"backbone.{key}"]) for key, value in encoder.items())


def _judged(state: dict[str, Any], kind: str) -> dict[str, Any]:
    last = state["progress"]["last"]
    return {**last, "verdict": {**last["verdict"], "kind": kind}}


def test_the_same_settings_may_continue_and_others_may_not(cut: Path) -> None:
    asked = config(epochs=4)
    assert may_continue(asked, cut, named=None)
    assert not may_continue(asked, cut.with_name("nothing"), named=None)
    with pytest.raises(UsageError, match="exists already, with seed 0 instead of seed 7"):
        may_continue(config(epochs=4, seed=7), cut, named=["seed"])


def first_lines(content: bytes, part: float) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join(lines[: int(part * len(lines))])


CUT: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda content: b"", "no records of steps 1 to"),
    "part of a line": (lambda content: content[:200], "no records of steps 1 to"),
    "in the middle": (lambda content: content[: len(content) // 2], "no records of steps [2-9]"),
    "after a third": (lambda content: first_lines(content, 0.33), "no records of steps [2-9]"),
}


@pytest.mark.parametrize("how", CUT)
def test_a_run_whose_records_were_cut_goes_on_and_says_of_which_steps_there_are_none(
    cut: Path, how: str
) -> None:
    log, (left, said), shown = cut / "metrics.jsonl", CUT[how], list[str]()
    log.write_bytes(left(log.read_bytes()))
    assert resume(cut, [notes(shown)]).reason == "finished"
    assert b"\x00" not in log.read_bytes()
    assert [note for note in shown if re.search(said, note)]


def test_a_run_without_its_records_says_so(cut: Path) -> None:
    shown: list[str] = []
    (cut / "metrics.jsonl").unlink()
    resume(cut, [notes(shown)])
    assert [note for note in shown if "metrics.jsonl has no records of steps 1 to" in note]


def test_nothing_is_said_of_records_that_are_all_there(cut: Path) -> None:
    shown: list[str] = []
    resume(cut, [notes(shown)])
    assert not [note for note in shown if "records" in note]


FOREIGN: dict[str, Callable[[bytes], bytes]] = {
    "a line of anything": lambda content: b"garbage\n",
    "lines of anything": lambda content: b"garbage\n" * len(content),
    "zeros": lambda content: bytes(len(content) + 1),
    "records of a longer run": lambda content: b'{"event": "step", "epoch": 9, "step": 9000}\n',
    "records of another seed": lambda content: content.replace(b'"value": ', b'"value": 1'),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_records_that_are_not_the_runs_own_are_refused_and_left_as_they_are(cut: Path, what: str) -> None:
    log = cut / "metrics.jsonl"
    foreign = FOREIGN[what](log.read_bytes())
    log.write_bytes(foreign)
    with pytest.raises(UsageError, match=r"not what this run wrote .* move this one away"):
        resume(cut)
    assert log.read_bytes() == foreign
    log.rename(log.with_name("moved.jsonl"))
    assert resume(cut).reason == "finished"


@pytest.mark.parametrize("steps", [0, 9])
def test_a_rate_that_is_allowed_is_the_rate_that_trains(made: Path, tmp_path: Path, steps: int) -> None:
    cut_run(tmp_path / "run", steps + 1, epochs=4)
    shutil.copytree(tmp_path / "run", tmp_path / "still")
    resume(tmp_path / "still", changes={"lr": 1e-12}, override=["lr"])
    weights = torch.load(checkpoints(tmp_path / "still") / "last.pt", weights_only=True)["method"]
    before = torch.load(checkpoints(tmp_path / "run") / "last.pt", weights_only=True)["method"]
    name = next(name for name in before if name.startswith("backbone") and name.endswith("weight"))
    assert torch.allclose(weights[name], before[name], atol=1e-6), "it trained at the rate of before"


def test_a_refused_resume_leaves_the_records(cut: Path) -> None:
    before = (cut / "metrics.jsonl").read_bytes()
    with pytest.raises(UsageError, match="images"):
        resume(cut, changes={"limit": 100}, override=["limit"])
    with pytest.raises(UsageError, match="--override data=FOLDER"):
        resume(cut, changes={"data": "gone"}, override=["data"])
    assert (cut / "metrics.jsonl").read_bytes() == before


def test_a_torn_line_is_cut_before_records_follow(cut: Path) -> None:
    content = (cut / "metrics.jsonl").read_bytes()
    (cut / "metrics.jsonl").write_bytes(content[: len(content) // 2])
    resume(cut)
    assert all(record["event"] for record in records(cut))
