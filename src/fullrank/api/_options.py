"""Options as a dataclass, with single ones by name; files that are written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from fullrank.coercion import as_name, shown
from fullrank.errors import UsageError
from fullrank.options import Options

Chosen = TypeVar("Chosen", bound=Options)


def chosen_options(kind: type[Chosen], options: Chosen | None, changes: Mapping[str, Any]) -> Chosen:
    """The options with changes, where they are of their kind."""
    if options is not None and not isinstance(options, kind):
        raise UsageError(f"options are {kind.__name__}, or single ones by name, not {shown(options)}")
    return (options or kind()).changed(**changes)


def page_file(out: Path | str, example: str) -> Path:
    """The file that a page is written to; nothing but a page is ever overwritten.

    Raises:
        UsageError: it is a folder, or no file of HTML by its name.
    """
    page = Path(as_name(out, "out is the page's file"))
    if page.is_dir():
        raise UsageError(f"{page} is a folder: --out takes the page's file, as in {page / example}")
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page} does not end in .html: --out takes the page's file, as in {example}")
    return page
