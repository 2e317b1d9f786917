"""Files and images that are not read: a line each reason, and `skipped.txt`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

LIST = "skipped.txt"


def left_out(skipped: Mapping[str, str]) -> list[str]:
    """A line for each reason why files are left out, naming the first three.

    Example:
        >>> left_out({f"{i}.nef": "raw files" for i in range(5)})
        ['5 files are left out (raw files): 0.nef, 1.nef, 2.nef, ...']
    """
    by_reason: dict[str, list[str]] = {}
    for where, why in skipped.items():
        by_reason.setdefault(why, []).append(where)
    return [
        f"{len(files):,} file{'s are' if len(files) > 1 else ' is'} left out ({why}): {first_three(files)}"
        for why, files in by_reason.items()
    ]


def said_before(skipped: Mapping[str, str], run: Path) -> list[str]:
    """What to say of files that are left out, where a run has named them already.

    Example:
        >>> said_before({"a.nef": "raw files"}, Path("runs/first"))
        ['1 file is left out, as when runs/first was trained: runs/first/skipped.txt']
    """
    if not skipped:
        return []
    are = "file is" if len(skipped) == 1 else "files are"
    return [f"{len(skipped):,} {are} left out, as when {run} was trained: {run / LIST}"]


def first_three(names: Sequence[str]) -> str:
    """The first three of some names, and whether there are more.

    Example:
        >>> first_three(["a", "b"]), first_three(["a", "b", "c", "d"])
        ('a, b', 'a, b, c, ...')
    """
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def read_skipped(folder: Path) -> dict[str, str]:
    """Files that were not read, and why, as the `skipped.txt` of a folder lists them."""
    path = folder / LIST
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {where: why for where, _, why in (line.partition("\t") for line in lines)}


def add_skipped(folder: Path, files: Mapping[str, str]) -> None:
    """Append to a folder's `skipped.txt` what it does not list yet.

    So a run that is resumed lists a file once, and what it met before stays.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     for files in ({"a.jpg": "empty"}, {"a.jpg": "empty", "b.nef": "raw"}):
        ...         add_skipped(Path(name), files)
        ...     read_skipped(Path(name))
        {'a.jpg': 'empty', 'b.nef': 'raw'}
    """
    known = read_skipped(folder)
    lines = [f"{where}\t{why}\n" for where, why in files.items() if where not in known]
    if lines:
        with (folder / LIST).open("a", encoding="utf-8") as file:
            file.write("".join(lines))
