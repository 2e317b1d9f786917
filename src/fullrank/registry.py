"""A registry of named things for the command line, lists, docs and tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import entry_points
from typing import Generic, TypeVar

from fullrank.errors import UnknownNameError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Mapping of names to things, filled by decorators and by entry points.

    Args:
        kind: what it holds, in the singular, for messages ("method").
        group: entry point group that third-party packages announce theirs under, or None.

    Example:
        >>> colours: Registry[int] = Registry("colour")
        >>> _ = colours.register("red")(0xFF0000)
        >>> colours["red"], list(colours)
        (16711680, ['red'])
    """

    def __init__(self, kind: str, group: str | None = None) -> None:
        self.kind, self.group = kind, group
        self._items: dict[str, T] = {}
        self._entry_points_loaded = group is None

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument; ValueError for a taken name."""

        def file(item: T) -> T:
            if name in self._items and self._items[name] is not item:
                raise ValueError(f"{self.kind} {name!r} is registered twice")
            self._items[name] = item
            return item

        return file

    def _load_entry_points(self) -> None:
        if not self._entry_points_loaded:
            self._entry_points_loaded = True  # before loading: the loaded module registers through us
            for point in entry_points(group=self.group or ""):
                loaded = point.load()
                if point.name not in self._items:
                    self._items[point.name] = loaded

    def __getitem__(self, name: str) -> T:
        self._load_entry_points()
        try:
            return self._items[name]
        except KeyError:
            raise UnknownNameError(self.kind, name, self._items) from None

    def __contains__(self, name: object) -> bool:
        self._load_entry_points()
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        self._load_entry_points()
        return iter(sorted(self._items))

    def __len__(self) -> int:
        self._load_entry_points()
        return len(self._items)
