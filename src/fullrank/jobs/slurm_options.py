"""Options of `--slurm`: those of sbatch, and what happens when a job's time is up."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from fullrank.errors import UnknownNameError, UsageError, printable
from fullrank.ranges import check_numbers

OWN = {
    "setup": "a line of shell before the run, as 'module load cuda'; may be given several times",
    "requeue": "times that a job goes back into the queue, its time being up or it being preempted",
    "signal-seconds": "seconds before the time limit at which the run is asked to checkpoint and end",
    "array-parallelism": "jobs of an array that run at a time, at most; 0: as many as there is room for",
    "wait": "stay, and show what the jobs do, until all have ended (sweep and lab do)",
    "no-wait": "submit and return (train, resume, embed and evaluate do)",
}
"""What is not sbatch's own, by its name behind `--slurm-`."""

USUAL = {
    "partition": "where to run",
    "account": "whom it is charged to",
    "time": "limit of one job, in minutes or as [DAYS-]HOURS:MINUTES:SECONDS",
    "nodes": "machines of one run",
    "gpus-per-node": "GPUs of each, with one process a GPU in train, resume and sweep",
    "ntasks-per-node": "processes of each machine, where it is not one a GPU",
    "cpus-per-task": "cores of each process",
    "mem": "memory of each machine, as 64G",
}
"""Options of sbatch that most jobs have."""

_VALUES = (
    *("acctg-freq", "batch", "bb", "bbf", "begin", "clusters", "cluster-constraint", "comment"),
    *("constraint", "container", "core-spec", "cores-per-socket", "cpu-freq", "cpus-per-gpu", "deadline"),
    *("delay-boot", "dependency", "distribution", "exclude", "export", "export-file", "extra"),
    *("extra-node-info", "gid", "gpu-bind", "gpu-freq", "gpus", "gpus-per-socket", "gpus-per-task", "gres"),
    *("gres-flags", "hint", "job-name", "licenses", "mail-type", "mail-user", "mcs-label", "mem-bind"),
    *("mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice", "nodefile", "nodelist", "ntasks"),
    *("ntasks-per-core", "ntasks-per-gpu", "ntasks-per-socket", "power", "prefer", "priority", "profile"),
    *("propagate", "qos", "reservation", "signal", "sockets-per-node", "switches", "thread-spec"),
    *("threads-per-core", "time-min", "tmp", "tres-per-task", "uid", "wait-all-nodes", "wckey"),
)
_FLAGS = ("contiguous", "exclusive", "get-user-env", "hold", "ignore-pbs", "overcommit", "oversubscribe",
          "reboot", "spread-job", "use-min-nodes", "verbose")  # fmt: skip
_OURS = (
    "array",
    "chdir",
    "error",
    "kill-on-invalid-dep",
    "open-mode",
    "output",
    "parsable",
    "test-only",
    "wrap",
)
NAMES = (*OWN, *USUAL, *_VALUES, *_FLAGS)
NUMBERS = ("requeue", "signal-seconds", "array-parallelism")


@dataclass(frozen=True)
class SlurmOptions:
    """How jobs are submitted.

    Attributes:
        sbatch: options of sbatch without their dashes; an empty value is that of a switch.
        setup: lines of shell before the run.
        requeue: how often a job goes back into the queue, at most.
        signal_seconds: seconds before the time limit at which the run gets SIGUSR1.
        array_parallelism: jobs of an array at a time; 0: any number.
        wait: whether to stay until all have ended; None: as the command does.
    """

    sbatch: Mapping[str, str] = field(default_factory=dict)
    setup: tuple[str, ...] = ()
    requeue: int = 100
    signal_seconds: int = 120
    array_parallelism: int = 0
    wait: bool | None = None

    def __post_init__(self) -> None:
        check_numbers(self, under="slurm-")

    def with_tasks_per_gpu(self) -> SlurmOptions:
        """The same with one process a GPU, unless the number of processes is given.

        Example:
            >>> split_slurm(["--slurm-gpus-per-node=a100:4"])[0].with_tasks_per_gpu().sbatch
            {'gpus-per-node': 'a100:4', 'ntasks-per-node': '4'}
        """
        if {"ntasks", "ntasks-per-node", "ntasks-per-gpu", "gpus-per-task"} & self.sbatch.keys():
            return self
        gpus = self.sbatch.get("gpus-per-node", "")
        if not gpus and (found := re.search(r"\bgpu[^,]*", self.sbatch.get("gres", ""))):
            gpus = found[0]
        number = re.search(r"(?:^|:)(\d+)$", gpus)
        if not number or int(number[1]) < 2:
            return self
        return replace(self, sbatch={**self.sbatch, "ntasks-per-node": number[1]})

    def require_one_process(self, what: str) -> None:
        """Raise UsageError where several processes are asked for."""
        for key in ("nodes", "ntasks", "ntasks-per-node", "ntasks-per-gpu", "gpus-per-task"):
            if self.sbatch.get(key, "1") != "1":
                raise UsageError(f"--slurm-{key} {self.sbatch[key]}: {what} is one process on one machine")


def is_slurm(word: str) -> bool:
    """Whether a word of a command line is an option of SLURM.

    Example:
        >>> is_slurm("--slurm"), is_slurm("--slurm-time=60"), is_slurm("--lr")
        (True, True, False)
    """
    name = word.partition("=")[0].replace("_", "-")
    return name == "--slurm" or name.startswith("--slurm-")


def split_slurm(words: Sequence[str]) -> tuple[SlurmOptions | None, list[str]]:
    """The options of SLURM among the words of a command, and the other words.

    Returns:
        None in place of the options where there are none.

    Raises:
        UsageError: an option that sbatch has not, is not for users, or lacks its value, or one with
            control characters.

    Example:
        >>> options, others = split_slurm(["simsiam", "--slurm-time", "60", "--lr", "0.1"])
        >>> options.sbatch, others
        ({'time': '60'}, ['simsiam', '--lr', '0.1'])
    """
    others, given, setup, found = list[str](), dict[str, str](), list[str](), False
    waiting = iter(words)
    for word in waiting:
        if not is_slurm(word):
            others.append(word)
            continue
        found = True
        name, equals, value = word.partition("=")
        key = name.replace("_", "-").removeprefix("--slurm").removeprefix("-")
        if not key:
            if equals:
                shown = printable(value) or 60
                raise UsageError(f"--slurm takes no value: write --slurm-time={shown} for --time, and so on")
            continue
        _check_name(key)
        if _takes_value(key) and not equals:
            value = next(waiting, "")
        if _takes_value(key) and (not value or (not equals and value.startswith("--"))):
            raise UsageError(f"--slurm-{key} needs a value, as --slurm-{key}=VALUE")
        _check_value(key, value)
        if key == "setup":
            setup.append(value)
        else:
            given[key] = value
    return (_options(given, setup) if found else None), others


def _takes_value(key: str) -> bool:
    return key not in (*_FLAGS, "wait", "no-wait")


def _check_value(key: str, value: str) -> None:
    """Refuse what would end a line of the script, or reach a terminal as a command.

    Tabs within lines of shell are harmless.
    """
    text = value.replace("\t", " ") if key == "setup" else value
    if any(unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") for sign in text):
        raise UsageError(
            f"--slurm-{key} {printable(value)}: a value is one line without control characters"
            + ("; give --slurm-setup once a line" if key == "setup" else "")
        )


def _check_name(key: str) -> None:
    if key in _OURS:
        raise UsageError(f"--slurm-{key} is for fullrank to say: leave it out")
    if key not in NAMES:
        error = UnknownNameError("option", f"--slurm-{key}", [f"--slurm-{name}" for name in NAMES])
        raise UsageError(f"{error}: what follows --slurm- is an option of sbatch" if "mean" not in str(error)
                         else str(error))  # fmt: skip


def _options(given: dict[str, str], setup: Sequence[str]) -> SlurmOptions:
    numbers = {key: _number(key, given.pop(key)) for key in NUMBERS if key in given}
    wait = None
    for key in ("wait", "no-wait"):
        if key in given:
            if given.pop(key):
                raise UsageError(f"--slurm-{key} takes no value")
            wait = key == "wait"
    own = {key.replace("-", "_"): number for key, number in numbers.items()}
    return SlurmOptions(given, tuple(setup), wait=wait, **own)


def _number(key: str, value: str) -> int:
    if not value.isdecimal():
        raise UsageError(f"--slurm-{key} takes a whole number of at least 0, not {value}")
    return int(value)


def slurm_help(command: str) -> str:
    """The options of SLURM, in a page.

    Example:
        >>> slurm_help("train").splitlines()[0]
        'usage: fullrank train ... --slurm [--slurm-KEY VALUE ...]'
    """
    rows = [("", "submit this to SLURM; each option below implies it"),
            *((f"-{key}", text) for key, text in (USUAL | OWN).items())]  # fmt: skip
    lines = [f"  {'--slurm' + key:<28} {text}" for key, text in rows]
    return "\n".join(
        [
            f"usage: fullrank {command} ... --slurm [--slurm-KEY VALUE ...]",
            "",
            "Any other option of sbatch is --slurm-KEY=VALUE, as --slurm-qos=high --slurm-exclusive.",
            "A job is signalled before its time limit, checkpoints, and goes back into the queue. --dry-run",
            "prints the script that sbatch would get. `fullrank jobs` shows and cancels (docs/clusters.md).",
            "",
            *lines,
        ]
    )
