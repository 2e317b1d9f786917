"""What a method is: it owns its networks and says what happens to views."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, NamedTuple, TypeVar

from torch import Tensor, nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.registry import Registry

__all__ = ["METHODS", "Method", "ParamGroup", "Step", "build_method", "make_config", "register"]

METHODS: Registry[type[Method]] = Registry("method", group="fullrank.methods")
M = TypeVar("M", bound="type[Method]")


def register(name: str) -> Callable[[M], M]:
    """Files a method class under `name`, which the command line, the lists and the tests then know."""

    def file(cls: M) -> M:
        cls.name = name
        METHODS.register(name)(cls)
        return cls

    return file


class Step(NamedTuple):
    """What a method returns for one batch of views.

    Attributes:
        loss: the scalar to minimise.
        taps: named embeddings [n, d] of the first view: `backbone`, `projector`, `predictor`, `target`.
        terms: named scalars that the loss is made of, where there is more than one.
    """

    loss: Tensor
    taps: dict[str, Tensor]
    terms: dict[str, Tensor] = {}  # noqa: RUF012 (never written to)


@dataclass(frozen=True)
class ParamGroup:
    """Parameters that are optimised alike.

    Attributes:
        name: of the group, for logs.
        params: the parameters, frozen ones included (they get no gradient and never move).
        fixed_lr: the base rate for the whole run instead of the schedule's (SimSiam's predictor).
    """

    name: str
    params: list[nn.Parameter]
    fixed_lr: bool = False


class Method(nn.Module, ABC):
    """A way to train a backbone from views of unlabelled images.

    A subclass is one file: a frozen `Config` dataclass, this module, and its loss as a pure function.
    `paper`, `year` and `mechanism` (what keeps it from collapse) feed the lists and the docs.
    """

    name: ClassVar[str]
    paper: ClassVar[str]
    year: ClassVar[int]
    mechanism: ClassVar[str]
    Config: ClassVar[type[Any]]

    backbone: nn.Module

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Any) -> None:
        super().__init__()
        self.backbone, self.feature_dim, self.config = backbone, feature_dim, config

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """Training options that suit the method where the user and the recipe say nothing."""
        return {}

    @abstractmethod
    def loss(self, views: Sequence[Tensor]) -> Step:
        """One batch of views, each [n, 3, S, S] and row-aligned, to a loss and its taps."""

    @abstractmethod
    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to every tap [n, d] of the method, for measuring (call in eval mode)."""

    def forward(self, views: Sequence[Tensor]) -> Step:
        """`loss`, so that distributed wrappers see the whole step."""
        return self.loss(views)

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step; `progress` in [0, 1) is the share of steps done before it."""

    @abstractmethod
    def param_groups(self) -> list[ParamGroup]:
        """Every trainable part, in groups that are optimised alike."""


def make_config(cls: type[Method], options: Mapping[str, Any]) -> Any:
    """A method's Config from a mapping; raises UnknownNameError for a key that it does not have.

    Example:
        >>> from fullrank.methods import METHODS
        >>> make_config(METHODS["byol"], {"tau_base": 0.9}).tau_base
        0.9
    """
    known = [f.name for f in fields(cls.Config)]
    for key in options:
        if key not in known:
            raise UnknownNameError(f"{cls.name} option", key, known)
    return cls.Config(**options)


def build_method(
    name: str, backbone: nn.Module, feature_dim: int, options: Mapping[str, Any] | None = None
) -> Method:
    """Builds a registered method around a backbone.

    Args:
        name: a key of `METHODS`.
        backbone: maps images [n, 3, S, S] to features [n, feature_dim].
        feature_dim: width of the features.
        options: keys of the method's `Config`; the rest keeps its defaults.

    Example:
        >>> from torch import zeros
        >>> method = build_method("simsiam", nn.Flatten(), 12, {"proj_output_dim": 8})
        >>> method.eval().embed(zeros(2, 3, 2, 2))["projector"].shape
        torch.Size([2, 8])
    """
    cls = METHODS[name]
    return cls(backbone, feature_dim, make_config(cls, options or {}))


def check_views(views: Sequence[Tensor], at_least: int = 2) -> None:
    """Raises UsageError where a loss gets fewer views than it compares."""
    if len(views) < at_least:
        raise UsageError(f"this method compares views of an image: it needs {at_least}, got {len(views)}")
