"""Errors and exit codes: a message says what is wrong and what is right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FullrankError(Exception):
    """Something failed that is not the user's input. Exit code 1."""

    exit_code = 1


class UsageError(FullrankError, ValueError):
    """The input cannot be used: one clear line, exit code 2."""

    exit_code = 2


class DataError(UsageError):
    """A data set is missing, empty, corrupt or not reachable. Exit code 2."""


class UnknownNameError(UsageError):
    """A name that is not registered; the message offers the nearest real one.

    Example:
        >>> raise UnknownNameError("stem", "cifr", ["cifar", "auto"])
        Traceback (most recent call last):
            ...
        fullrank.errors.UnknownNameError: unknown stem 'cifr'; did you mean 'cifar'? (known: auto, cifar)
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = difflib.get_close_matches(name, self.known, n=1, cutoff=0.5)
        message = f"unknown {kind} {name!r}"
        if near:
            message += f"; did you mean {near[0]!r}?"
        if len(self.known) <= 24:
            message += f" (known: {', '.join(self.known)})"
        super().__init__(message + (f"{'' if message.endswith('?') else ';'} {hint}" if hint else ""))


class CollapseDetected(FullrankError):
    """Training stopped on collapse, as the user asked. Exit code 3."""

    exit_code = 3
