"""Folder of an audit: one a subject, so that none overwrites another's."""

from __future__ import annotations

from pathlib import Path

from fullrank.errors import DataError
from fullrank.features.folders import identity as identity  # offered here, too
from fullrank.features.folders import named_folder, own_folder
from fullrank.untrusted.parsing import read_json

DEFAULT = Path("audits")


def audit_folder(what: str, out: str = "") -> Path:
    """Folder for the audit of a subject; an earlier audit of it is replaced.

    Args:
        what: a file, a folder or an encoder.
        out: as the user named it; empty takes one below `audits`, see `own_folder`.

    Raises:
        UsageError: `out` is a file, or holds the audit of another subject.
    """
    if out:
        return named_folder(out, what, audited, "audit")
    return own_folder(DEFAULT, what, audited, "audits")


def audited(folder: Path) -> str:
    """Subject of the audit in a folder; empty without one."""
    try:
        return str(read_json(folder / "audit.json").get("subject") or "")
    except DataError:
        return ""
