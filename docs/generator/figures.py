"""Interactive figures: their places in a page, and the data of real runs beside them."""

from __future__ import annotations

import re
from pathlib import Path

RUNS = Path(__file__).parents[1] / "collapse-runs"
PLACE = re.compile(r"^<!-- figure (\w+) (\w+) -->$", re.MULTILINE)


def inserted(markdown: str) -> str:
    """Markdown with a figure for each comment `<!-- figure NAME DATA -->`; the data go in once."""
    written: set[str] = set()

    def figure(match: re.Match[str]) -> str:
        name, source = match.groups()
        data = ""
        if source not in written:
            written.add(source)
            text = (RUNS / f"{source}.json").read_text(encoding="utf-8").strip().replace("<", "\\u003c")
            data = f'<script type="application/json" id="data-{source}">{text}</script>\n'
        place = f'<figure data-figure="{name}" data-from="{source}">'
        return f"{data}{place}<p>This figure needs JavaScript.</p></figure>"

    return PLACE.sub(figure, markdown)
