"""tyro over dataclasses, with every mistake in one line."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import tyro

from fullrank.errors import UsageError

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
    """The first message of one of tyro's boxes, and the option that it suggests."""
    rows = [line.strip("│ ") for line in box.splitlines() if line.startswith("│")]
    rules = [i for i, row in enumerate(rows) if row.startswith("──")] or [len(rows)]
    message = " ".join(rows[: rules[0]])
    near = re.search(r"Perhaps you meant:\s+(--[\w.-]+)", " ".join(rows))
    return message + (f"; did you mean {near[1]}?" if near else "") + f" (see {prog} --help)"
