"""Likely causes of a collapse, who found them, and what to try first."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from fullrank.collapse.verdict import Kind


class Advice(NamedTuple):
    """One likely mechanism.

    Attributes:
        mechanism: what happens.
        paper: where it is shown, as an arXiv number.
        try_first: what to change.
    """

    mechanism: str
    paper: str
    try_first: str


def _read_advice() -> dict[Kind, tuple[Advice, ...]]:
    kinds = yaml.safe_load(Path(__file__).with_name("advice.yaml").read_text(encoding="utf-8"))
    return {kind: tuple(Advice(**fields) for fields in found) for kind, found in kinds.items()}


ADVICE = _read_advice()
"""Kind of verdict to its likely mechanisms, the likeliest first."""
