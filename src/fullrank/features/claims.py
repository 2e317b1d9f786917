"""Claim of a folder for the features of one command, which the first process lays."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fullrank.atomic import create_atomically
from fullrank.errors import UsageError
from fullrank.features.store import MANIFEST, read_manifest

LATER = ("fingerprint",)  # keys that folders from before lack


def claim(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Make the folder of these settings, of whichever process is first.

    Raises:
        UsageError: it is of others, or of other images.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: features go into a folder")
    manifest = json.loads(json.dumps(manifest))
    if read_manifest(folder) is None:
        others = folder.is_dir() and any(file.name[0] != "." for file in folder.iterdir())
        if others and read_manifest(folder) is None:  # and no other process was as quick
            raise UsageError(f"{folder} exists already and holds other files: take another --out")
        folder.mkdir(parents=True, exist_ok=True)
        create_atomically(folder / MANIFEST, json.dumps(manifest, indent=2).encode())
    known = read_manifest(folder) or {}
    compared = [key for key in {**known, **manifest} if key in known or key not in LATER]
    nothing = {file.name for file in folder.iterdir() if file.name[0] != "."} <= {MANIFEST}
    remedy = "take another --out" + f", or delete {folder}, which holds none yet" * nothing
    other = next((key for key in compared if known.get(key) != manifest.get(key)), None)
    if other in LATER:
        raise UsageError(
            f"{folder} holds the features of other images of {_short(known.get('data'))}: another process "
            f"opened others, or they have changed since; {remedy}"
        )
    if other is not None:
        raise UsageError(
            f"{folder} holds the features of another command ({other} {_short(known.get(other))}, not "
            f"{_short(manifest.get(other))}): {remedy}"
        )


def _short(value: Any) -> str:
    return str(value) if not isinstance(value, list) else ",".join(map(str, value))
