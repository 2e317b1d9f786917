"""Docstrings as the reference needs them: a doctest under `Example:` is code, not text."""

from __future__ import annotations

import re
from typing import Any

import griffe

HEAD = re.compile(r"^( *)Example:[ ]*$", re.MULTILINE)


class Doctests(griffe.Extension):  # type: ignore[misc]
    """Call every `Example:` of a docstring `Examples:`, which griffe takes for code."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Rewrite the docstring of one object."""
        if obj.docstring is not None:
            obj.docstring.value = HEAD.sub(r"\1Examples:", obj.docstring.value)
