"""Agreement of the processes of a command on what each of them is to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError, printable

REMEDY = "start all processes with the same data and the same options"
OF_A_PROCESS = frozenset(
    {
        "what", "data", "labels", "test", "test_labels", "thresholds", "out", "json", "page", "figures",
        "fail_on", "against", "processes", "workers", "device", "batch_size", "max_bytes", "download",
    }
)  # fmt: skip
"""Options that processes may have of their own: places, whose content is compared, and what rank 0 does."""


def check_same(facts: Mapping[str, str], peers: Peers) -> None:
    """See that all processes say the same; each of them calls it.

    Args:
        facts: what this process does or has, by kind, as `reads 3 files`.
        peers: the processes.

    Raises:
        UsageError: one differs from the first, in all of them alike.

    Example:
        >>> check_same({"files": "reads 3 files"}, Peers(alone=True))
    """
    found = peers.tell(dict(facts))
    for rank, other in enumerate(found):
        apart = [key for key in {**found[0], **other} if other.get(key) != found[0].get(key)]
        if apart:
            one, two = (each.get(apart[0], f"has no {apart[0]}") for each in (found[0], other))
            raise UsageError(printable(f"rank {rank} {two}, rank 0 {one}: {REMEDY}"))


def check_same_options(command: str, options: Mapping[str, Any], peers: Peers) -> None:
    """See that all processes were started with the same options of the same command.

    Raises:
        UsageError: as `check_same`.

    Example:
        >>> check_same_options("audit", {"key": "z"}, Peers(alone=True))
    """
    if peers.size == 1:
        return
    compared = {name: value for name, value in options.items() if name not in OF_A_PROCESS}
    facts = {name: f"has --{name.replace('_', '-')} {_shown(value)}" for name, value in compared.items()}
    check_same({"command": f"was started for {command}", **facts}, peers)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return " ".join(map(str, value)) or "empty"
    return str(value) if value not in ("", None) else "empty"
