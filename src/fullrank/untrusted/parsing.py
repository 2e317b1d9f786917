"""Parsers of bytes from strangers: whatever they raise becomes one error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fullrank.errors import DataError, FullrankError, first_line
from fullrank.untrusted.paths import require_regular

MAX_DEPTH = 64
"""Levels of lists and mappings within one another that JSON and YAML may have."""
MAX_NODES = 100_000
"""Values of a YAML text, those that aliases repeat counted each time."""
MAX_TEXT = 64 << 20
"""Bytes of a file of settings or results; what is streamed may be longer."""

_BRACKET = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[\[\]{}]', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


@contextmanager
def refusing(what: str) -> Iterator[None]:
    """Turn any exception of a parser into a DataError of one line.

    Parsers raise dozens of types on damaged bytes: KeyError, struct.error, RecursionError, MemoryError,
    SyntaxError, types of their own. Errors of this package and missing modules pass as they are.

    Args:
        what: what is said before the reason, as in "z.npy is no array of numpy, or damaged".

    Example:
        >>> with refusing("z.txt is no number"):
        ...     int("{")
        Traceback (most recent call last):
            ...
        fullrank.errors.DataError: z.txt is no number: invalid literal for int() with base 10: '{'
    """
    try:
        yield
    except (FullrankError, ImportError):
        raise
    except PermissionError as error:
        raise DataError(f"{what}: it may not be read") from error
    except MemoryError as error:
        raise DataError(f"{what}: it asks for more memory than there is") from error
    except RecursionError as error:
        raise DataError(f"{what}: it is nested too deep") from error
    except Exception as error:
        raise DataError(f"{what}: {first_line(error, 120)}") from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of libraries in Rust, beside Exception
            raise
        raise DataError(f"{what}: {first_line(error, 120)}") from error


def read_text(path: Path, most: int = MAX_TEXT) -> str:
    """Read a regular file of UTF-8.

    Raises:
        DataError: no regular file, no UTF-8, or more than `most` bytes.
    """
    size = require_regular(path).stat().st_size
    if size > most:
        raise DataError(f"{path} has {size:,} bytes, and {most:,} are read at most")
    with refusing(f"{path} is no text in UTF-8"):
        return path.read_text(encoding="utf-8")


def parse_json(text: str, where: str) -> Any:
    """Parse JSON that is nested at most `MAX_DEPTH` deep.

    Raises:
        DataError: it is no JSON, or nested deeper.

    Example:
        >>> parse_json('{"a": [1, 2]}', "here")
        {'a': [1, 2]}
        >>> parse_json("[" * 100_000, "here")
        Traceback (most recent call last):
            ...
        fullrank.errors.DataError: here is nested more than 64 deep
    """
    if _too_deep(text):
        raise DataError(f"{where} is nested more than {MAX_DEPTH} deep")
    with refusing(f"{where} is damaged, or no JSON"):
        values = json.loads(text, parse_constant=lambda _: None)  # NaN, Infinity: undefined
    return _mended(values) if _SURROGATE.search(text) else values


def _too_deep(text: str) -> bool:
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return False
    depth = 0
    for match in _BRACKET.finditer(text):
        depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(match[0], 0)
        if depth > MAX_DEPTH:
            return True
    return False


def _mended(values: Any) -> Any:
    """The same with a mark for each half of a character, which no text can be made of."""
    if isinstance(values, str):
        return values.encode("utf-8", "replace").decode("utf-8")
    if isinstance(values, list):
        return [_mended(value) for value in values]
    if isinstance(values, dict):
        return {_mended(key): _mended(value) for key, value in values.items()}
    return values


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of JSON that holds a mapping.

    Raises:
        DataError: no regular file, no JSON, nested too deep, or no mapping.
    """
    values = parse_json(read_text(path), str(path))
    if not isinstance(values, dict):
        raise DataError(f"{path} holds no mapping")
    return values


def whole_pairs(text: str) -> dict[str, Any]:
    """Read the pairs of a JSON mapping that are whole; the text may end anywhere.

    Example:
        >>> whole_pairs('{"a": [1, 2], "b": {"c": 3}, "d": [4, ')
        {'a': [1, 2], 'b': {'c': 3}}
    """
    decoder, found = json.JSONDecoder(), dict[str, Any]()
    space = re.compile(r"[\s,{]*")
    at = space.match(text).end()  # type: ignore[union-attr]
    while not _too_deep(text):
        try:
            key, at = decoder.raw_decode(text, at)
            colon = re.compile(r"\s*:\s*").match(text, at)
            if not isinstance(key, str) or colon is None:
                break
            value, at = decoder.raw_decode(text, colon.end())
        except (ValueError, RecursionError):
            break
        found[key] = value
        at = space.match(text, at).end()  # type: ignore[union-attr]
    return found


def check_yaml(text: str, loader: Any) -> None:
    """Check a YAML text before values are made of it.

    Raises:
        yaml.YAMLError: no YAML, nested more than `MAX_DEPTH` deep, or more than `MAX_NODES` values once its
            aliases are written out.
    """
    import yaml

    anchors: dict[str, int] = {}  # and how many values stand within
    opened: list[tuple[str | None, int]] = []  # anchor, and how many values stood before it
    nodes = 0
    for event in yaml.parse(text, Loader=loader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = opened.pop()
            anchors |= {anchor: nodes - before} if anchor else {}
            continue
        anchor = getattr(event, "anchor", None)
        if isinstance(event, yaml.AliasEvent):
            if anchor not in anchors:
                raise yaml.YAMLError(f"the alias *{anchor} stands within its own anchor, or has none")
            nodes += anchors[anchor]
        elif isinstance(event, yaml.NodeEvent):
            anchors |= {anchor: 1} if anchor else {}
            if isinstance(event, yaml.CollectionStartEvent):
                anchors.pop(anchor or "", None)
                opened.append((anchor, nodes))
            nodes += 1
        _check_size(nodes, len(opened))


def _check_size(nodes: int, depth: int) -> None:
    import yaml

    if nodes > MAX_NODES:
        raise yaml.YAMLError(f"it holds more than {MAX_NODES:,} values, its aliases written out")
    if depth > MAX_DEPTH:
        raise yaml.YAMLError(f"it is nested more than {MAX_DEPTH} deep")
