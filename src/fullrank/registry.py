"""A registry of named things for the command line, lists, docs and tests."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Generic, TypeVar

from fullrank.errors import FullrankError, UnknownNameError, UsageError

T = TypeVar("T")


class Registry(Mapping[str, T], Generic[T]):
    """Mapping of names to things, filled by decorators and by entry points.

    Args:
        kind: what it holds, in the singular, for messages ("method").
        group: entry point group that third-party packages announce theirs under, or None.
        required: attributes that each thing must have.

    Example:
        >>> colours: Registry[int] = Registry("colour")
        >>> _ = colours.register("red")(0xFF0000)
        >>> colours["red"], list(colours)
        (16711680, ['red'])
    """

    def __init__(self, kind: str, group: str | None = None, required: tuple[str, ...] = ()) -> None:
        self.kind, self.group, self.required = kind, group, required
        self._items: dict[str, T] = {}
        self._broken: dict[str, str] = {}
        self.enter: Callable[[str], Callable[[Any], Any]] = self.register
        """As `register`, and what else a kind asks of what another package announces."""
        self._entry_points_loaded = group is None

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters its argument.

        Raises:
            UsageError: the name is taken, or the thing is not complete.
        """

        def file(item: T) -> T:
            abstract: frozenset[str] = getattr(item, "__abstractmethods__", frozenset())
            lacking = [key for key in self.required if not hasattr(item, key)] + sorted(abstract)
            if lacking:
                raise UsageError(f"{self.kind} {name!r} ({_module(item)}) lacks {', '.join(lacking)}")
            if (other := self._items.get(name, item)) is not item:
                both = f"by {_module(other)} and by {_module(item)}"
                raise UsageError(f"{self.kind} {name!r} is registered twice, {both}: take another name")
            self._items[name] = item
            return item

        return file

    def _load_entry_points(self) -> None:
        if not self._entry_points_loaded:
            self._entry_points_loaded = True  # before loading: the loaded module registers through us
            for point in entry_points(group=self.group or ""):
                before = set(self._items)
                try:
                    with _loading(f"{self.kind} {point.name!r} of another package", ""):
                        loaded = point.load()
                        if self._items.get(point.name) is not loaded:
                            self.enter(point.name)(loaded)
                except UsageError as error:  # the others can be used nonetheless
                    for entered in set(self._items) - before:
                        del self._items[entered]
                    taken = point.name in self._items
                    self._broken[f"{point.name} ({point.value})" if taken else point.name] = str(error)

    @property
    def broken(self) -> Mapping[str, str]:
        """What other packages announce and cannot be loaded: name to what is wrong."""
        self._load_entry_points()
        return self._broken

    def __getitem__(self, name: str) -> T:
        self._load_entry_points()
        if name in self._broken:
            raise UsageError(self._broken[name])
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


def discover(
    package: str, file: str, pattern: str = "[!_]*.py", registry: Registry[Any] | None = None, how: str = ""
) -> None:
    """Import the modules of a package that register something; a file is enough.

    Args:
        package: its name.
        file: of its `__init__`.
        pattern: of the modules' files beside it.
        registry: where each of them must enter something, if it must.
        how: it does so, for the message.

    Raises:
        UsageError: a module cannot be loaded or registers nothing, in a line that names its file.
    """
    folder = Path(file).parent
    for path in sorted(folder.glob(pattern)):
        place = path.relative_to(folder)
        shown, module = f"{folder.name}/{place.as_posix()}", ".".join([package, *place.with_suffix("").parts])
        with _loading(shown, str(path)):
            import_module(module)
        if registry is not None and module not in map(_module, registry._items.values()):
            raise UsageError(f"{shown} registers no {registry.kind}: {how}")


def _module(item: object) -> str:
    return str(getattr(item, "__module__", type(item).__name__))


@contextmanager
def _loading(what: str, file: str) -> Iterator[None]:
    try:
        yield
    except FullrankError as error:
        raise UsageError(f"{what} cannot be loaded: {error}") from error
    except Exception as error:
        lines = [
            frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file
        ]
        place = f" (line {lines[-1]})" if lines else ""
        raise UsageError(f"{what} cannot be loaded: {type(error).__name__}: {error}{place}") from error
