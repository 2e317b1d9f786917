"""Scripts for sbatch and their submission: a command a job, several an array."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullrank.errors import FullrankError, UsageError, printable
from fullrank.jobs.slurm_options import SlurmOptions

SOON = 60.0  # seconds in which sbatch answers
LONGEST_STRAGGLER = 600  # seconds that the processes of a run may end apart
RANKS = "export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS"
"""Shell that tells a process its rank as torchrun does, for commands that know only that."""
ENDED_EARLY = (129, 138, 143)  # exit codes of runs that a signal asked to end, and that go on


@dataclass(frozen=True)
class Command:
    """A command of `fullrank` as a job.

    Attributes:
        name: shown in tables, unique in its array.
        argv: the words after `fullrank`.
        run: the run directory that it writes; empty where it trains nothing.
    """

    name: str
    argv: tuple[str, ...]
    run: str = ""


def make_script(commands: Sequence[Command], options: SlurmOptions, folder: Path, name: str) -> str:
    r"""Make the script that sbatch gets.

    It starts the command with srun, so that every process is told its rank. A run that was asked to end, and
    has checkpointed, is put into the queue again; the exit code of any other is left in `folder`.

    Args:
        commands: one, or several for an array.
        options: of the user.
        folder: for logs and exit codes; absolute.
        name: of the job.

    Raises:
        UsageError: submitit is not installed.

    Example:
        >>> print(make_script([Command("a", ("train", "simsiam"))], SlurmOptions(), Path("/runs/slurm"), "a"))
        ... # doctest: +ELLIPSIS
        #!/bin/bash
        ...
        #SBATCH --job-name=a
        ...
        #SBATCH --signal=USR1@120
        ...
    """
    return str(_executor(folder)._make_text(commands, options, name))


def submit(commands: Sequence[Command], options: SlurmOptions, folder: Path, name: str) -> str:
    """Submit commands as one job, or one array; return its number.

    Raises:
        UsageError: there is no submitit or no sbatch, or sbatch refuses the job, in its own words.
        FullrankError: sbatch does not answer.
    """
    executor = _executor(folder)
    if shutil.which("sbatch") is None:
        raise UsageError("--slurm: there is no sbatch here: run it on a log-in node of a SLURM cluster")
    if "%" in str(folder):
        raise UsageError(
            f"--slurm: {folder} has a % in it, which sbatch takes for a pattern: take another --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    import submitit

    try:
        return str(executor._submit_text(executor._make_text(commands, options, name)))
    except submitit.core.utils.FailedSubmissionError as error:
        raise UsageError(f"--slurm: {_refusal(str(error))}") from error
    except FullrankError as error:
        raise type(error)(f"--slurm: {error}") from error
    finally:
        for draft in folder.glob(".submission_file_*.sh"):
            draft.unlink()


def _executor(folder: Path) -> Any:
    try:
        import submitit
    except ImportError:
        raise UsageError("--slurm needs submitit: pip install 'fullrank[slurm]'") from None

    class ScriptExecutor(submitit.SlurmExecutor):
        """Executor of submitit for commands: nothing is pickled, scripts can be read."""

        @classmethod
        def affinity(cls) -> int:
            return 2  # scripts are made anywhere; where they are submitted sbatch is sought

        def _make_text(self, commands: Sequence[Command], options: SlurmOptions, name: str) -> str:
            several = len(commands) > 1
            more = {"output": f"{self.folder}/{'%A_%a' if several else '%j'}.txt", **_sbatch(options)}
            if several:
                limit = f"%{options.array_parallelism}" if options.array_parallelism else ""
                more["array"] = f"0-{len(commands) - 1}{limit}"
            more.setdefault("job-name", name)
            self.parameters = {
                **dict.fromkeys(
                    ("job_name", "time", "wckey", "nodes")
                ),  # submitit's defaults are not the cluster's
                "stderr_to_stdout": True,
                "use_srun": False,  # the block below does, and sees its exit code
                "setup": list(options.setup) or None,
                "additional_parameters": more,
            }
            return str(self._make_submission_file_text(_block(commands, options, Path(self.folder)), ""))

        def _submit_text(self, text: str) -> str:
            draft = Path(self.folder, f".submission_file_{uuid.uuid4().hex}.sh")
            draft.write_text(text, encoding="utf-8")
            said = _answer(self._make_submission_command(draft))
            number = str(self._get_job_id_from_submission_command(said))
            draft.replace(submitit.core.utils.JobPaths(self.folder, job_id=number).submission_file)
            return number

        def _make_submission_file_text(self, command: str, uid: str) -> str:
            made = super()._make_submission_file_text(command, uid)
            return made.replace("export SUBMITIT_EXECUTOR=slurm\n", "")

    return ScriptExecutor(folder)


def _answer(words: Sequence[str]) -> str:
    """What sbatch prints.

    Raises:
        UsageError: it refuses the job.
        FullrankError: it does not answer.
    """
    try:
        done = subprocess.run(words, capture_output=True, encoding="utf-8", errors="replace", timeout=SOON)
    except subprocess.TimeoutExpired as error:
        raise FullrankError(
            f"sbatch does not answer within {SOON:g} s: see with `squeue --me` whether it took the job, "
            "before you submit it again"
        ) from error
    except OSError as error:
        raise FullrankError(f"sbatch cannot be run: {error.strerror}") from error
    if done.returncode:
        raise UsageError(_refusal(done.stderr))
    return done.stdout


def _refusal(text: str) -> str:
    lines = [line.removeprefix("sbatch: ").removeprefix("error: ") for line in text.splitlines()]
    said = "; ".join(printable(line.strip()) for line in lines if line.strip())
    return f"sbatch refuses the job: {said or 'without a word'}"


def _sbatch(options: SlurmOptions) -> dict[str, Any]:
    given: dict[str, Any] = {key: value or True for key, value in options.sbatch.items()}
    signal = {"signal": f"USR1@{options.signal_seconds}"} if options.signal_seconds else {}
    return {**signal, **({"requeue": True} if options.requeue else {"no-requeue": True}), **given}


def _block(commands: Sequence[Command], options: SlurmOptions, folder: Path) -> str:
    """Shell that runs the command of this job, and what follows from its exit code."""
    words = [shlex.join([sys.executable, "-m", "fullrank", *command.argv]) for command in commands]
    if len(words) == 1:
        job, chosen = "$SLURM_JOB_ID", f"set -- {words[0]}"
    else:
        job = "${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID"
        cases = [f"{index}) set -- {text} ;;" for index, text in enumerate(words)]
        chosen = "\n".join(["case $SLURM_ARRAY_TASK_ID in", *cases, "esac"])
    cores = options.sbatch.get("cpus-per-task", "")
    threads = [f"export OMP_NUM_THREADS=${{OMP_NUM_THREADS:-{cores}}}"] if cores else []
    srun = ["srun", f"--wait={LONGEST_STRAGGLER}", *([f"--cpus-per-task={cores}"] if cores else [])]
    if commands[0].argv[0] == "embed":
        srun += ["bash", "-c", f'{RANKS}; exec "$@"', "bash"]
    code = f"{shlex.quote(str(folder))}/{job}.code"
    again = "|".join(map(str, ENDED_EARLY))
    return "\n".join(
        [
            f"job={job}",
            *threads,
            chosen,
            f"rm -f {code}",
            "cancelled=",
            "trap cancelled=cancelled TERM  # of the whole job, by its user or the controller",
            "trap : USR1  # of the run, which checkpoints and ends",
            f'{shlex.join(srun)} "$@"',
            "code=$?",
            "case $code in",
            f"{again})",
            f'    if [ -z "$cancelled" ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {options.requeue} ]; then',
            '        echo "fullrank: exit code $code: job $job goes back into the queue"',
            '        scontrol requeue "$job" && exit "$code"',
            "    fi ;;",
            "esac",
            f'echo "$code" $cancelled > {code}',
            'exit "$code"',
        ]
    )
