"""Folder of what is written about a subject, so that none overwrites another's."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from fullrank.errors import UsageError
from fullrank.untrusted.paths import expand_user


def identity(what: str | Path) -> str:
    """Name that tells subjects apart: the whole path of a file, or an encoder's name."""
    path = expand_user(what)
    return str(path.resolve()) if path.exists() else str(what)


def own_folder(home: Path, what: str | Path, holder: Callable[[Path], str], found: str) -> Path:
    """A folder below `home` of one subject, the same one every time.

    Args:
        home: where folders of subjects lie.
        what: a file, a folder or an encoder.
        holder: identity of the subject that a folder is of; empty without one.
        found: what the folders hold, in the plural, for a message.

    Returns:
        `home/NAME`, or where another subject has that name, `home/FOLDER-NAME`, `home/FOLDER-FILE.SUFFIX`, or
        a number behind it.
    """
    subject, path = identity(what), expand_user(what)
    path = path.resolve() if path.exists() else path
    name = path.stem if path.is_file() else path.name if path.exists() else str(what)
    parent = path.parent.name
    names = [name, f"{parent}-{name}", f"{parent}-{path.name}"] if path.exists() else [name]
    names += [f"{name}-{k}" for k in range(2, 1000)]
    there = {folder.name.casefold(): folder for folder in home.iterdir()} if home.is_dir() else {}
    for candidate in map(_plain, names):
        folder = there.get(candidate.casefold(), home / candidate)  # names that differ in case may be one
        if holder(folder) in ("", subject):
            return folder
    raise UsageError(f"{home} is full of {found} called {name}: take another folder with --out")


def named_folder(out: str | Path, what: str | Path, holder: Callable[[Path], str], found: str) -> Path:
    """The folder that was named with --out; UsageError where it is another subject's."""
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{out} is a file: take another --out")
    if (other := holder(folder)) not in ("", identity(what)):
        raise UsageError(f"{out} holds the {found} of {other}: take another --out, or remove that folder")
    return folder


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "subject"
