"""Fixed points of losses: values at which embeddings of a known state sit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

__all__ = [
    "CONSTANT",
    "FOUND",
    "IDENTICAL",
    "NEGATIVES",
    "UNIFORM_CODES",
    "UNRELATED",
    "FixedPoint",
    "Situation",
]

State = Literal[
    "constant",
    "agreeing",
    "unrelated",
    "decorrelated",
    "one channel repeated",
    "at zero",
    "uniform over codes",
    "all on one code",
    "a code for each image",
]
"""What embeddings are like."""
Sight = Literal["complete", "dimensional", "cluster", "uniform-assignment"]
"""A collapse in the words of a verdict."""


class Situation(NamedTuple):
    """What a fixed point's value depends on.

    Attributes:
        config: the method's options, with widths as numbers.
        n: images in a batch, over all devices.
        views: of an image.
    """

    config: Any
    n: int = 256
    views: int = 2


class FixedPoint(NamedTuple):
    """Value that a method's loss has on embeddings of a known state.

    Attributes:
        state: of the embeddings.
        formula: the value in symbols.
        value: the value; None where the options leave none.
        collapses: kinds of collapse that end here; none where collapse is impossible or elsewhere.
        meaning: one sentence: what the loss cannot tell, or what it rules out.
    """

    state: State
    formula: str
    value: Callable[[Situation], float | None]
    collapses: tuple[Sight, ...]
    meaning: str


CONSTANT = (
    "Views agree perfectly, which a constant output attains as well: the loss cannot tell. Look at the level "
    "and the rank."
)
IDENTICAL = "Views agree perfectly, and not all embeddings are alike, though they may be a few points."
UNRELATED = "Views have nothing in common, as at the start, or what the branches learn does not fit together."
UNIFORM_CODES = (
    "Every image is assigned to all codes alike, as at the start; where it stays there, codes tell nothing."
)
FOUND = "An image's other view is found among all others, which are orthogonal to it: no collapse, at this n."
NEGATIVES = (
    "An image's other view is found no better than by guessing: embeddings are constant, or views have "
    "nothing in common, as at the start."
)
