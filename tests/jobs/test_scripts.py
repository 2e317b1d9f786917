"""Scripts for sbatch: what they ask for, what they run, and when a job goes back into the queue."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from fullrank.jobs import submit
from fullrank.jobs.slurm_options import SlurmOptions, split_slurm
from fullrank.jobs.submit import ENDED_EARLY, Command, make_script

COMMANDS = (Command("a", ("train", "a b")), Command("b", ("train", "$HOME")))


def given(*words: str) -> SlurmOptions:
    options, others = split_slurm(words)
    assert options is not None and others == []
    return options


def header(script: str) -> dict[str, str]:
    found = re.findall(r"^#SBATCH --([\w-]+)(?:=(.*))?$", script, re.MULTILINE)
    assert len(found) == len(dict(found)), "an option stands twice"
    return dict(found)


def test_a_script_asks_for_what_was_asked_and_for_no_more(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    script = make_script(COMMANDS[:1], given("--slurm-account=lab", "--slurm-mem=64G"), tmp_path, "name")
    assert header(script) == {
        "account": "lab", "mem": "64G", "job-name": "name", "open-mode": "append", "requeue": "",
        "output": f"{tmp_path}/%j.txt", "signal": "USR1@120",
    }  # fmt: skip


def test_several_commands_are_an_array(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    script = make_script(
        COMMANDS, given("--slurm-array-parallelism=1", "--slurm-requeue=0"), tmp_path, "name"
    )
    assert header(script)["array"] == "0-1%1" and "no-requeue" in header(script)
    assert header(script)["output"] == f"{tmp_path}/%A_%a.txt"


def run_script(text: str, folder: Path, code: int, **variables: str) -> tuple[int, str]:
    """Run a script where srun prints its words and ends with a code, and scontrol succeeds."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "srun").write_text(
        f'#!/bin/sh\nshift; for word in "$@"; do echo "<$word>"; done; exit {code}\n'
    )
    (programs / "scontrol").write_text('#!/bin/sh\necho "scontrol $*"\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    environment = {"PATH": f"{programs}:/usr/bin:/bin", "SLURM_JOB_ID": "9", "HOME": "/home", **variables}
    done = subprocess.run(["bash"], input=text, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout


@pytest.mark.parametrize("index", [0, 1])
def test_each_job_of_an_array_runs_its_own_command_word_by_word(tmp_path: Path, index: int) -> None:
    pytest.importorskip("submitit")
    script = make_script(COMMANDS, SlurmOptions(), tmp_path, "name")
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": str(index)}
    code, printed = run_script(script, tmp_path, 0, **array)
    words = [sys.executable, "-m", "fullrank", *COMMANDS[index].argv]
    assert code == 0 and printed.splitlines() == [f"<{word}>" for word in words]
    assert (tmp_path / f"7_{index}.code").read_text() == "0\n"


@pytest.mark.parametrize("code", [0, 1, 2, 3, 130, 137, *ENDED_EARLY])
def test_only_a_run_that_was_asked_to_end_goes_back_into_the_queue(tmp_path: Path, code: int) -> None:
    pytest.importorskip("submitit")
    script = make_script(COMMANDS[:1], SlurmOptions(), tmp_path, "name")
    ended, printed = run_script(script, tmp_path, code)
    assert ended == code
    assert ("scontrol requeue 9" in printed) == (code in ENDED_EARLY)
    assert (tmp_path / "9.code").exists() == (code not in ENDED_EARLY)


@pytest.mark.parametrize(("restarts", "again"), [("0", True), ("1", True), ("2", False)])
def test_a_run_goes_back_so_often_as_it_may(tmp_path: Path, restarts: str, again: bool) -> None:
    pytest.importorskip("submitit")
    script = make_script(COMMANDS[:1], given("--slurm-requeue=2"), tmp_path, "name")
    _, printed = run_script(script, tmp_path, 138, SLURM_RESTART_COUNT=restarts)
    assert ("scontrol requeue" in printed) == again


def test_processes_that_embed_are_told_their_rank_as_by_torchrun(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    script = make_script([Command("a", ("embed", "run"))], SlurmOptions(), tmp_path, "name")
    variables = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4"}
    _, printed = run_script(script.replace(sys.executable, "env"), tmp_path, 0, **variables)
    assert "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS" in printed


def test_lines_of_set_up_come_before_the_run(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    options = given("--slurm-setup=echo first", "--slurm-setup", "echo second")
    _, printed = run_script(make_script(COMMANDS[:1], options, tmp_path, "name"), tmp_path, 0)
    assert printed.splitlines()[:2] == ["first", "second"]


def test_the_longest_wait_for_stragglers_is_given_to_srun(tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    script = make_script(COMMANDS[:1], given("--slurm-cpus-per-task=12"), tmp_path, "name")
    assert f"srun --wait={submit.LONGEST_STRAGGLER} --cpus-per-task=12" in script
    assert "OMP_NUM_THREADS:-12" in script
