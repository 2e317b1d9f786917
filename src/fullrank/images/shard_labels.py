"""Labels of images in tar shards: from a `cls` or `json` member, and as numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from fullrank.errors import DataError, printable
from fullrank.untrusted.parsing import parse_json

LABEL_KEYS = ("cls", "label", "class", "target", "fine_label", "labels")  # of a sample's json
MOST_LABEL_BYTES = 1 << 20  # of a `cls` or `json` member
LARGEST_LABEL = (1 << 31) - 1
_WHOLE = re.compile(r"([+-]?)0*(\d+)", re.ASCII)  # int() would take 1_0 for 10
_SHOWN = 40  # characters of a label that cannot be used

Label = int | str | None


class UnusableLabelError(DataError):
    """A label that is neither a class number nor a word."""


def label_in(suffix: str, content: bytes) -> Label:
    """The label in a `cls` or `json` member; None where a json has none.

    Raises:
        UnusableLabelError: it is there and cannot be used; the message is its beginning.

    Example:
        >>> label_in("cls", b" 7\\n"), label_in("cls", b"1_0"), label_in("json", b'{"label": 1.0}')
        (7, '1_0', 1)
    """
    text = content.decode("utf-8", "replace").strip()
    if suffix == "cls":
        return _as_label(text)
    try:
        values = parse_json(text, "it")
    except DataError:
        raise _unusable(text) from None
    if not isinstance(values, dict):
        raise _unusable(text)
    found = next((values[key] for key in LABEL_KEYS if key in values), None)
    return None if found is None else _as_label(found)


def _as_label(value: Any) -> Label:
    """A class number from 0, or a word."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise _unusable(value)
    number: int = -1 if isinstance(value, str) else value
    if isinstance(value, str):
        if not (whole := _WHOLE.fullmatch(value)):
            return printable(value)[:200]
        sign, digits = whole.groups()
        if len(digits) <= len(str(LARGEST_LABEL)):  # Python reads no number of thousands of digits
            number = int(sign + digits)
    if not 0 <= number <= LARGEST_LABEL:
        raise _unusable(value)
    return number


def _unusable(value: Any) -> UnusableLabelError:
    try:
        text = value if isinstance(value, str) and value else repr(value)
    except ValueError:  # a number of more digits than Python writes
        text = "a number of thousands of digits"
    return UnusableLabelError(printable(text[:_SHOWN]) + "..." * (len(text) > _SHOWN))


def numbered(labels: Sequence[Label]) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels as int64 [n], -1 for none, and class names where they are words.

    Example:
        >>> numbered(["dog", None, "cat"]), numbered([None])
        ((array([ 1, -1,  0]), ['cat', 'dog']), (None, None))
    """
    known = {label for label in labels if label is not None}
    if not known:
        return None, None
    if all(isinstance(label, int) for label in known):
        return np.array([-1 if label is None else label for label in labels], np.int64), None
    names = sorted({str(label) for label in known})
    number = {name: i for i, name in enumerate(names)}
    return np.array([-1 if label is None else number[str(label)] for label in labels], np.int64), names


def numbered_as(
    classes: list[str] | None, labels: np.ndarray | None, own: list[str] | None
) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels by the numbers that other images' classes have; -1 of classes not there.

    Example:
        >>> labels, names = numbered_as(["a", "b"], np.array([0, 1, -1]), ["b", "c"])
        >>> labels.tolist(), names
        ([1, -1, -1], ['a', 'b'])
    """
    if labels is None or classes is None or own is None or own == classes:
        return labels, own
    number = {known: i for i, known in enumerate(classes)}
    return np.array([*(number.get(each, -1) for each in own), -1], np.int64)[labels], classes
