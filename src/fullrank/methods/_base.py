"""Base of all methods: module, options, parameter groups, position in a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence, Sized
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeVar

import torch
from torch import Tensor, nn

from fullrank.coercion import coerce
from fullrank.errors import UnknownNameError, UsageError
from fullrank.methods._config import MethodConfig
from fullrank.methods._fixed_points import FixedPoint
from fullrank.networks.backbones import has_tokens
from fullrank.networks.capacity import RankBounds
from fullrank.networks.soft_targets import Prototypes
from fullrank.registry import Registry

__all__ = [
    "METHODS",
    "SIMSIAM_SGD",
    "SMALL_BATCH_ADAM",
    "SMALL_BATCH_SGD",
    "SOLO_LARS",
    "Method",
    "ParamGroup",
    "PerView",
    "Step",
    "StepInfo",
    "ViewPairs",
    "build_method",
    "check_views",
    "make_config",
    "register",
]

METHODS: Registry[type[Method]] = Registry(
    "method", group="fullrank.methods", required=("paper", "year", "mechanism", "Config")
)
M = TypeVar("M", bound="type[Method]")

SOLO_LARS: dict[str, Any] = {
    "optimizer": "lars",
    "lr": 0.3,
    "weight_decay": 1e-4,
    "lars_eta": 0.02,
    "lars_clip": True,
    "lars_exclude_1d": True,
    "warmup_epochs": -1.0,
    "views": "asymmetric",
}
"""solo-learn's training options for CIFAR, which most methods vary."""
SIMSIAM_SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.05, "weight_decay": 5e-4, "views": "simsiam-cifar"}
"""SimSiam's training options for CIFAR: no blur on small images."""
SMALL_BATCH_SGD: dict[str, Any] = {"optimizer": "sgd", "lr": 0.4, "weight_decay": 5e-4}
SMALL_BATCH_ADAM: dict[str, Any] = {"optimizer": "adam", "lr": 2e-3, "weight_decay": 1e-4}
"""For 256 images a step, tried on thousands of images."""
SMALL_IMAGES = 64  # side in pixels up to which a method's `small_image_defaults` hold
LARGE_IMAGE_VIEWS = {"asymmetric": "asymmetric-imagenet", "simsiam-cifar": "simsiam"}

PerView = Sequence[Tensor] | Mapping[int, Tensor]
"""Encodings [n, d] of all views, or of some by their number."""
MeanEncoding = Literal["none", "source", "target", "both"]


@dataclass(frozen=True)
class ViewPairs:
    """How a loss pairs views.

    Attributes:
        small: views that are small crops; their pairs form a mean of their own, which is added (Wang et al.
            2204.00613, section 4.1).
        mean_encoding: the branch whose encodings of several views are averaged first (section 4.5): each
            source meets the mean of the targets of the other views, or the mean of the sources meets each
            target, or mean meets mean.
    """

    small: Sequence[int] = ()
    mean_encoding: MeanEncoding = "none"


def register(name: str) -> Callable[[M], M]:
    """Register a method class; raises UsageError where it is not complete or valid."""

    def file(cls: M) -> M:
        if not (isinstance(cls, type) and issubclass(cls, Method)):
            raise UsageError(f"{name!r} is no method: {cls!r} is no subclass of Method")
        METHODS.register(name)(cls)
        cls.name = name
        try:
            make_config(cls, vars(cls.Config()))
        except (TypeError, UsageError) as error:
            raise UsageError(f"a default of method {name!r} ({cls.__module__}) is wrong: {error}") from error
        return cls

    return file


class Step(NamedTuple):
    """Loss and embeddings of one batch of views.

    Attributes:
        loss: the scalar to minimise.
        taps: named embeddings [n, d] of the first view: `backbone`, `projector`, `predictor`, `target`, and
            `codes`, scores over a dictionary or prototypes, where a method has them and needs them in memory.
        terms: named scalars that the loss is made of, where there is more than one.
    """

    loss: Tensor
    taps: dict[str, Tensor]
    terms: dict[str, Tensor] = {}


class StepInfo(NamedTuple):
    """Position of an optimiser step in its run.

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

    views_needed: ClassVar[int] = 2
    """Views of an image that the loss takes at least."""
    needs_tokens: ClassVar[bool] = False
    """Whether the backbone must have tokens (patches, positions) besides its pooled features."""
    caveat: ClassVar[str] = ""
    """Why a default run may end below its untrained network; empty where none does."""
    compares_batch: ClassVar[bool] = True
    """Whether an image's loss depends on the others of its batch, besides through BatchNorm."""
    per_process: ClassVar[str] = ""
    """What its loss computes of each process's rows alone, where several share a batch; empty: nothing."""
    two_branches: ClassVar[bool] = False
    """Whether views have roles: source branch (with gradient) or target branch."""
    dip: ClassVar[float] = 0.05
    """Share of a training within which the rank usually dips: a collapse then is a passing one at first."""
    fixed_points: ClassVar[tuple[FixedPoint, ...]] = ()
    """Values of the loss on embeddings of a known state: collapsed, unrelated, at the optimum."""
    least_loss: ClassVar[float | None] = 0.0
    """A bound that the loss never goes below; None where it depends on the options."""
    small_image_defaults: ClassVar[Mapping[str, Any]] = {}
    """Training options that suit the method where the user and the recipe say nothing."""
    large_image_defaults: ClassVar[Mapping[str, Any]] = {}
    """What differs for images of more than 64 pixels."""
    small_batch_defaults: ClassVar[Mapping[str, Any]] = SMALL_BATCH_SGD
    """Optimiser that suits ResNets in short runs, and where the method's own is LARS, for large batches."""

    backbone: nn.Module
    info: StepInfo
    roles: tuple[str, ...]
    fixed_lr_parts: tuple[str, ...] = ()
    """Child modules that keep the base learning rate for the whole run."""
    eval_parts: tuple[str, ...] = ()
    """Child modules, or parts of them, that stay in evaluation mode."""
    code_temperature: float = 1.0
    """Temperature of the softmax over the tap `codes` that assigns images to codes."""

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Any) -> None:
        super().__init__()
        if isinstance(config, MethodConfig) and config.fit(feature_dim) != config:
            raise UsageError(
                f"widths of 0 follow the backbone: build {self.name} with config.fit({feature_dim})"
            )
        self.backbone, self.feature_dim, self.config = backbone, feature_dim, config
        self.info = StepInfo()
        self.roles = ()  # of the views, `both`, `source` or `target`; empty: both for all of them

    @classmethod
    def option_defaults(cls, batch: int, named: Collection[str]) -> Mapping[str, tuple[Any, str]]:
        """Options that differ from `Config` for that batch, with reasons.

        None that is `named` is among them.
        """
        return {}

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """Training options for a side in pixels where user and recipe say nothing."""
        if image_size <= SMALL_IMAGES:
            return cls.small_image_defaults
        options = {**cls.small_image_defaults, **cls.large_image_defaults}
        if (views := options.get("views")) in LARGE_IMAGE_VIEWS:
            options["views"] = LARGE_IMAGE_VIEWS[views]
        return options

    @abstractmethod
    def loss(self, views: Sequence[Tensor]) -> Step:
        """One batch of views, each [n, 3, S, S] and row-aligned, to a loss and its taps."""

    def encode_source(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], z and p [n, d], as far as there are heads."""
        taps = {"backbone": self.backbone(x)}
        for head in ("projector", "predictor"):
            if hasattr(self, head):
                taps[head] = getattr(self, head)([*taps.values()][-1])
        return taps

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to every tap [n, d], for measuring (in eval mode)."""
        return self.encode_source(x)

    def encode(self, views: Sequence[Tensor], tap: str) -> tuple[dict[str, Tensor], list[Tensor]]:
        """Views [n, 3, S, S] to the first one's taps and one tap [n, d] of all."""
        check_views(views, self.views_needed)
        taps = [self.embed(view) for view in views]
        return taps[0], [of_view[tap] for of_view in taps]

    def train(self, mode: bool = True) -> Self:
        """Set training mode, but of `eval_parts`."""
        super().train(mode)
        for part in self.eval_parts:
            self.get_submodule(part).eval()
        return self

    def forward(self, views: Sequence[Tensor]) -> Step:
        """`loss`, so that distributed wrappers see the whole step."""
        step = self.loss(views)
        if not isinstance(step, Step):
            raise UsageError(f"{self.name}.loss returns a {type(step).__name__}; return a Step")
        return step

    def prototype_rows(self) -> Tensor | None:
        """Trained prototypes [K, d] behind the tap `codes`; None without any."""
        prototypes = getattr(self, "prototypes", None)
        return prototypes.directions.detach() if isinstance(prototypes, Prototypes) else None

    def capacity(self, tap: str) -> int:
        """Most directions that rows [n, d] of a tap can span, see `capacities`.

        Raises:
            UnknownNameError: the method has no such tap.

        Example:
            >>> method = METHODS["byol"](nn.Flatten(), 8, METHODS["byol"].Config(4, 16, pred_hidden_dim=32))
            >>> method.capacity("projector"), method.capacity("predictor")
            (4, 16)
        """
        found = self.capacities()
        if tap not in found:
            raise UnknownNameError("tap", tap, found)
        return found[tap]

    @torch.no_grad()
    def capacities(self) -> dict[str, int]:
        """Tap to the most directions that its rows can span, as far as heads narrow them.

        Backbone features are taken to fill their width. Runs the heads once, in evaluation mode; not while
        another thread trains them.
        """
        like = next(self.parameters())
        features = torch.zeros(2, self.feature_dim, device=like.device, dtype=like.dtype)
        owners = [part for part in self.modules() if "backbone" in part._modules]
        backbones, training = [owner._modules["backbone"] for owner in owners], self.training
        try:
            for owner in owners:
                owner._modules["backbone"] = _Features()
            with RankBounds() as bounds:
                bounds.start(features)
                super().train(False)  # with no backbone, of which parts may be frozen
                taps = self.embed(features)
        finally:
            for owner, backbone in zip(owners, backbones, strict=True):
                owner._modules["backbone"] = backbone
            self.train(training)
        return {tap: bounds.of(z) for tap, z in taps.items()}

    @property
    def target_follows(self) -> bool:
        """Whether there is a target whose backbone starts as the trained one's copy."""
        return False

    def copy_backbone_to_target(self) -> bool:
        """Start the target's backbone as the trained one is; False where it does not."""
        if not self.target_follows:
            return False
        target: Any = self.target
        trained = any(parameter.requires_grad for parameter in target["backbone"].parameters())
        target["backbone"] = deepcopy(self.backbone)
        if not trained:
            target["backbone"].requires_grad_(False)
        return True

    def before_step(self, info: StepInfo) -> None:
        """Take up the position in the run, `self.info`, before a step's first batch."""
        self.info = info

    def after_backward(self) -> None:
        """Change gradients when all are there, before they are clipped and applied."""

    def after_step(self, info: StepInfo) -> None:
        """Update what is no parameter, after every optimiser step; `info` as before it."""

    def param_groups(self) -> list[ParamGroup]:
        """A group for each child module with trainable parameters, in their order."""
        return [
            ParamGroup(name, list(part.parameters()), fixed_lr=name in self.fixed_lr_parts)
            for name, part in self.named_children()
            if any(parameter.requires_grad for parameter in part.parameters())
        ]


class _Features(nn.Identity):
    """Backbone whose images are features already, one token each."""

    def forward_features(self, x: Tensor) -> Tensor:
        return x.unsqueeze(1)

    def forward_head(self, tokens: Tensor) -> Tensor:
        return tokens.squeeze(1)


def make_config(cls: type[Method], options: Mapping[str, Any]) -> Any:
    """Build a method's Config from a mapping; UnknownNameError for unknown keys.

    Example:
        >>> from fullrank.methods import METHODS
        >>> make_config(METHODS["byol"], {"tau_base": 0.9}).tau_base
        0.9
    """
    return cls.Config(**coerce(cls.Config, options, f"{cls.name} option"))


def build_method(
    name: str, backbone: nn.Module, feature_dim: int, options: Mapping[str, Any] | None = None
) -> Method:
    """Build a registered method around a backbone.

    Args:
        name: a key of `METHODS`.
        backbone: maps images [n, 3, S, S] to features [n, feature_dim].
        feature_dim: width of the features.
        options: keys of the method's `Config`; the rest keeps its defaults.

    Raises:
        UsageError: the method needs tokens, which the backbone does not have.

    Example:
        >>> from torch import zeros
        >>> method = build_method("simsiam", nn.Flatten(), 12, {"proj_output_dim": 8})
        >>> method.eval().embed(zeros(2, 3, 2, 2))["projector"].shape
        torch.Size([2, 8])
    """
    cls = METHODS[name]
    if cls.needs_tokens and not has_tokens(backbone):
        raise UsageError(f"{name} needs a backbone with tokens: take a timm model (vit_tiny_patch16_224)")
    config = make_config(cls, options or {})
    return cls(backbone, feature_dim, config.fit(feature_dim) if isinstance(config, MethodConfig) else config)


def check_views(views: Sized, at_least: int = 2) -> None:
    """Raise UsageError where a loss gets fewer views than it takes."""
    if len(views) < at_least:
        raise UsageError(f"this method compares views of an image: it needs {at_least}, got {len(views)}")
