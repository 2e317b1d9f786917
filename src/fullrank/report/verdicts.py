"""Words beside a verdict: its probability, its border, and blemishes of the rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from fullrank.collapse.blemishes import of_living
from fullrank.collapse.treatments import Advice
from fullrank.collapse.verdict import Verdict

NEAR_BORDER = "near the border"
DOUBTFUL = 0.1  # probability of a collapse from which a healthy verdict says it


class Remark(NamedTuple):
    """One blemish of the rows, in sentences.

    Attributes:
        name: in a word or two.
        says: what is odd, with its numbers.
        advice: what to do about it.
    """

    name: str
    says: str
    advice: str

    def __str__(self) -> str:
        return f"{self.says} {self.advice}"


def probable(probability: float) -> str:
    """A probability as a whole per cent, never as certain.

    Example:
        >>> probable(0.412), probable(0.9999), probable(0.0)
        ('41 %', 'over 99 %', 'under 1 %')
    """
    if probability < 0.01:
        return "under 1 %"
    return "over 99 %" if probability > 0.99 else f"{100 * probability:.0f} %"


def certainty(verdict: Verdict) -> str:
    """The probability of a collapse in words; empty where nothing could be decided.

    Example:
        >>> certainty(Verdict("healthy", "projector", "", probability=0.4))
        'probability of a collapse 40 %, near the border'
    """
    if verdict.probability is None:
        return ""
    return f"probability of a collapse {probable(verdict.probability)}" + (
        f", {NEAR_BORDER}" if verdict.near_border else ""
    )


def doubt(verdict: Verdict) -> str:
    """How near a verdict is to its border; a healthy one from 10 % on.

    Example:
        >>> doubt(Verdict("healthy", "projector", "", probability=0.31))
        ', probability of a collapse 31 %, near the border'
        >>> doubt(Verdict("healthy", "projector", "", probability=0.02))
        ''
    """
    doubtful = verdict.kind == "healthy" and (verdict.probability or 0.0) >= DOUBTFUL
    return f", {certainty(verdict)}" if doubtful else f", {NEAR_BORDER}" if verdict.near_border else ""


def beside_kind(verdict: Verdict) -> str:
    """What a headline has beside the kind: living columns, and the probability.

    Example:
        >>> from fullrank.collapse.blemishes import Blemish
        >>> dead = Blemish("dead dimensions", 108, 128, "", "")
        >>> beside_kind(Verdict("healthy", "projector", "", probability=0.4, blemishes=(dead,)))
        'of 20 living of 128 columns, probability of a collapse 40 %, near the border'
    """
    if verdict.kind == "not decidable":  # of however many columns
        return ""
    return ", ".join(filter(None, [of_living(verdict.blemishes), certainty(verdict)]))


def in_short(verdict: Verdict) -> str:
    """Kind for a cell of a table, with border and blemishes.

    Example:
        >>> from fullrank.collapse.blemishes import Blemish
        >>> in_short(Verdict("healthy", "projector", "", probability=0.4))
        'healthy, near the border'
        >>> in_short(Verdict("healthy", "projector", "", blemishes=(Blemish("copies", 5, 9, "", ""),)))
        'healthy; copies'
    """
    kind = f"{verdict.kind}, {NEAR_BORDER}" if verdict.near_border else verdict.kind
    return "; ".join([kind, *([names] if (names := blemish_names(verdict)) else [])])


def blemish_names(verdict: Verdict) -> str:
    """Names of the blemishes, with commas between."""
    return ", ".join(blemish.name for blemish in verdict.blemishes)


def remarks(verdict: Verdict) -> list[Remark]:
    """Every blemish in sentences.

    Example:
        >>> from fullrank.collapse.blemishes import Blemish
        >>> odd = Blemish("copies", 5, 9, "5 of 9 rows are copies", "look for repeated images")
        >>> str(remarks(Verdict("healthy", "projector", "", blemishes=(odd,)))[0])
        '5 of 9 rows are copies. Look for repeated images.'
    """
    return [Remark(odd.name, as_sentence(odd.says), as_sentence(odd.advice)) for odd in verdict.blemishes]


def advice_sentences(found: Iterable[Advice]) -> list[Advice]:
    """Advice with its mechanism as a sentence."""
    return [item._replace(mechanism=as_sentence(item.mechanism)) for item in found]


def as_sentence(text: str) -> str:
    """Write a clause as a sentence; a lone symbol at its beginning stays small.

    Example:
        >>> as_sentence("rank is low"), as_sentence("n = 20 rows."), as_sentence("a rank is low")
        ('Rank is low.', 'n = 20 rows.', 'A rank is low.')
    """
    symbol = text[1:2] == " " and text[:1] != "a"
    first = text[:1] if symbol else text[:1].upper()
    return first + text[1:] + ("" if text.endswith(".") or not text else ".")
