"""What a method is: it owns its networks and says what happens to views."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from fullrank.errors import UnknownNameError, UsageError
from fullrank.registry import Registry

__all__ = [
    "METHODS",
    "Method",
    "MethodConfig",
    "ParamGroup",
    "Step",
    "StepInfo",
    "build_method",
    "check_views",
    "coerce",
    "make_config",
    "register",
]

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
        taps: named embeddings [n, d] of the first view: `backbone`, `projector`, `predictor`, `target`, and
            `codes`, scores over a dictionary or prototypes, where a method has them and needs them in memory.
        terms: named scalars that the loss is made of, where there is more than one.
    """

    loss: Tensor
    taps: dict[str, Tensor]
    terms: dict[str, Tensor] = {}  # noqa: RUF012 (never written to)


class StepInfo(NamedTuple):
    """Where in a run a step is.

    Attributes:
        step: optimiser steps done before it.
        total_steps: of the whole run.
        steps_per_epoch: optimiser steps.
    """

    step: int = 0
    total_steps: int = 1
    steps_per_epoch: int = 1

    @property
    def progress(self) -> float:
        """Share of the run that is done, in [0, 1)."""
        return self.step / self.total_steps

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return self.step // self.steps_per_epoch


@dataclass(frozen=True)
class MethodConfig:
    """What every method's `Config` is built on: values of a wrong kind are refused wherever they come from.

    Widths (`..._dim`, `num_...`) are positive unless their default is 0, coefficients of averages (`tau...`,
    `..._momentum`) lie in [0, 1], temperatures are positive.

    Raises:
        UsageError: a value of a wrong kind or out of its range.
    """

    def __post_init__(self) -> None:
        coerce(type(self), vars(self), "option")
        for field in fields(self):
            name, value = field.name, getattr(self, field.name)
            if name.endswith("_dim") or name.startswith("num_"):
                self.need(value >= (field.default != 0), name, "must be positive")
            if name.startswith("tau") or name.endswith("_momentum"):
                self.need(0 <= value <= 1, name, "lies in [0, 1]")
            if name.endswith("temperature") and not isinstance(value, str):
                self.need(value > 0, name, "must be positive")

    def need(self, right: bool, name: str, remedy: str) -> None:
        """Raises UsageError with what would be right, where `right` is False."""
        if not right:
            raise UsageError(f"option {name.replace('_', '-')} {remedy}, not {getattr(self, name)!r}")


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

    two_branches: ClassVar[bool] = False
    """Whether views have roles: source branch (with gradient) or target branch."""

    backbone: nn.Module
    when: StepInfo
    roles: tuple[str, ...]

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Any) -> None:
        super().__init__()
        self.backbone, self.feature_dim, self.config = backbone, feature_dim, config
        self.when = StepInfo()
        self.roles = ()  # of the views, `both`, `source` or `target`; empty: both for all of them

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """Training options that suit the method where the user and the recipe say nothing."""
        return {}

    @property
    def code_temperature(self) -> float:
        """What the tap `codes` is divided by before the softmax that assigns images to codes."""
        return 1.0

    @abstractmethod
    def loss(self, views: Sequence[Tensor]) -> Step:
        """One batch of views, each [n, 3, S, S] and row-aligned, to a loss and its taps."""

    @abstractmethod
    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to every tap [n, d] of the method, for measuring (call in eval mode)."""

    def forward(self, views: Sequence[Tensor]) -> Step:
        """`loss`, so that distributed wrappers see the whole step."""
        return self.loss(views)

    def before_step(self, when: StepInfo) -> None:
        """Called before every step's first batch, where in the run it is: methods read `self.when`."""
        self.when = when

    def after_backward(self) -> None:
        """Called when all gradients are there, before they are clipped and applied."""

    def after_step(self, progress: float) -> None:
        """Called after every optimiser step; `progress` in [0, 1) is the share of steps done before it."""

    @abstractmethod
    def param_groups(self) -> list[ParamGroup]:
        """Every trainable part, in groups that are optimised alike."""

    def groups(self, *parts: str) -> list[ParamGroup]:
        """A group for each of the named parts."""
        return [ParamGroup(part, list(getattr(self, part).parameters())) for part in parts]


def make_config(cls: type[Method], options: Mapping[str, Any]) -> Any:
    """A method's Config from a mapping; raises UnknownNameError for a key that it does not have.

    Example:
        >>> from fullrank.methods import METHODS
        >>> make_config(METHODS["byol"], {"tau_base": 0.9}).tau_base
        0.9
    """
    return cls.Config(**coerce(cls.Config, options, f"{cls.name} option"))


def coerce(cls: type[Any], values: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Values as they come from YAML, checked against a dataclass's annotations, lists made tuples.

    Args:
        cls: a dataclass of bool, int, float, str, Literal, tuple and Mapping fields.
        values: some of its fields.
        kind: what a key is called in messages.

    Raises:
        UnknownNameError: no such key, or no such choice.
        UsageError: a value of the wrong kind.

    Example:
        >>> from fullrank.methods import METHODS
        >>> coerce(METHODS["byol"].Config, {"tau_base": "9e-1"}, "option")  # YAML reads that as text
        {'tau_base': 0.9}
    """
    hints = get_type_hints(cls)
    for key in values:
        if key not in hints:
            raise UnknownNameError(kind, str(key), hints)
    return {key: _of_kind(hints[key], value, f"{kind} {key}") for key, value in values.items()}


def _of_kind(hint: Any, value: Any, what: str) -> Any:
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        if value not in args:
            raise UnknownNameError(what, str(value), args)
        return value
    if origin is tuple:
        each = args[:1] * len(value) if isinstance(value, (list, tuple)) and args[-1] is ... else args
        if not isinstance(value, (list, tuple)) or len(value) != len(each):
            raise UsageError(
                f"{what} takes a list{'' if args[-1] is ... else f' of {len(args)}'}, not {value!r}"
            )
        return tuple(_of_kind(one, item, what) for one, item in zip(each, value, strict=True))
    if hint is float and not isinstance(value, bool):
        try:
            value = float(value)  # also "1e-3", which YAML reads as text
        except (TypeError, ValueError):
            raise UsageError(f"{what} takes a number, not {value!r}") from None
        if not math.isfinite(value):
            raise UsageError(f"{what} takes a finite number, not {value!r}")
    right = origin or hint
    if not isinstance(value, right) or (right is int and isinstance(value, bool)):
        names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
        raise UsageError(f"{what} takes {names.get(right, 'a mapping')}, not {value!r}")
    return value


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


def check_views(views: Sized, at_least: int = 2) -> None:
    """Raises UsageError where a loss gets fewer views than it compares."""
    if len(views) < at_least:
        raise UsageError(f"this method compares views of an image: it needs {at_least}, got {len(views)}")
