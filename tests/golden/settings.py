"""Settings of a recording, of which every entry must be taken by something of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

DESCRIPTIVE = {"dtype", "kind", "C_prev", "backbone", "sklearn", "random_state"}  # how inputs came about
PRECISIONS = {"native", "half"}  # values that say that a reference's own precision was kept


class Refused(AssertionError):
    """An entry of a recording that nothing of ours answers to."""


class Settings(Mapping[str, Any]):
    """A mapping that knows which of its leaves were read, at any depth."""

    def __init__(self, values: Mapping[str, Any], path: str = "", read: set[str] | None = None) -> None:
        self.values_, self.path = values, path
        self.read: set[str] = set() if read is None else read

    def __getitem__(self, key: str) -> Any:
        value, path = self.values_[key], f"{self.path}{key}"
        if isinstance(value, Mapping):
            return Settings(value, path + ".", self.read)
        if _is_list_of_mappings(value):
            return [Settings(part, f"{path}[{i}].", self.read) for i, part in enumerate(value)]
        self.read.add(path)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)

    def __contains__(self, key: object) -> bool:
        return key in self.values_  # looking whether an entry is there does not read it

    def plain(self) -> dict[str, Any]:
        """All entries, read."""
        for path, _ in _leaves(self.values_, self.path):
            self.read.add(path)
        return dict(self.values_)

    def expect(self, key: str, *right: Any) -> None:
        """Refuse an entry, where it is there, that is none of the values which the arrays or ours have."""
        if key in self and self[key] not in right:
            shown = " or ".join(map(repr, right))
            raise Refused(f"settings.{self.path}{key} is {self[key]!r}, which does not fit {shown}")

    def unread(self) -> list[str]:
        """Leaves that nothing took, but for those that only describe how inputs came about."""
        return [
            f"settings.{path} = {value!r}"
            for path, value in _leaves(self.values_, self.path)
            if path not in self.read
            and path not in DESCRIPTIVE
            and not (isinstance(value, str) and value in PRECISIONS)
        ]


def _is_list_of_mappings(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(part, Mapping) for part in value)


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            inner = isinstance(part, Mapping) or _is_list_of_mappings(part)
            yield from (
                _leaves(part, f"{path}{key}" + ("." if isinstance(part, Mapping) else ""))
                if inner
                else [(f"{path}{key}", part)]
            )
    elif _is_list_of_mappings(value):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{path}[{i}].")
