"""Labels in a column of a table: whole numbers, or words, in all of its files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from fullrank.coercion import shown
from fullrank.errors import DataError, printable
from fullrank.images.sources import Indices, Source

MOST_CLASSES = 10_000_000
"""Of which a classifier or a vote holds a number each; a larger label is no class."""


def column_labels(
    values: Sequence[Any], where: str, classes: Sequence[str] | None = None
) -> tuple[Indices | None, list[str] | None]:
    """Number the labels of a column: int64 [n], -1 for none, and the words, if any.

    Args:
        values: None where a row has none.
        where: the file and column, for the message.
        classes: words that have their numbers already; others get none.

    Raises:
        DataError: a label is no whole number and no word, or there are both.

    Example:
        >>> column_labels([3, None, 0.0], "here"), column_labels(["cat", None, "ant"], "here")
        ((array([ 3, -1,  0]), None), (array([ 1, -1,  0]), ['ant', 'cat']))
    """
    known = [value for value in values if value is not None]
    if not known:
        return None, None
    words = {value for value in known if isinstance(value, str)}
    if words:
        if others := [value for value in known if not isinstance(value, str)]:
            raise DataError(f"{where} holds words and {shown(others[0])}: labels are of one kind in a set")
        names = list(classes) if classes is not None else sorted(words)
        number: Mapping[Any, int] = {name: i for i, name in enumerate(names)}
        return np.array([number.get(value, -1) for value in values], np.int64), names
    return np.array(
        [-1 if value is None else _class_number(value, where) for value in values], np.int64
    ), None


def _class_number(value: Any, where: str) -> int:
    try:
        number = int(value)
        whole = bool(number == value)
    except (TypeError, ValueError, OverflowError):
        whole = False
    if not whole or not -1 <= number < MOST_CLASSES:
        raise DataError(
            f"{where} holds the label {shown(value)}: a label is a word, or the number of a class from 0 to "
            f"{MOST_CLASSES - 1:,}, and -1 where there is none"
        )
    return number


def require_class_numbers(*sources: Source | None) -> None:
    """Raise DataError for a label that no class has."""
    for source in sources:
        labels = None if source is None else source.labels
        if source is not None and labels is not None and len(labels):
            for end in (int(labels.min()), int(labels.max())):
                _class_number(end, printable(source.name))
