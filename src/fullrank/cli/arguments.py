"""tyro over dataclasses, with every mistake in one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import tyro

from fullrank.errors import UnknownNameError, UsageError

__all__ = ["parse"]

T = TypeVar("T")


def parse(kind: type[T], words: Sequence[str], prog: str, default: T | None = None) -> T:
    """Parses options into a dataclass; `--help` prints and exits with 0.

    Raises:
        UsageError: an unknown option or a value that does not fit, in one line, with the nearest real option.
    """
    errors = io.StringIO()
    extra: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(errors):
            parsed: T = tyro.cli(
                kind, args=list(words), prog=prog, config=(tyro.conf.AvoidSubcommands,), **extra
            )
            return parsed
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UsageError(_one_line(errors.getvalue(), prog)) from None


def _one_line(box: str, prog: str) -> str:
    """The first message of one of tyro's boxes in our words, and the option that it suggests."""
    rows = [row for line in box.splitlines() if (row := line.strip("│ ")) and not row.startswith(("╭", "╰"))]
    sections: list[list[str]] = [[]]
    for row in rows:
        if set(row) <= {"─", "-"}:
            sections.append([])
        else:
            sections[-1].append(row)
    # where standard output is not Unicode the box has no frame, and its title stands in a section of its own
    message = " ".join(sections[0] if "╭" in box else sections[1])
    for pattern, words in IN_OUR_WORDS:
        if found := re.fullmatch(pattern, message):
            message = words(*found.groups())
            break
    near = re.search(r"Perhaps you meant:\s+(--[\w.-]+)", " ".join(rows))
    return message + (f"; did you mean {near[1]}?" if near else "") + f" (see {prog} --help)"


def _unrecognised(words: str) -> str:
    first = words.split(", ")[0]
    return f"unknown option {first}" if first.startswith("-") else f"unexpected word {first!r}"


def _no_choice(value: str, option: str, known: str) -> str:
    return str(UnknownNameError(option, value, re.findall(r"'([^']*)'", known)))


IN_OUR_WORDS: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"Unrecognized options: (.+)", _unrecognised),
    (r"Error parsing (--\S+): invalid literal for int.*: (.+)", "{} takes a whole number, not {}".format),
    (r"Error parsing (--\S+): could not convert string to float: (.+)", "{} takes a number, not {}".format),
    (r"Error parsing (--\S+): Could not parse arguments \[(.*)\] into tuple.*", "{} does not take {}".format),
    (
        r"Error parsing (?:options|threshold): (.+)",
        "{}".format,
    ),  # a method's own validation, in its own words
    (r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*)\)\.", _no_choice),
    (r"Missing value for argument '(\S+)'\. Expected 1 values\.", "{} needs a value".format),
    (r"Missing value for argument '(\S+)'\. Expected (\d+) values\.", "{} needs {} values".format),
    (r"Missing from [^:]*: (\S+) (.*?)\.? \(required\)", "{} is missing: {}".format),
)
