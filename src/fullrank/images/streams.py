"""Addresses of images that are streamed: tar shards, the Hub, litdata."""

from __future__ import annotations

from collections.abc import Callable

from fullrank.errors import UsageError
from fullrank.images.sources import Source

Opened = tuple[str, Source, Source | None, list[str]]
KINDS = ("shards", "hub", "litdata")


def is_stream(spec: str) -> bool:
    """Whether data is named by an address as `shards:PATTERN`.

    Example:
        >>> is_stream("shards:part-{000..127}.tar"), is_stream("photos")
        (True, False)
    """
    return spec.partition(":")[0] in KINDS and ":" in spec


def open_stream(spec: str) -> Opened:
    """Open images by an address: name, training images, held-out ones, notes.

    Raises:
        UsageError: nothing stands behind the colon, or a package is missing.
        DataError: nothing is there, or it cannot be read.

    Example:
        >>> open_stream("shards:")
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: shards: names nothing; what is meant is as shards:part-{000..127}.tar
    """
    kind, _, address = spec.partition(":")
    if not address.strip():
        example = {"shards": "part-{000..127}.tar", "hub": "uoft-cs/cifar10", "litdata": "FOLDER"}[kind]
        raise UsageError(f"{kind}: names nothing; what is meant is as {kind}:{example}")
    return _opener(kind)(address)


def _opener(kind: str) -> Callable[[str], Opened]:
    if kind == "shards":
        from fullrank.images.tar_shards import open_shards

        return open_shards
    if kind == "hub":
        from fullrank.images.hub import open_hub

        return open_hub
    from fullrank.images.lit import open_litdata

    return open_litdata
