"""Help and lists in a fraction of a second: declarations are read without torch.

Methods, labs, metrics and options are declared in modules that import torch, timm and others for what they
do, which takes seconds. Help and lists need the declarations alone. So these modules are imported with
stand-ins for the heavy packages, and forgotten afterwards: whatever is imported later is the real thing.
Discovery is the usual one, and a method, metric or lab that is dropped in is found. Where a module needs more
of a package than a stand-in has, its import fails, and the caller does it again with the packages themselves.
"""

from __future__ import annotations

import sys
import types
from abc import ABCMeta
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

HEAVY = frozenset(
    (
        *(
            "PIL",
            "datasets",
            "huggingface_hub",
            "jinja2",
            "lightning_fabric",
            "matplotlib",
            "numpy",
            "pandas",
        ),
        *("pyarrow", "safetensors", "scipy", "sklearn", "threadpoolctl", "timm", "torch", "torchmetrics"),
        *("torchvision", "tqdm", "transformers"),
    )
)
"""Packages that nothing of a help page or a list comes from."""


class _Kind(ABCMeta):
    """Class of the stand-ins: bases, annotations, constants or decorators."""

    def __getattr__(cls, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _stand_in(name)

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if not cls.__dict__.get("stands_in"):
            return super().__call__(*args, **kwargs)
        decorated = len(args) == 1 and isinstance(args[0], types.FunctionType)
        return args[0] if decorated else cls

    def _itself(cls, *_: Any) -> Any:
        return cls

    __getitem__ = __or__ = __ror__ = __add__ = __radd__ = __sub__ = __rsub__ = _itself
    __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __pow__ = __neg__ = _itself


def _stand_in(name: str) -> Any:
    return _Kind(name, (), {"stands_in": True})


def is_stand_in(value: Any) -> bool:
    """Whether a value comes from a package that was not imported."""
    if isinstance(value, list | tuple):
        return any(map(is_stand_in, value))
    return isinstance(value, _Kind)


class _Package(types.ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        setattr(self, name, found := _stand_in(name))
        return found


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        return ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in HEAVY else None

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return _Package(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing is run."""


@contextmanager
def stand_ins() -> Iterator[None]:
    """Import heavy packages as stand-ins within, and forget all that was imported.

    Example:
        >>> with stand_ins():
        ...     active()
        True
        >>> active()
        False
    """
    before, finder = set(sys.modules), _Finder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        new = {name: sys.modules[name] for name in set(sys.modules) - before}
        forgotten = _forgotten(new)
        for name in new:
            if name.partition(".")[0] in forgotten:
                del sys.modules[name]


def _forgotten(new: Mapping[str, Any]) -> set[str]:
    """Packages to import anew: stand-ins, this one, and what holds parts of either."""
    gone = {*HEAVY, "fullrank"}
    tops = {name: name.partition(".")[0] for name in new}
    while more := {
        tops[name]
        for name, module in new.items()
        if tops[name] not in gone | sys.stdlib_module_names and _holds(module, gone)
    }:
        gone |= more
    return gone


def _holds(module: Any, packages: Collection[str]) -> bool:
    for value in list(getattr(module, "__dict__", {}).values()):
        home = value.__name__ if isinstance(value, types.ModuleType) else _home(value)
        if isinstance(home, str) and home.partition(".")[0] in packages:
            return True
    return False


def _home(value: Any) -> Any:
    """Module of a class or function, asked past what a stand-in answers."""
    if isinstance(value, _Kind):
        return "fullrank"
    return getattr(value, "__module__", "") if isinstance(value, type | types.FunctionType) else ""


def active() -> bool:
    """Whether stand-ins are imported in place of packages."""
    return any(isinstance(finder, _Finder) for finder in sys.meta_path)
