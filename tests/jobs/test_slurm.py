"""`--slurm`: what is submitted, what is refused before, and what becomes of jobs, on a made-up cluster."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from cli.helpers import SMALL, call
from fullrank.errors import FullrankError, UsageError
from fullrank.jobs.job import Job
from fullrank.jobs.queue import ENDS, Queued, cancel_jobs, job_state, read_queue
from fullrank.jobs.slurm_options import SlurmOptions, split_slurm
from fullrank.jobs.submissions import Submission, submissions
from fullrank.jobs.submit import Command, submit
from fullrank.jobs.watch import Watched, wait_for
from jobs.conftest import FakeCluster

COMMANDS = (Command("a", ("train", "a b")), Command("b", ("train", "$HOME")))


def given(*words: str) -> SlurmOptions:
    options, others = split_slurm(words)
    assert options is not None and others == []
    return options


@pytest.mark.parametrize(
    "words",
    [
        ["--slurm-gpus-per-node", "4", "--slurm-exclusive"],
        ["--slurm-exclusive", "--slurm-gpus-per-node=4"],
        ["--slurm", "--slurm_gpus_per_node=4", "--slurm-exclusive"],
    ],
)
def test_an_option_may_be_written_in_any_way(words: list[str]) -> None:
    options, others = split_slurm(["simsiam", *words, "--lr", "0.1"])
    assert options and options.sbatch == {"gpus-per-node": "4", "exclusive": ""}
    assert others == ["simsiam", "--lr", "0.1"]


def test_without_an_option_of_slurm_there_are_none() -> None:
    assert split_slurm(["simsiam", "--lr", "0.1"]) == (None, ["simsiam", "--lr", "0.1"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--slurm-partion=gpu"], "unknown option '--slurm-partion'; did you mean '--slurm-partition'?"),
        (["--slurm-zzzzzz=1"], "unknown option '--slurm-zzzzzz'"),
        (["--slurm-time"], "--slurm-time needs a value"),
        (["--slurm-time="], "--slurm-time needs a value"),
        (["--slurm-time", "--lr"], "--slurm-time needs a value"),
        (["--slurm=gpu"], "--slurm takes no value"),
        (["--slurm-array=0-3"], "--slurm-array is for fullrank to say"),
        (["--slurm-output=log"], "--slurm-output is for fullrank to say"),
        (["--slurm-requeue=often"], "--slurm-requeue takes a whole number of at least 0, not often"),
        (["--slurm-requeue=-1"], "--slurm-requeue takes a whole number of at least 0, not -1"),
        (["--slurm-signal-seconds=70000"], "--slurm-signal-seconds is at most 65,535"),
        (["--slurm-requeue=9999999999"], "--slurm-requeue is at most 2,147,483,647, not 9,999,999,999"),
        (["--slurm-array-parallelism=" + "9" * 40], "--slurm-array-parallelism is at most 2,147,483,647"),
        (["--slurm-comment=a\n#SBATCH --uid=0"], r"--slurm-comment a\n#SBATCH --uid=0: a value is one line"),
        (["--slurm-comment", "\x1b[31m"], r"--slurm-comment \x1b[31m: a value is one line without control"),
        (["--slurm-qos=a\x00"], "a value is one line without control characters"),
        (["--slurm-exclusive=user\r"], "a value is one line without control characters"),
        (["--slurm-partition=a\u2028b"], "a value is one line without control characters"),
        (["--slurm-setup=a\nb"], "give --slurm-setup once a line"),
        (["--slurm-wait=yes"], "--slurm-wait takes no value"),
    ],
)
def test_an_option_that_cannot_be_is_refused_in_a_line(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as refused:
        split_slurm(words)
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "tasks"),
    [
        (["--slurm-gpus-per-node=8"], "8"),
        (["--slurm-gpus-per-node=h100:8"], "8"),
        (["--slurm-gres=gpu:a100:4"], "4"),
        (["--slurm-gres=shard:2,gpu:4"], "4"),
        (["--slurm-gpus-per-node=1"], None),
        (["--slurm-gres=license:4"], None),
        (["--slurm-nodes=4"], None),
        (["--slurm-gpus-per-node=8", "--slurm-ntasks-per-node=2"], "2"),
        (["--slurm-gpus-per-node=8", "--slurm-gpus-per-task=1"], None),
    ],
)
def test_a_run_has_a_process_for_each_gpu_unless_told_otherwise(words: list[str], tasks: str | None) -> None:
    assert given(*words).with_tasks_per_gpu().sbatch.get("ntasks-per-node") == tasks


SUBMISSION = Submission("7", "name", "", COMMANDS)
SAID_NOTHING = (
    "and it left no exit code and no line since it was to begin; `scontrol show job 7` tells why; the same "
    "command submits it again"
)


@pytest.mark.parametrize(
    ("queued", "code", "log", "state", "why"),
    [
        (Queued("PENDING", reason="Priority"), None, "", "waiting", "Priority"),
        (Queued("PENDING"), "138", "", "waiting", ""),  # of its life before
        (Queued("RUNNING"), None, "", "running", ""),
        (Queued("COMPLETING"), "0", "", "running", ""),
        (Queued("COMPLETED"), "0", "", "done", ""),
        (Queued("COMPLETED"), None, "", "done", ""),
        (None, "0", "", "done", ""),
        (None, "3", "", "done", ""),
        (None, "1", "", "failed", "exit code 1"),
        (Queued("FAILED"), "2", "", "failed", "exit code 2"),
        (Queued("TIMEOUT"), None, "", "failed", ENDS["TIMEOUT"]),
        (Queued("OUT_OF_MEMORY"), None, "", "failed", ENDS["OUT_OF_MEMORY"]),
        (Queued("NODE_FAIL"), None, "", "failed", ENDS["NODE_FAIL"]),
        (Queued("SOMETHING_NEW"), None, "", "failed", SAID_NOTHING),
        (Queued("FAILED"), None, "job 7 goes back into the queue", "failed", SAID_NOTHING),
        (Queued("FAILED"), None, "epoch 3", "failed", "left no exit code; the same command submits it again"),
        (Queued("CANCELLED"), "143", "", "cancelled", ENDS["CANCELLED"]),
        (None, "143 cancelled", "", "cancelled", ENDS["CANCELLED"]),
        (Queued("TIMEOUT"), "143 cancelled", "", "failed", ENDS["TIMEOUT"]),
        (
            None,
            "143 cancelled",
            "*** STEP 7.0 CANCELLED AT 2 DUE TO TIME LIMIT ***",
            "failed",
            ENDS["TIMEOUT"],
        ),
        (None, None, "*** JOB 7 ON n1 CANCELLED AT 2 DUE TO TIME LIMIT ***", "failed", ENDS["TIMEOUT"]),
        (None, None, "*** JOB 7 ON n1 CANCELLED AT 2026 ***", "cancelled", ENDS["CANCELLED"]),
        (None, None, "*** JOB 7 ON n1 CANCELLED AT 2 DUE TO NODE FAILURE ***", "lost", "NODE FAILURE ***"),
        (None, None, "*** JOB 7 ON n1 CANCELLED AT 2 ***\njob 7 goes back into the queue", "lost", "nothing"),
        (None, None, "epoch 3", "lost", "its last line: epoch 3"),
        (None, None, "", "lost", "it printed nothing"),
        (None, "damaged", "", "lost", "it printed nothing"),
    ],
)
def test_the_state_of_a_job_is_told_by_the_queue_and_by_what_it_left(
    tmp_path: Path, queued: Queued | None, code: str | None, log: str, state: str, why: str
) -> None:
    submission = Submission("7", "name", str(tmp_path), COMMANDS[:1])
    if code is not None:
        (tmp_path / "7.code").write_text(f"{code}\n")
    if log:
        (tmp_path / "7.txt").write_text(f"first\n{log}\n")
    found = job_state(submission, "7", {"7": queued} if queued else {}, (0, 3))
    assert found.state == state and (found.why.endswith(why) if why else not found.why)


def waited(
    tmp_path: Path, answers: list[Mapping[str, Queued] | Exception]
) -> tuple[dict[str, str], list[str]]:
    """Failures of job 7, and the states that it was notified of, with the queue as it is told."""
    submission = Submission("7", "name", str(tmp_path), COMMANDS[:1])
    coming: Iterator[Mapping[str, Queued] | Exception] = iter(answers)
    states: list[str] = []

    def ask() -> Mapping[str, Queued]:
        answer = next(coming)
        if isinstance(answer, Exception):
            raise answer
        return answer

    watched = [Watched(submission, "7", Job("a"))]
    failed = wait_for(watched, lambda _, state, __: states.append(state), ask=ask, sleep=lambda _: None)
    return failed, states


def test_a_job_is_waited_for_through_a_requeue_and_a_silent_controller(tmp_path: Path) -> None:
    waits, runs = {"7": Queued("PENDING")}, {"7": Queued("RUNNING")}
    silent = FullrankError("squeue does not answer")
    answers: list[Mapping[str, Queued] | Exception] = [
        waits,
        silent,
        runs,
        {"7": Queued("PENDING")},
        silent,
        runs,
        {"7": Queued("COMPLETED")},
    ]
    assert waited(tmp_path, answers) == ({}, ["running", "running", "done"])


REFUSED = {"7": Queued("FAILED")}


@pytest.mark.parametrize(
    ("answers", "failed"), [([REFUSED] * 2, False), ([REFUSED, {}], False), ([REFUSED] * 3, True)]
)
def test_a_job_that_failed_without_a_code_after_a_requeue_is_asked_for_again(
    answers: list[Mapping[str, Queued] | Exception], failed: bool, tmp_path: Path
) -> None:
    (tmp_path / "7.txt").write_text("exit code 143: job 7 goes back into the queue\n")
    begins: list[Mapping[str, Queued] | Exception] = [{"7": Queued("RUNNING")}]
    again: list[Mapping[str, Queued] | Exception] = [{"7": Queued("RUNNING")}, {"7": Queued("COMPLETED")}]
    found, states = waited(tmp_path, [*begins, *answers, *again])
    assert states == ["running", "failed"] if failed else ["running", "running", "done"]
    assert (SAID_NOTHING in found.get("a", "")) == failed


def test_a_job_that_vanished_is_said_to_have(tmp_path: Path) -> None:
    failed, states = waited(tmp_path, [{"7": Queued("RUNNING")}, {}, {}, {}])
    assert states == ["running", "failed"]
    assert "no longer in the queue and left no exit code" in failed["a"] and "7.txt" in failed["a"]


def test_a_job_that_is_late_to_be_seen_has_not_vanished(tmp_path: Path) -> None:
    assert waited(tmp_path, [{}, {}, {"7": Queued("RUNNING")}, {"7": Queued("COMPLETED")}])[0] == {}


def test_a_controller_that_stays_silent_ends_the_waiting_and_not_the_jobs(tmp_path: Path) -> None:
    with pytest.raises(FullrankError, match="the jobs go on: `fullrank jobs` shows them"):
        waited(tmp_path, [FullrankError("squeue does not answer")] * 1000)


def test_a_failed_job_says_what_it_printed(tmp_path: Path) -> None:
    (tmp_path / "7.txt").write_text("noise\nfullrank: no such folder: x\nsrun: error: exit code 2\n")
    (tmp_path / "7.code").write_text("2\n")
    assert waited(tmp_path, [{}])[0]["a"].startswith("no such folder: x (job 7, all of it in ")


def test_a_submitted_training_is_on_record_and_is_not_submitted_twice(
    cluster: FakeCluster, here: Path
) -> None:
    done = call("train", "simsiam", *SMALL, "--slurm-time", "60")
    assert done.code == 0 and "job     7: fullrank train simsiam" in done.out
    assert "#SBATCH --time=60\n" in cluster.script
    (found,) = submissions()
    assert found.tasks["7"].run == str(here / "runs" / "simsiam-shapes")
    assert found.log("7") == here / "runs" / "slurm" / "7.txt"
    assert "--out runs/simsiam-shapes" in cluster.script
    cluster.queue("7|PENDING|0:00|1:00:00||Priority")
    again = call("train", "simsiam", *SMALL, "--out", "runs/simsiam-shapes", "--slurm")
    assert again.code == 2 and "is job 7 already, which is waiting" in again.err
    assert "runs/simsiam-shapes-2" in call("train", "simsiam", *SMALL, "--slurm", "--dry-run").out


def test_what_the_command_itself_would_refuse_is_refused_before_it_is_submitted(cluster: FakeCluster) -> None:
    for words in (
        ["train", "simsiam", "--lr", "fast"],
        ["train", "simsaim"],
        ["resume", "no-such-run"],
        ["embed", "run", "--splitt", "x", "--out", "features"],
        ["evaluate", "kn", "run"],
        ["sweep", "simsiam", "--over", "rl=1"],
        ["lab", "asymetry"],
    ):
        called = call(*words, "--slurm")
        assert called.code == 2 and called.err.count("\n") == 1, called
    assert not (cluster.state / "script.sh").exists() and not submissions()


def test_what_sbatch_says_is_passed_on_and_leaves_nothing(cluster: FakeCluster, here: Path) -> None:
    refusal = (
        "sbatch: error: invalid partition specified: x\nsbatch: error: Batch job submission failed: no\n"
    )
    (cluster.state / "refusal").write_text(refusal)
    called = call("train", "simsiam", *SMALL, "--slurm-partition", "x")
    said = "sbatch refuses the job: invalid partition specified: x; Batch job submission failed: no"
    assert called.code == 2 and called.err == f"fullrank: --slurm: {said}\n"
    assert not submissions() and not list(here.rglob("*.sh")) and not list(here.rglob(".submission*"))


NOT_UTF8 = "#!/bin/sh\nprintf 'M\\374nchen \\033[31m'{to}; exit {code}\n"


@pytest.mark.parametrize("name", ["sbatch", "squeue", "scancel"])
def test_bytes_of_any_kind_from_slurm_are_shown_escaped(
    cluster: FakeCluster, here: Path, tmp_path: Path, name: str
) -> None:
    def asked() -> None:
        if name == "sbatch":
            submit([Command("a", ("train", "simsiam"))], SlurmOptions(), here / "slurm", "a")
        elif name == "squeue":
            read_queue()
        else:
            cancel_jobs(["7"])

    (tmp_path / "bin" / name).write_text(NOT_UTF8.format(to=" >&2", code=1))
    with pytest.raises(FullrankError) as refused:
        asked()
    assert "M\ufffdnchen \\x1b[31m" in str(refused.value)


def test_lines_of_squeue_that_are_not_utf_8_are_read(cluster: FakeCluster) -> None:
    (cluster.state / "queue").write_bytes(b"7|RUNNING|0:05|10:00|n\xf6de|\x1b[31m\n\xff\xfe\n")
    assert read_queue() == {"7": Queued("RUNNING", "0:05", "10:00", "n\ufffdde", "\\x1b[31m")}


def test_an_sbatch_that_does_not_answer_is_not_waited_for(
    cluster: FakeCluster, here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fullrank.jobs.submit.SOON", 0.3)
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(FullrankError, match=r"sbatch does not answer within 0\.3 s: see with `squeue --me`"):
        submit([Command("a", ("train", "simsiam"))], SlurmOptions(), here / "slurm", "a")
    assert not list((here / "slurm").iterdir())


def test_without_sbatch_that_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", str(here))
    called = call("train", "simsiam", *SMALL, "--slurm")
    assert called.code == 2 and "there is no sbatch here" in called.err and called.err.count("\n") == 1


def test_without_submitit_that_is_said(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    called = call("train", "simsiam", *SMALL, "--slurm")
    assert called.code == 2 and "pip install 'fullrank[slurm]'" in called.err


def table(**states: str) -> dict[str, Any]:
    return {"lines": [f"{task}|{state}|0:10|1:00:00|node1|None" for task, state in states.items()]}


def test_jobs_are_listed_and_cancelled_by_number_array_or_run(cluster: FakeCluster, here: Path) -> None:
    words = ("sweep", "simsiam", "--over", "lr=0.1,0.2", "--out", "grid", *SMALL)
    assert call(*words, "--slurm-no-wait").code == 0
    cluster.queue(*table(**{"7_0": "RUNNING", "7_1": "PENDING"})["lines"])
    rows = json.loads(call("jobs", "--json").out)
    assert [(row["job"], row["name"], row["state"]) for row in rows] == [
        ("7_0", "lr=0.1", "running"), ("7_1", "lr=0.2", "waiting")
    ]  # fmt: skip
    assert len(json.loads(call("jobs", "7_1", "--json").out)) == 1
    assert len(json.loads(call("jobs", "grid", "--json").out)) == 2
    assert call("jobs", "--cancel", "grid/lr=0.2").out == "cancelled 7_1  lr=0.2\n"
    assert (cluster.state / "cancelled").read_text() == "7_1\n"
    cluster.queue(*table(**{"7_0": "RUNNING"})["lines"])
    assert [row["state"] for row in json.loads(call("jobs", "--json").out)] == ["running", "cancelled"]
    assert "goes on" in call("jobs", "--cancel", "7").out
    unknown = call("jobs", "8")
    assert unknown.code == 2 and "unknown job '8'" in unknown.err


def test_a_sweep_that_is_called_again_waits_for_the_jobs_that_are_there(
    cluster: FakeCluster, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("sweep", "simsiam", "--over", "lr=0.1,0.2", "--out", "grid", *SMALL)
    assert call(*words, "--slurm-no-wait").code == 0
    (cluster.state / "script.sh").unlink()
    cluster.queue(*table(**{"7_0": "RUNNING", "7_1": "PENDING"})["lines"])
    again = call(*words, "--slurm-no-wait")
    assert again.code == 0 and "2 of them wait or run already" in again.err
    assert not (cluster.state / "script.sh").exists()


def test_cancelling_asks_for_the_jobs_to_cancel(cluster: FakeCluster) -> None:
    called = call("jobs", "--cancel")
    assert called.code == 2 and "--cancel takes the jobs that are to end" in called.err


def test_a_record_that_is_damaged_or_old_is_passed_over(cluster: FakeCluster, tmp_path: Path) -> None:
    assert call("train", "simsiam", *SMALL, "--slurm").code == 0
    folder = tmp_path / "home" / "fullrank" / "slurm"
    (path,) = folder.glob("*.json")
    values = json.loads(path.read_text())
    (folder / "1-1.json").write_text("{")
    (folder / "1-2.json").write_text(json.dumps({**values, "commands": []}))
    (folder / "1-3.json").write_text(json.dumps({**values, "submitted": 0}))
    assert [found.number for found in submissions()] == ["7"]
    assert not (folder / "1-3.json").exists()


def test_a_lab_is_an_array_of_its_jobs_each_of_which_can_be_run_alone(cluster: FakeCluster) -> None:
    done = call("lab", "failures", "--seeds", "0", "--slurm-no-wait")
    assert done.code == 0 and "--report-only" in done.out
    (found,) = submissions()
    assert len(found.commands) > 1
    assert all(c.argv[:3] == ("lab", "failures", "--out") and c.argv[4] == "--only" for c in found.commands)
    folders = {command.argv[-1] for command in found.commands}
    unknown = call("lab", "failures", "--out", found.commands[0].argv[3], "--only", f"{min(folders)}x")
    assert unknown.code == 2 and min(folders) in unknown.err
    several = call("lab", "failures", "--seeds", "0", "--slurm-nodes", "2", "--dry-run")
    assert several.code == 2 and "a job of a lab is one process" in several.err


def test_the_options_of_slurm_are_explained(here: Path) -> None:
    for command in (*("train", "resume", "embed", "evaluate", "sweep", "lab", "jobs"),):
        called = call(command, "--slurm", "--help")
        assert called.code == 0 and "--slurm-signal-seconds" in called.out
        assert max(map(len, called.out.splitlines())) <= 120


def test_a_folder_that_sbatch_would_take_for_a_pattern_is_refused(cluster: FakeCluster, here: Path) -> None:
    called = call("train", "simsiam", *SMALL, "--out", "50%/run", "--slurm")
    assert called.code == 2 and "has a % in it" in called.err


def test_an_evaluation_is_one_process(cluster: FakeCluster) -> None:
    called = call("evaluate", "knn", "run", "--slurm-nodes", "2")
    assert called.code == 2 and "an evaluation is one process on one machine" in called.err
