"""The command line: one file per command, each thin: parse, call, print.

Exit codes: 0 done, 1 failed, 2 bad usage, 3 collapsed where the user asked to be told.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from contextlib import suppress

from fullrank import __version__
from fullrank.cli.quick import stand_ins
from fullrank.errors import (
    EXTRAS,
    PAGE_PACKAGES,
    FullrankError,
    UnknownNameError,
    UsageError,
    missing_package,
    printable,
    require_packages,
)

__all__ = ["main"]

COMMANDS = {
    "demo": "watch a healthy run and collapsing ones being told apart, on images that come along",
    "train": "train a method on your images, and watch for collapse",
    "resume": "continue a run exactly where it stopped",
    "audit": "judge embeddings or an encoder: has it collapsed, how, and how does one know",
    "embed": "write the features of images, of any tap of a run or a model",
    "evaluate": "quality of a representation: linear probe, k-NN, clustering, fine-tuning",
    "sweep": "train a grid of settings, here or on a cluster, and compare them",
    "compare": "several runs and models in one table and on one page",
    "explain": "what the value of a loss means: which fixed point, which collapse",
    "export": "hand an encoder on: timm, torchvision, plain PyTorch, ONNX",
    "lab": "a paper's experiment from fresh runs, and its figures",
    "report": "write a run's page anew",
    "list": "what there is: methods, data, views, backbones, recipes, labs, metrics",
}

HELP = """\
usage: fullrank COMMAND [OPTIONS]

Train self-supervised encoders without negatives, and see collapse coming: which kind, and the evidence.

commands:
{commands}

`fullrank COMMAND --help` tells a command's options, with an example.
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
    if not words or words[0] in ("-h", "--help", "help"):
        print(HELP.format(commands="\n".join(f"  {name:<8} {about}" for name, about in COMMANDS.items())))
        return 0
    if words[0] == "--version":
        print(f"fullrank {__version__}")
        return 0
    try:
        return _run(words[0], words[1:])
    except (FullrankError, ModuleNotFoundError) as error:
        cause = error.__cause__ if isinstance(error, FullrankError) else error
        missing = ((isinstance(cause, ModuleNotFoundError) and cause.name) or "").partition(".")[0]
        extra = any(missing in packages for packages in EXTRAS.values())
        if not extra and not isinstance(error, FullrankError):
            raise
        line = missing_package(missing) if extra else str(error)
        print(f"fullrank: {printable(' '.join(line.split()))}", file=sys.stderr)
        return UsageError.exit_code if extra else getattr(error, "exit_code", 1)
    except KeyboardInterrupt:
        print("fullrank: interrupted; a run continues with `fullrank resume RUN`", file=sys.stderr)
        return 130
    except MemoryError as error:
        said = str(error).splitlines()[0] if str(error) else "more was asked for than there is"
        print(
            f"fullrank: out of memory ({said}): take smaller images, fewer or a smaller batch",
            file=sys.stderr,
        )
        return 1
    except BrokenPipeError:  # the reader of our output has seen enough
        sys.stderr.close()
        return 0
    except OSError as error:  # a full disk, a folder that may not be written to
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"fullrank: {printable(' '.join(what.split()))}", file=sys.stderr)
        return 1


def _run(name: str, words: Sequence[str]) -> int:
    if name not in COMMANDS:
        raise UnknownNameError("command", name, COMMANDS)
    if name in ("demo", "lab", "sweep", "train") and not {"-h", "--help", "--help-all"} & set(words):
        require_packages(*PAGE_PACKAGES)  # rather than after hours of training
    if _is_quick(name, words):
        with suppress(Exception), stand_ins():  # what fails without the packages is done with them
            return _call(name, words)
    return _call(name, words)


def _is_quick(name: str, words: Sequence[str]) -> bool:
    """Whether a command only shows declarations, and nobody has imported torch."""
    opens_data = any(word.split("=")[0] == "--data" for word in words)  # whose size decides the defaults
    shows = name == "list" or (bool({"-h", "--help", "--help-all"} & set(words)) and not opens_data)
    return (shows or (name in ("train", "lab") and not words)) and "torch" not in sys.modules


def _call(name: str, words: Sequence[str]) -> int:
    # a submodule named `list` would shadow the builtin in this package
    command = importlib.import_module(f"fullrank.cli.{'listing' if name == 'list' else name}")
    return int(command.run(words))
