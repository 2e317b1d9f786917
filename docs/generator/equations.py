"""Equations as MathML, made when the site is built, so that it needs no script and no network."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

from latex2mathml.converter import convert

INLINE = re.compile(r"\$<code>([^<]+)</code>\$")


def fence(source: str, *_: Any, **__: Any) -> str:
    """A fenced block of `math`, one equation a paragraph."""
    equations = [" ".join(part.split()) for part in re.split(r"\n\s*\n", source.strip())]
    rows = "".join(convert(equation, display="block") for equation in equations)
    return f'<div class="equation" tabindex="0" role="group" aria-label="equation">{rows}</div>'


def inline(html: str) -> str:
    """HTML of a page whose equations within lines, as in GitLab's $`x`$, are MathML."""
    return INLINE.sub(lambda match: convert(unescape(match[1])), html)
