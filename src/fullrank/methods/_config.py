"""Base of all methods' options: ranges, and widths that follow the backbone."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Self

from fullrank.coercion import coerce
from fullrank.errors import UsageError
from fullrank.ranges import check_numbers

__all__ = ["MethodConfig", "ProjectorConfig", "follow_backbone", "head_width"]

FULL_WIDTH = 512  # features of a ResNet-18, from which on heads have the papers' widths


def head_width(paper: int, feature_dim: int) -> int:
    """Default width of a head's layer on a backbone of `feature_dim` features.

    From 512 features on (ResNet-18) it is the paper's; below, it shrinks in proportion, but not below the
    features' own width where the paper's is larger: a rank is judged by the width of what it is measured on.

    Example:
        >>> [head_width(2048, 512), head_width(2048, 64), head_width(256, 64)]
        [2048, 256, 64]
    """
    if feature_dim >= FULL_WIDTH:
        return paper
    return max(min(paper, feature_dim), paper * feature_dim // FULL_WIDTH)


def follow_backbone(paper: int = 0) -> Any:
    """Declare a width whose default follows the backbone's by `head_width`.

    The option's default reads 0; `MethodConfig.fit` puts the number in its place.

    Args:
        paper: the paper's width; 0 takes the features' own.

    Example:
        >>> @dataclass(frozen=True)
        ... class Config(MethodConfig):
        ...     hidden_dim: int = follow_backbone(2048)
        >>> Config().fit(64), Config(hidden_dim=8).fit(64)
        (Config(hidden_dim=256), Config(hidden_dim=8))
    """
    return field(default=0, metadata={"paper": paper})


@dataclass(frozen=True)
class MethodConfig:
    """Base of every method's `Config`, which refuses wrong kinds and ranges.

    Widths (`..._dim`, `num_...`) are positive unless their default is 0, coefficients of averages (`tau...`,
    `..._momentum`) lie in [0, 1], temperatures are positive; class attributes name what else has a range.
    Widths declared with `follow_backbone` read 0 until a method is built around a backbone.

    Raises:
        UsageError: a value of a wrong kind or out of its range.
    """

    positive: ClassVar[tuple[str, ...]] = ()
    not_negative: ClassVar[tuple[str, ...]] = ()
    below_one: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        coerce(type(self), vars(self), "option")
        check_numbers(self, signed=True, under="options.")
        for knob in fields(self):
            name, value = knob.name, getattr(self, knob.name)
            if name.endswith("_dim") or name.startswith("num_"):
                least = int(knob.default != 0)
                self.require(value >= least, name, "must be positive" if least else "must not be negative")
            if name.startswith("tau") or name.endswith("_momentum"):
                self.require(0 <= value <= 1, name, "lies in [0, 1]")
            if name in self.positive or (name.endswith("temperature") and not isinstance(value, str)):
                self.require(value > 0, name, "must be positive")
            if name in self.not_negative:
                self.require(value >= 0, name, "must not be negative")
            if name in self.below_one:
                self.require(0 <= value < 1, name, "lies in [0, 1)")

    def fit(self, feature_dim: int) -> Self:
        """Copy in which every width that follows the backbone is a number."""
        widths = {
            f.name: head_width(f.metadata["paper"], feature_dim) if f.metadata["paper"] else feature_dim
            for f in fields(self)
            if "paper" in f.metadata and not getattr(self, f.name)
        }
        return replace(self, **widths)

    def require(self, right: bool, name: str, remedy: str) -> None:
        """Raise UsageError with what would be right, where `right` is False."""
        if not right:
            raise UsageError(f"option {name.replace('_', '-')} {remedy}, not {getattr(self, name)!r}")


@dataclass(frozen=True)
class ProjectorConfig(MethodConfig):
    """Options of every method with a projector.

    Attributes:
        proj_hidden_dim: width of the projector's hidden layers; 0: 2048, less for narrow backbones
            (`head_width`).
        proj_output_dim: d, width of the projection; 0: 2048, less for narrow backbones.
    """

    proj_hidden_dim: int = follow_backbone(2048)
    proj_output_dim: int = follow_backbone(2048)
