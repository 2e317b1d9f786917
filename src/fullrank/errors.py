"""Errors and exit codes: a message says what is wrong and what is right."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from importlib.util import find_spec

from fullrank.synonyms import meant

# the packages that a bare installation lacks, by the extra that brings them
EXTRAS = {
    "train": (
        "lightning_fabric", "PIL", "scipy", "sklearn", "threadpoolctl", "timm", "torchmetrics", "torchvision",
    ),
    "report": ("jinja2", "matplotlib"),
    "cli": ("rich", "tyro"),
    "hub": ("datasets", "fsspec", "huggingface_hub", "pyarrow"),
    "shards": ("webdataset",),
    "litdata": ("litdata",),
}  # fmt: skip

PAGE_PACKAGES = ("jinja2",)
PIP_NAMES = {"PIL": "Pillow", "lightning_fabric": "lightning-fabric", "sklearn": "scikit-learn"}


class FullrankError(Exception):
    """Something failed that is not the user's input. Exit code 1.

    Attributes:
        said_elsewhere: whether another process of the run prints the same, so that a command need not.
    """

    exit_code = 1
    said_elsewhere = False


class NotFiniteError(FullrankError):
    """A number of a training became NaN or infinite. Exit code 1."""


class UsageError(FullrankError, ValueError):
    """The input cannot be used: one clear line, exit code 2."""

    exit_code = 2


class BadRowsError(UsageError):
    """Rows of an embedding are not finite, or too large to be measured. Exit code 2."""


class BusyError(UsageError):
    """Another process writes where this one is to write. Exit code 2."""


class UnwritableError(UsageError):
    """A folder cannot be written: a full disk, no permission, or a file in its way."""


class DiskFullError(FullrankError):
    """The disk became full amid the work, which can go on later. Exit code 1."""


class LostFolderError(FullrankError):
    """A folder was removed, moved or replaced while it was written. Exit code 1."""


class DataError(UsageError):
    """A data set is missing, empty, corrupt or not reachable. Exit code 2."""


class ImageError(DataError):
    """An image that cannot be decoded: where it is, and why."""

    def __init__(self, where: str, why: str) -> None:
        self.why = why
        super().__init__(f"{where} cannot be decoded: {why}")


LISTED = {
    "backbone": "`fullrank list backbones` names all of them",
    "method or recipe": "`fullrank list methods` and `fullrank list recipes` name all of them",
    "metric": "`fullrank list metrics` names all of them",
    "recipe": "`fullrank list recipes` names all of them",
    "timm model": "`fullrank list backbones` names all of them",
    "views preset": "`fullrank list views` names all of them",
}
"""Where names are listed that are too many for a message, by their kind."""


LIKE = 0.6  # of two names' letters, in order, from which one may be meant by the other


class UnknownNameError(UsageError):
    """A name that is not registered; the message offers the nearest, or the list.

    Example:
        >>> raise UnknownNameError("stem", "cifr", ["cifar", "auto"])
        Traceback (most recent call last):
            ...
        fullrank.errors.UnknownNameError: unknown stem 'cifr'; did you mean 'cifar'? (known: auto, cifar)
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        other = [found] if (found := meant(name, self.known)) else []
        near = other or difflib.get_close_matches(name, self.known, n=1, cutoff=LIKE)
        message = f"unknown {kind} {name!r}"
        if near:
            message += f"; did you mean {near[0]!r}?"
        if 0 < len(self.known) <= 24:
            message += f" (known: {', '.join(self.known)})"
        elif not near and not hint:
            hint = LISTED.get(kind, "")
        super().__init__(message + (f"{'' if message.endswith('?') else ';'} {hint}" if hint else ""))


def printable(text: str) -> str:
    r"""Text with its control characters escaped, as names of files may have them.

    Example:
        >>> printable("a\x1b[31m\n.jpg")
        'a\\x1b[31m\\n.jpg'
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def first_line(error: BaseException, most: int = 200) -> str:
    """The first line of another library's error, or its type.

    Example:
        >>> first_line(ValueError("no such option\\nmore")), first_line(KeyError())
        ('no such option', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0][:most]


def missing_package(module: str) -> str:
    """Say which extra brings a package that is not installed, by the name pip knows."""
    extra = next(extra for extra, modules in EXTRAS.items() if module in modules)
    known = f"{PIP_NAMES[module]} ({module})" if module in PIP_NAMES else module
    return f"this needs {known}: pip install 'fullrank[{extra}]'"


def require_packages(*modules: str) -> None:
    """Raise UsageError for the first package of an extra that is not installed."""
    for module in modules:
        if find_spec(module) is None:
            raise UsageError(missing_package(module))
