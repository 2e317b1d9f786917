"""`--slurm`: a command as a job of SLURM; several as an array that is waited for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fullrank.errors import UsageError
from fullrank.jobs.job import Job, Notify
from fullrank.jobs.slurm_options import SlurmOptions, slurm_help, split_slurm
from fullrank.terminal import say

SINGLE = ("train", "resume", "embed", "evaluate")
"""Commands that are one job; `sweep` and `lab` are arrays."""
HELP_WORDS = {"-h", "--help", "--help-all"}


def run(name: str, words: Sequence[str]) -> int:
    """Submit a command whose words have an option of SLURM among them."""
    options, others = split_slurm(words)
    assert options is not None
    if HELP_WORDS & set(others):
        print(slurm_help(name))
        return 0
    from fullrank.jobs.submit import Command, make_script

    dry = "--dry-run" in others
    others = [word for word in others if word != "--dry-run"]
    argv, run_dir, out = PREPARE[name](others)
    if name == "evaluate":
        options.require_one_process("an evaluation")
    else:
        options = options.with_tasks_per_gpu()
    folder = (out.parent if name != "evaluate" else out).absolute() / "slurm"
    command = Command(" ".join(argv[:2]) if not run_dir else run_dir.name, tuple(argv), str(run_dir or ""))
    if dry:
        print(make_script([command], options, folder, "fullrank"), end="")
        return 0
    if run_dir:
        _require_unqueued(run_dir)
    (task,) = submit_all([command], options, folder).tasks
    log = folder / f"{task}.txt"
    if "--json" in others:
        print(json.dumps({"job": task, "log": str(log), "run": str(run_dir or "")}))
    else:
        say(f"job     {task}: fullrank {' '.join(argv)}")
        say(f"log     {log}")
        say(f"see     fullrank jobs; fullrank jobs --cancel {task} ends it")
    return _wait_for_one(task, "--json" in others) if options.wait else 0


def submit_all(commands: Sequence[Any], options: SlurmOptions, folder: Path) -> Any:
    """Submit commands and put them on record; return the submission."""
    from fullrank.jobs.submissions import remember_submission
    from fullrank.jobs.submit import submit

    name = options.sbatch.get("job-name", "fullrank")
    number = submit(commands, options, folder, name)
    return remember_submission(number, name, folder, commands)


def submit_jobs(
    jobs: Sequence[Job],
    command_of: Callable[[Job], Any],
    options: SlurmOptions,
    folder: Path,
    notify: Notify,
    fine: Sequence[int] = (0,),
) -> dict[str, str]:
    """Submit as an array the jobs that are not in the queue yet; wait for all.

    Args:
        jobs: what to run.
        command_of: the command of a job, with its run directory.
        options: of the user; with `wait` False nothing is waited for.
        folder: for scripts and logs.
        notify: called with every change and record.
        fine: exit codes that are no failure.

    Returns:
        Failures as {name: message}.
    """
    from fullrank.jobs.watch import Watched, wait_for

    commands = {job.name: command_of(job) for job in jobs}
    queued = {_identity(one.tasks[task]): (one, task) for one, task, _ in _unfinished()}
    places = {name: queued.get(_identity(command)) for name, command in commands.items()}
    fresh = [job for job in jobs if places[job.name] is None]
    if len(fresh) < len(jobs):
        say(f"{len(jobs) - len(fresh)} of them wait or run already", sys.stderr)
    if fresh:
        submission = submit_all([commands[job.name] for job in fresh], options, folder)
        tasks = zip(submission.tasks, fresh, strict=True)
        places |= {job.name: (submission, task) for task, job in tasks}
        say(
            f"job     {submission.number} of SLURM; `fullrank jobs` shows it, Ctrl-C leaves it be", sys.stderr
        )
    if options.wait is False:
        return {}
    watched = [Watched(*place, job) for job in jobs if (place := places[job.name])]
    return wait_for(watched, notify, fine)


def _identity(command: Any) -> Any:
    """What two commands that must not run at a time have in common."""
    return command.run or command.argv


def _unfinished() -> list[tuple[Any, str, str]]:
    from fullrank.jobs.queue import job_state, read_queue
    from fullrank.jobs.submissions import submissions

    known = submissions()
    queue = read_queue() if known else {}
    states = [(one, task, job_state(one, task, queue, (0,))) for one in known for task in one.tasks]
    return [(one, task, found.state) for one, task, found in states if not found.has_ended]


def _require_unqueued(run_dir: Path) -> None:
    for submission, task, state in _unfinished():
        if submission.tasks[task].run == str(run_dir):
            raise UsageError(
                f"{run_dir} is job {task} already, which is {state}: `fullrank jobs --cancel {task}` ends it"
            )


def _wait_for_one(task: str, quiet: bool) -> int:
    from fullrank.cli import jobs

    return jobs.run([task, "--watch", *(["--json"] if quiet else [])])


def _train(words: Sequence[str]) -> tuple[list[str], Path | None, Path]:
    from fullrank.cli.train import parse_options, starting_point, to_config
    from fullrank.training.run_dir import RunDir

    if not words or words[0].startswith("-"):
        raise UsageError("name a method or a recipe first: fullrank train simsiam --slurm ...")
    method, layers, _ = starting_point(words[0], words[1:])
    args = parse_options(method, layers, words[1:], f"fullrank train {words[0]}")
    argv = ["train", *words]
    out = Path(args.out) if args.out else _free_name(to_config(args))
    argv += [] if args.out else ["--out", str(out)]
    if not (out / "config.yaml").is_file():  # which goes on by --resume auto, where it has these settings
        RunDir.check_free(out)
    return argv, out.absolute(), out


def _free_name(config: Any) -> Path:
    """A run directory that neither is there nor will be written by a job."""
    from fullrank.training.run_dir import free_name

    taken = {submission.tasks[task].run for submission, task, _ in _unfinished()}
    first, number = free_name(config), 2
    path = first
    while path.exists() or str(path.absolute()) in taken:
        path, number = Path(f"{first}-{number}"), number + 1
    return path


def _resume(words: Sequence[str]) -> tuple[list[str], Path | None, Path]:
    from fullrank.cli.arguments import parse
    from fullrank.cli.resume import Resume
    from fullrank.training.run_dir import RunDir

    path = Path(parse(Resume, words, "fullrank resume").run)
    RunDir.open(path)
    return ["resume", *words], path.absolute(), path


def _embed(words: Sequence[str]) -> tuple[list[str], Path | None, Path]:
    from fullrank.cli.arguments import parse
    from fullrank.cli.embed import Embed

    return ["embed", *words], None, Path(parse(Embed, words, "fullrank embed").out)


def _evaluate(words: Sequence[str]) -> tuple[list[str], Path | None, Path]:
    from fullrank.cli.arguments import parse
    from fullrank.cli.evaluate import PROBES
    from fullrank.errors import UnknownNameError
    from fullrank.evaluation.result import result_folder

    probe = words[0] if words else ""
    if probe not in PROBES:
        raise UnknownNameError("probe", probe, PROBES)
    args = parse(PROBES[probe], words[1:], f"fullrank evaluate {probe}")
    return ["evaluate", *words], None, Path(result_folder(args.what, args.out))


PREPARE: dict[str, Callable[[Sequence[str]], tuple[list[str], Path | None, Path]]] = {
    "train": _train, "resume": _resume, "embed": _embed, "evaluate": _evaluate,
}  # fmt: skip
"""Check a command's words as it would itself; its words as a job, its run, and where it writes."""
