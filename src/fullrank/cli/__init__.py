"""The command line: one file per command, each thin: parse, call, print.

Exit codes: 0 done, 1 failed, 2 bad usage, 3 collapsed where the user asked to be told.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, suppress
from pathlib import Path

from fullrank import __version__
from fullrank.cli.early import refuse_early
from fullrank.cli.quick import stand_ins
from fullrank.errors import (
    EXTRAS,
    PAGE_PACKAGES,
    FullrankError,
    UnknownNameError,
    UsageError,
    missing_package,
    require_packages,
)
from fullrank.jobs.slurm_options import is_slurm
from fullrank.launchers import UNNAMED, check_ranks, leave_launcher
from fullrank.terminal import say, speaks
from fullrank.training.signals import StoppedError, ended_by_signals

__all__ = ["main"]

COMMANDS = {
    "demo": "watch a healthy run and collapsing ones being told apart, on images that come along",
    "train": "train a method on your images, and watch for collapse",
    "resume": "continue a run exactly where it stopped",
    "adapt": "go on pretraining an encoder on your images, and keep it only where it is better",
    "audit": "judge embeddings or an encoder: has it collapsed, how, and how does one know",
    "cure": "which change of settings keeps a collapsed run from collapsing, tried on it",
    "embed": "write the features of images, of any tap of a run or a model",
    "evaluate": "quality of a representation: linear probe, k-NN, clustering, fine-tuning",
    "sweep": "train a grid of settings, here or on a cluster, and compare them",
    "compare": "several runs and models in one table and on one page",
    "pick": "which checkpoint, run or encoder serves best, without labels, and how sure that is",
    "explain": "what the value of a loss means: which fixed point, which collapse",
    "export": "hand an encoder on: timm, torchvision, plain PyTorch, ONNX",
    "lab": "a paper's experiment from fresh runs, and its figures",
    "watch": "a run's page in the browser, which grows with it",
    "report": "write a run's page anew",
    "jobs": "what runs and waits on a SLURM cluster, and how to end it",
    "list": "what there is: methods, data, views, backbones, recipes, labs, metrics",
}

CONTINUES = "the same command goes on with what is there, or begins where nothing is"
GOING_ON = dict.fromkeys(("adapt", "cure", "embed", "lab", "sweep"), CONTINUES) | {
    "demo": "what this one trained is lost, and the next demo begins anew",
    "pick": "the same command begins anew",
}
"""What is said where a command was ended by a signal, of those that are more than one run."""

ALIKE = 10.0  # seconds in which torchrun ends a process beside one that failed
ASKS_FOR_HELP = {"-h", "--help", "--help-all"}
SHARED = ("train", "resume", "embed", "audit", "evaluate")
"""Commands that the processes of a launcher share; any other is for the first of them alone."""

HELP = """\
usage: fullrank COMMAND [OPTIONS]

Train self-supervised encoders without negatives, and see collapse coming: which kind, and the evidence.

commands:
{commands}

`fullrank COMMAND --help` tells a command's options, with an example.
`fullrank --print-completion bash` (or zsh, fish) prints what makes a shell complete them.
Exit codes: 0 done, 1 failed, 2 bad usage, 3 collapsed (with --on-collapse stop, or --fail-on)."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        argv: the words after `fullrank`; None takes them from the process.

    Example:
        >>> main(["--version"])
        fullrank 0.1.0
        0
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _open_closed_streams()
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # of sockets a line of our own says it all
    # Lightning's hint wherever srun is installed; what starts several processes is told in the docs
    warnings.filterwarnings("ignore", "The `srun` command is available")
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<8} {about}" for name, about in COMMANDS.items())))
        return 0
    if words[0] == "--version":
        print(f"fullrank {__version__}")
        return 0
    try:
        return _run(words[0], words[1:])
    except (FullrankError, ModuleNotFoundError) as error:
        return _say_failed(error)
    except KeyboardInterrupt as error:
        return _say_stopped(words[0], getattr(error, "received", signal.SIGINT))
    except MemoryError as error:
        said = str(error).splitlines()[0] if str(error) else "more was asked for than there is"
        say(f"fullrank: out of memory ({said}): take smaller images, fewer or a smaller batch", sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written to
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        say(f"fullrank: {' '.join(what.split())}", sys.stderr)
        return 1


def _say_failed(error: FullrankError | ModuleNotFoundError) -> int:
    """Say why a command failed, if no other process does; return its exit code."""
    cause = error.__cause__ if isinstance(error, FullrankError) else error
    missing = ((isinstance(cause, ModuleNotFoundError) and cause.name) or "").partition(".")[0]
    extra = any(missing in packages for packages in EXTRAS.values())
    if not extra and not isinstance(error, FullrankError):
        raise error
    code = UsageError.exit_code if extra else getattr(error, "exit_code", 1)
    if getattr(error, "said_elsewhere", False):
        return code
    _wait_for_the_first(error)
    if speaks() or not isinstance(error, StoppedError):  # which all processes of a run say alike
        line = missing_package(missing) if extra else str(error)
        say(f"fullrank: {' '.join(line.split())}", sys.stderr)
    return code


def _takes_part(name: str, words: Sequence[str]) -> bool:
    """Whether this process has a part in a command, of those that were launched."""
    asks = bool(ASKS_FOR_HELP & set(words))
    if name in SHARED and not asks and not any(map(is_slurm, words)):
        return True
    first, others = speaks(), None
    with suppress(UsageError):  # of variables that are no launcher's: what trains says so
        others = leave_launcher()
    if others is None:
        return True
    if name in COMMANDS and not asks and (first or others.launcher == UNNAMED):
        does = f"by one process: the others that {others.launcher} has started are not needed"
        left = f"by rank 0, and RANK is {others.rank} in the environment: unset it to do it here"
        say(f"note    {name} is done {does if first else left}", sys.stderr)
    return first


def _wait_for_the_first(error: BaseException) -> None:
    """Leave the first time to say what all say alike: torchrun then ends this one."""
    if isinstance(error, UsageError) and not speaks():
        time.sleep(ALIKE)


def _say_stopped(name: str, received: signal.Signals) -> int:
    """Say how a command goes on that a signal has ended; return its exit code."""
    if speaks():
        going_on = GOING_ON.get(name, "a run continues with `fullrank resume RUN`")
        say(f"fullrank: stopped by {received.name}; {going_on}", sys.stderr)
    return 128 + int(received)


def _open_closed_streams() -> None:
    """Print to nowhere where who called has closed the output."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115


def _run(name: str, words: Sequence[str]) -> int:
    if not _takes_part(name, words):
        return 0
    if name.partition("=")[0] == "--print-completion":
        return _print_completion([word for word in (name.partition("=")[2], *words) if word])
    if name not in COMMANDS:
        raise UnknownNameError("command", name, COMMANDS)
    plans = ("adapt", "cure", "demo", "lab", "sweep", "train")
    if name in plans and not ASKS_FOR_HELP & set(words):
        require_packages(*PAGE_PACKAGES)  # rather than after hours of training
    if not ASKS_FOR_HELP & set(words):
        check_ranks()
        refuse_early(name, words)
    if _is_quick(name, words):
        with suppress(Exception), stand_ins():  # what fails without the packages is done with them
            return _call(name, words)
    return _call(name, words)


def _print_completion(words: Sequence[str]) -> int:
    from fullrank.cli.completion import SHELLS, print_completion

    if len(words) != 1:
        raise UsageError(f"--print-completion takes one shell: {', '.join(SHELLS)}")
    with stand_ins() if "torch" not in sys.modules else nullcontext():
        print_completion(words[0], COMMANDS)
    return 0


def _is_quick(name: str, words: Sequence[str]) -> bool:
    """Whether a command only shows declarations, and nobody has imported torch."""
    opens_data = any(word.split("=")[0] == "--data" for word in words)  # whose size decides the defaults
    shows = name == "list" or (bool(ASKS_FOR_HELP & set(words)) and not opens_data)
    return (shows or (name in ("train", "lab") and not words)) and "torch" not in sys.modules


def _call(name: str, words: Sequence[str]) -> int:
    if any(map(is_slurm, words)):
        from fullrank.cli import slurm

        if name in slurm.SINGLE:
            return slurm.run(name, words)
    # a submodule named `list` would shadow the builtin in this package
    with ended_by_signals() if name in GOING_ON else nullcontext():
        command = importlib.import_module(f"fullrank.cli.{'listing' if name == 'list' else name}")
        return int(command.run(words))
