"""Folder of an audit: one a subject, so that none overwrites another's."""

from __future__ import annotations

import re
from pathlib import Path

from fullrank.errors import DataError, UsageError
from fullrank.untrusted.parsing import read_json

DEFAULT = Path("audits")


def identity(what: str) -> str:
    """Name that tells subjects apart: the whole path of a file, or an encoder's name."""
    path = Path(what).expanduser()
    return str(path.resolve()) if path.exists() else what


def audit_folder(what: str, out: str = "") -> Path:
    """Folder for the audit of a subject; an earlier audit of it is replaced.

    Args:
        what: a file, a folder or an encoder.
        out: as the user named it; empty takes `audits/NAME`, or where another subject has that name,
            `audits/FOLDER-NAME`, `audits/FOLDER-FILE.SUFFIX`, or a number behind it.

    Raises:
        UsageError: `out` is a file, or holds the audit of another subject.
    """
    subject = identity(what)
    if out:
        folder = Path(out)
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"{out} is a file: take another --out")
        if (other := audited(folder)) not in ("", subject):
            raise UsageError(f"{out} holds the audit of {other}: take another --out, or remove that folder")
        return folder
    path = Path(what).expanduser()
    path = path.resolve() if path.exists() else path
    name, parent = path.stem if path.is_file() else path.name if path.exists() else what, path.parent.name
    names = [name, f"{parent}-{name}", f"{parent}-{path.name}"] if path.exists() else [name]
    names += [f"{name}-{k}" for k in range(2, 1000)]
    there = {folder.name.casefold(): folder for folder in DEFAULT.iterdir()} if DEFAULT.is_dir() else {}
    for candidate in map(_plain, names):
        folder = there.get(candidate.casefold(), DEFAULT / candidate)  # names that differ in case may be one
        if audited(folder) in ("", subject):
            return folder
    raise UsageError(f"{DEFAULT} is full of audits called {name}: take another folder with --out")


def audited(folder: Path) -> str:
    """Subject of the audit in a folder; empty without one."""
    try:
        return str(read_json(folder / "audit.json").get("subject") or "")
    except DataError:
        return ""


def _plain(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "audit"
