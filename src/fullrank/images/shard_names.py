"""Files that an address of tar shards names: each once, however it is written."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from fullrank.errors import DataError, UsageError, first_line, printable
from fullrank.images.skipped import first_three
from fullrank.untrusted.paths import expand_user

MOST_NAMES = 1_000_000  # that braces expand to
_MARKS = re.compile(r"\\.|[{},]", re.DOTALL)
_NUMBERS = re.compile(r"(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?")
_LETTERS = re.compile(r"[A-Za-z]\.\.[A-Za-z](\.\.-?\d+)?", re.ASCII)


def count_names(pattern: str) -> int:
    """How many names the braces of a pattern expand to, none of which is made.

    A range of letters counts as all of them.

    Example:
        >>> count_names("part-{000..127}.tar"), count_names("{a,b{0..9..3}}{0..999999999}"), count_names("a")
        (128, 5000000000, 1)
    """
    braces = [_Brace(0)]
    for mark in _MARKS.finditer(pattern):
        if mark[0] == "{":
            braces.append(_Brace(mark.end()))
        elif mark[0] == "," and len(braces) > 1:
            braces[-1].next_part()
        elif mark[0] == "}" and len(braces) > 1:
            inner = braces.pop()
            braces[-1].product *= inner.count(pattern[inner.start : mark.start()])
    product = 1
    for brace in braces:  # those without an end are refused later, when others within are expanded
        product *= brace.count("")
    return product


class _Brace:
    """An open brace: names of its parts so far, and of the part that goes on."""

    def __init__(self, start: int) -> None:
        self.start, self.total, self.product, self.parts = start, 0, 1, 1

    def next_part(self) -> None:
        self.total, self.product, self.parts = self.total + self.product, 1, self.parts + 1

    def count(self, text: str) -> int:
        if self.parts == 1 and (numbers := _NUMBERS.fullmatch(text)):
            first, last, step = (int(number or 1) for number in numbers.groups())
            return abs(last - first) // (step or 1) + 1
        return 26 * 2 if self.parts == 1 and _LETTERS.fullmatch(text) else self.total + self.product


def expanded(address: str) -> list[Path]:
    """Files that patterns name, in order; `::` stands between patterns.

    Raises:
        UsageError: braces that do not fit or expand to too many names, an empty part, or a file that is named
            twice, be it in another spelling or through a link.
        DataError: a file is not there.
    """
    named, found = f"shards:{printable(address)}", list[Path]()
    for name in _without_braces(address, named):
        path = user_path(name)
        starred = re.search(r"[*?\[]", path.name) is not None and not is_there(path)
        found += sorted(path.parent.glob(path.name)) if starred else [path]
    missing = [printable(str(path)) for path in found if not is_there(path)]
    if missing:
        of = f"{len(missing):,} of {len(found):,} shards are" if len(found) > 1 else "the shard is"
        raise DataError(f"{of} not there: {first_three(missing)}")
    if not found:
        raise DataError(f"{named} names no file; a pattern is as folder/part-{{000..127}}.tar")
    for first, second, *_ in (same for same in _by_file(found) if len(same) > 1):
        other = "" if second == first else f", also as {printable(str(second))}"
        raise UsageError(
            f"{named} names {printable(str(first))} twice{other}, and each image is to come once an epoch"
        )
    return found


def user_path(name: str) -> Path:
    """A path whose `~` is a home; what no user has stays as it is."""
    try:
        return expand_user(name)
    except DataError:
        return Path(name)


def is_there(path: Path) -> bool:
    """Tell whether a file is there; one that no name of a file can name is not."""
    try:
        path.stat()
    except (OSError, ValueError):
        return False
    return True


def _without_braces(address: str, named: str) -> list[str]:
    from webdataset.shardlists import envsubst, expand_urls

    names: list[str] = []
    for part in address.split("::"):
        try:
            for _ in range(10):  # a variable may name another, as WebDataset has it
                part = envsubst(part)
            many = len(names) + count_names(part)
            names += expand_urls(part) if many <= MOST_NAMES else []
        except Exception as error:  # braces that do not fit, a variable that is not set
            raise UsageError(f"{named} cannot be expanded: {first_line(error)}") from error
        if many > MOST_NAMES:
            shown = f"{many:,}" if many < 10**15 else "more than 10^15"
            raise UsageError(f"{named} expands to {shown} names, and at most {MOST_NAMES:,} are taken")
        if not part.strip():
            raise UsageError(
                f"{named} has an empty part: `::` stands between two patterns, as in a.tar::b.tar"
            )
    return names


def in_folder(folder: Path) -> tuple[list[Path], list[str]]:
    """Shards of a folder and of the folders in it, each file once, and notes.

    Folders that lead back to this one or to one above it are not entered.

    Raises:
        DataError: there are none, or the folder cannot be listed.
    """
    back = {_identity(above) for above in (folder.resolve(), *folder.resolve().parents)}
    try:
        inside = [path for path in folder.iterdir() if path.is_dir() and _identity(path) not in back]
    except OSError as error:
        raise DataError(f"{folder} cannot be listed: {error.strerror}") from error
    found = sorted(path for each in (folder, *inside) for path in each.glob("*.tar"))
    if not found:
        raise DataError(f"{folder} holds no .tar files; expected shards as part-000.tar")
    groups = _by_file(found)
    links = {path for same in groups for path in _but_the_file(folder, same)}
    if not links:
        return found, []
    shown = first_three([printable(str(path)) for path in found if path in links])
    are = "other name of a shard is" if len(links) == 1 else "other names of shards are"
    return [path for path in found if path not in links], [f"{len(links):,} {are} passed over: {shown}"]


def _but_the_file(folder: Path, same: Sequence[Path]) -> list[Path]:
    """Names of one file, less the one without links on its way, or else the first."""
    if len(same) == 1:
        return []
    top = folder.resolve()
    own = next((path for path in same if path.resolve() == top / path.relative_to(folder)), same[0])
    return [path for path in same if path != own]


def _by_file(paths: Iterable[Path]) -> list[list[Path]]:
    """Paths in groups that lead to the same file."""
    groups: dict[object, list[Path]] = {}
    for path in paths:
        groups.setdefault(_identity(path), []).append(path)
    return list(groups.values())


def _identity(path: Path) -> object:
    """What two names of one file share: device and inode, else the real path."""
    try:
        status = path.stat()
    except OSError:
        return path.absolute()
    return (status.st_dev, status.st_ino) if status.st_ino else path.resolve()
