"""Options of commands by tyro, and their output on the terminal."""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import io
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypeVar, get_type_hints

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec

from fullrank.errors import UnknownNameError, UsageError
from fullrank.options import Names, OnProgress
from fullrank.progress import PlainProgress, ProgressLine, listening
from fullrank.ranges import Numbers, check_numbers
from fullrank.synonyms import meant
from fullrank.terminal import terminal

if TYPE_CHECKING:
    from rich.console import Console

T = TypeVar("T")
What: TypeAlias = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]

_RULES = ConstructorRegistry()


@_RULES.primitive_rule
def _listed(
    info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Any] | None:
    """Names and numbers with commas between are one word, which stays as it is."""
    if info.type not in (Names, Numbers):
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="STR",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str | tuple),
        str_from_instance=lambda value: [value if isinstance(value, str) else ",".join(map(str, value))],
    )


def parse(kind: type[T], words: Sequence[str], prog: str, default: T | None = None) -> T:
    """Parse options into a dataclass; `--help` prints and exits with 0.

    Raises:
        UsageError: an unknown option or a value that does not fit, in one line, with the nearest real option.
    """
    if "--data=" in words or ("--data", "") in itertools.pairwise(words):
        raise UsageError("--data is empty: a folder or a name of `fullrank list data` is taken")
    errors = io.StringIO()
    extra: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(errors), _RULES:
            parsed: T = tyro.cli(
                kind, args=list(words), prog=prog, config=(tyro.conf.AvoidSubcommands,), **extra
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        _refuse_dashes(words)
        raise UsageError(_one_line(errors.getvalue(), words, prog, _flags(kind))) from None
    check_numbers(parsed)
    return parsed


def _refuse_dashes(words: Sequence[str]) -> None:
    """Say how a file is named whose name begins as an option does."""
    for word in words:
        if word.startswith("-") and os.path.lexists(word):
            raise UsageError(f"{word} begins with a dash, as options do: name the file ./{word}")


def _flags(kind: type[Any], under: str = "") -> list[str]:
    """Names of a dataclass's options as they are typed, without the dashes before."""
    hints = get_type_hints(kind)
    return [
        flag
        for field in dataclasses.fields(kind)
        for flag in (
            _flags(hints[field.name], f"{under}{field.name}.")
            if dataclasses.is_dataclass(hints[field.name])
            else [f"{under}{field.name}".replace("_", "-")]
        )
    ]


def _one_line(box: str, given: Sequence[str], prog: str, flags: Sequence[str]) -> str:
    """The message in one of tyro's boxes, in one line."""
    rows = [row for line in box.splitlines() if (row := line.strip("│ ")) and not row.startswith(("╭", "╰"))]
    sections: list[list[str]] = [[]]
    for row in rows:
        if set(row) <= {"─", "-"}:
            sections.append([])
        else:
            sections[-1].append(row)
    # where standard output is not Unicode the box has no frame, and its title stands in a section of its own
    message = " ".join(sections[0] if "╭" in box else sections[1])
    if unknown := re.fullmatch(r"Unrecognized options: (.+)", message):
        message = _unrecognised(unknown[1].split(", "), flags)
    elif message.startswith("Missing") and (others := _unknown(given, flags)):
        message = _unrecognised(others, flags)  # behind which a word may seem to be missing
    message = re.sub(r"(\d,\d{3},) (?=\d{3}\b)", r"\1", message)  # a number that was broken over lines
    for pattern, words in IN_OUR_WORDS:
        if match := re.fullmatch(pattern, message):
            message = words(*match.groups())
            break
    return f"{message} (see {prog} --help)"


def _unknown(words: Sequence[str], flags: Sequence[str]) -> list[str]:
    """Words that look like options and are none."""
    known = {*flags, *(f"{start}no-{name}" for start, name in map(_split_flag, flags)), "help"}
    named = (word[2:].split("=")[0].replace("_", "-") for word in words if word.startswith("--"))
    return [f"--{name}" for name in named if name not in known]


def _split_flag(flag: str) -> tuple[str, str]:
    group, dot, name = flag.rpartition(".")
    return group + dot, name


def _unrecognised(words: Sequence[str], flags: Sequence[str]) -> str:
    """All unknown options, each with the one that was meant; else the first word."""
    named = [word.split("=")[0] for word in words]
    unknown = list(dict.fromkeys(name for name in named if re.match(r"--?[A-Za-z]", name)))
    if not unknown:
        return f"unexpected word {words[0]!r}"
    meant_by = {name: other for name in unknown if (other := _option_meant(name, flags))}
    if len(unknown) == 1:
        return f"unknown option {unknown[0]}" + "".join(
            f"; did you mean --{other}?" for other in meant_by.values()
        )
    each = [f"{name} (did you mean --{meant_by[name]}?)" if name in meant_by else name for name in unknown]
    return f"{len(unknown)} unknown options: {', '.join(each)}"


def _option_meant(name: str, flags: Sequence[str]) -> str:
    """The option that is meant by another name or by its letters; or empty."""
    near = difflib.get_close_matches(name.lstrip("-"), flags, 1, 0.7)
    return meant(name, flags) or "".join(near)


def _missing(first: str, text: str) -> str:
    """What is required and was not given; with its text where it is one thing."""
    others = re.findall(r"\(required\) (--[\w.-]+|[A-Z]+\b)", text)
    if others:
        return f"{', '.join([first, *others[:-1]])} and {others[-1]} are missing"
    about = re.sub(r"^[A-Z]+ (?=[a-z`])", "", text.removesuffix("(required)"))  # without a type's name
    return f"{first} is missing: {about.rstrip(' .')}"


def _no_choice(value: str, option: str, known: str) -> str:
    return str(UnknownNameError(option, value, re.findall(r"'([^']*)'", known)))


def _not_whole(option: str, value: str) -> str:
    return f"{option} takes a whole number, not {value if len(value) <= MOST_SHOWN else 'a longer text'}"


def _no_number(option: str, value: str) -> str:
    return f"{option} takes a number, not {value if len(value) <= MOST_SHOWN else 'a longer text'}"


MOST_SHOWN = 80  # characters of a value that is repeated in a message
IN_OUR_WORDS: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"Error parsing (--\S+|[A-Z]+): invalid literal for int.*: (.+)", _not_whole),
    (r"Error parsing (--\S+|[A-Z]+): could not convert string to float: ?(.+)", _no_number),
    (r"Error parsing (--\S+): Exceeds the limit .*", "{} takes a whole number of fewer digits".format),
    (r"Error parsing (--\S+): Could not parse arguments \[(.*)\] into tuple.*", "{} does not take {}".format),
    (r"Error parsing (?:options|threshold|[A-Z]\w+): (.+)", "{}".format),  # a dataclass's own validation
    (r"invalid choice '(.*)' for argument '(\S+)'\. Expected one of \((.*)\)\.", _no_choice),
    (r"Missing value for argument '(\w+)'\. Expected 1 values\.", lambda name: f"{name.upper()} is missing"),
    (r"Missing value for argument '(\S+)'\. Expected 1 values\.", "{} needs a value".format),
    (r"Missing value for argument '(\S+)'\. Expected (\d+) values\.", "{} needs {} values".format),
    (r"Missing from [^:]*: (\S+) (.*)", _missing),
)


@contextlib.contextmanager
def showing_progress(quiet: bool) -> Iterator[OnProgress | None]:
    """A line while long work lasts, in a pipe one now and then; None if quiet."""
    if quiet:
        yield None
        return
    line = ProgressLine(sys.stderr) if sys.stderr.isatty() else PlainProgress(sys.stderr)
    try:
        with listening(line):
            yield line
    finally:
        line.close()


def page_path(out: str, default: str) -> Path:
    """The page that --out names: an .html file, or a folder for its index.html.

    Raises:
        UsageError: a file that is no page.

    Example:
        >>> page_path("", "compare.html").name, page_path("pages/first", "compare.html").as_posix()
        ('compare.html', 'pages/first/index.html')
    """
    page = Path(out or default)
    if page.suffix == ".html" and not page.is_dir():
        return page
    if page.is_file() or (page.suffix and not page.is_dir()):
        raise UsageError(f"{out} does not end in .html: --out takes the page's file, or a folder")
    return page / "index.html"


def make_console(width: int) -> Console:
    """Standard output for tables; where it is no terminal, of a fixed width."""
    return terminal(highlight=False) if sys.stdout.isatty() else terminal(width=width, highlight=False)
