"""DINO: a student matches its moving average's sharpened and centred distribution over prototypes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods._base import ParamGroup, Step, register
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod, over_pairs
from fullrank.networks.heads import mlp
from fullrank.networks.precision import in_full_precision
from fullrank.networks.prototypes import Prototypes
from fullrank.networks.soft_targets import cross_entropy, move_centre, sharpen

__all__ = ["DINO", "dino_loss", "teacher_temperature"]


def _distance(p: Tensor, z: Tensor, student_temperature: float, temperature: float, centre: Tensor) -> Tensor:
    """One pair of views: the cross-entropy of the teacher's distribution and the student's."""
    return cross_entropy(p, sharpen(z.detach(), temperature, centre), student_temperature)


def dino_loss(
    p: Sequence[Tensor],
    z: Sequence[Tensor],
    centre: Tensor,
    *,
    student_temperature: float = 0.1,
    temperature: float = 0.07,
) -> Tensor:
    """Mean over pairs of views a != b of the cross-entropy of teacher b and student a (equation 2).

    Args:
        p: per view, the student's logits [n, K].
        z: of the first views or of all, the teacher's logits [n, K], detached here.
        centre: c [1, K], what is taken from the teacher's logits.
        student_temperature: of the student's softmax.
        temperature: of the teacher's.

    Example:
        >>> same = [torch.zeros(2, 4)] * 2
        >>> round(dino_loss(same, same, torch.zeros(1, 4)).item(), 4)  # log 4
        1.3863
    """
    compare = partial(
        _distance, student_temperature=student_temperature, temperature=temperature, centre=centre
    )
    return over_pairs(compare, dict(enumerate(p)), dict(enumerate(z)))


def teacher_temperature(epoch: int, base: float, warmup: float, warmup_epochs: int) -> float:
    """The teacher's temperature in an epoch: in equal steps from `warmup` to `base`, then `base`.

    Example:
        >>> [round(teacher_temperature(epoch, 0.07, 0.04, 3), 3) for epoch in range(4)]
        [0.04, 0.055, 0.07, 0.07]
    """
    if epoch >= warmup_epochs:
        return base
    return warmup + (base - warmup) * epoch / max(warmup_epochs - 1, 1)


@register("dino")
class DINO(MomentumMethod):
    """DINO (Caron et al., "Emerging Properties in Self-Supervised Vision Transformers", 2104.14294).

    Student and teacher, its moving average, end in a bottleneck of length one and a weight-normalised layer
    of prototypes. The student's distribution over prototypes meets the teacher's for another view (equation 2
    and algorithm 1); small crops pass the student only.

    What keeps it from collapse: two opposite forces on the teacher. Its logits are centred with a running
    mean, so that no prototype takes all, and sharpened with a low temperature, so that not all take the same;
    its parameters move slowly and get no gradient.

    Where reference and paper differ: projections have 256 dimensions before 4096 prototypes (paper: 65536),
    the head has no BN, and the teacher runs in training mode with BN statistics of its own (solo-learn).

    Taps: backbone, projector (the bottleneck, of length one), codes (logits), target (the teacher's
    bottleneck).
    """

    paper, year = "2104.14294", 2021
    mechanism = "centred and sharpened momentum target"

    @dataclass(frozen=True)
    class Config(MomentumConfig):
        """Knobs of DINO; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's two hidden layers.
            proj_output_dim: d, width of the bottleneck.
            num_prototypes: K.
            use_bn_in_head: BN after the projector's hidden layers.
            norm_last_layer: prototypes keep length one; else their lengths are trained.
            freeze_last_layer: epochs in which the prototypes do not move.
            student_temperature: of the student's softmax.
            teacher_temperature: of the teacher's, after its warm-up.
            warmup_teacher_temperature: the one that the warm-up starts with.
            warmup_teacher_temperature_epochs: epochs of the warm-up, in equal steps.
            centre_momentum: of the running mean of the teacher's logits, in [0, 1]; 1 is no centre.
            tau_base: averaging coefficient of the teacher at the start, in [0, 1].
            tau_final: the same at the end, in [0, 1].
            target_update: as in `MomentumConfig`.
            mean_encoding: as in `TwoBranchConfig`, of logits.
        """

        tau_base: float = 0.9995
        proj_hidden_dim: int = 2048
        proj_output_dim: int = 256
        num_prototypes: int = 4096
        use_bn_in_head: bool = False
        norm_last_layer: bool = True
        freeze_last_layer: int = 1
        student_temperature: float = 0.1
        teacher_temperature: float = 0.07
        warmup_teacher_temperature: float = 0.04
        warmup_teacher_temperature_epochs: int = 0
        centre_momentum: float = 0.9

        def __post_init__(self) -> None:
            super().__post_init__()
            for name in ("freeze_last_layer", "warmup_teacher_temperature_epochs"):
                self.need(getattr(self, name) >= 0, name, "is 0 or more")

    config: Config
    centre: Tensor

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        hidden, d = config.proj_hidden_dim, config.proj_output_dim
        widths = [feature_dim, hidden, hidden, d]
        self.projector = mlp(widths, hidden_bias=True, hidden_bn=config.use_bn_in_head, activation=nn.GELU)
        for layer in self.projector:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        self.prototypes = Prototypes(d, config.num_prototypes, train_gain=not config.norm_last_layer)
        self.register_buffer("centre", torch.zeros(1, config.num_prototypes))
        self.make_target("backbone", "projector", "prototypes")

    @property
    def code_temperature(self) -> float:
        """The temperature of the scores."""
        return self.config.student_temperature

    @classmethod
    def defaults(cls, image_size: int) -> Mapping[str, Any]:
        """The reference's; CIFAR and the larger sets differ in views."""
        return {
            "optimizer": "lars",
            "lr": 0.3,
            "weight_decay": 1e-6,
            "lars_eta": 0.02,
            "lars_clip": True,
            "lars_exclude_1d": True,
            "warmup_epochs": -1.0,
            "views": "asymmetric" if image_size <= 64 else "asymmetric-imagenet",
        }

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean cross-entropy over pairs; the student's pass first."""
        config = self.config
        student = {a: self._student(views[a]) for a in self.sources(views)}
        bottlenecks = self.encode_targets(views)
        with torch.no_grad():
            z = {b: _scores(self.target["prototypes"], y) for b, y in bottlenecks.items()}
        compare = partial(
            _distance,
            student_temperature=config.student_temperature,
            temperature=self.temperature,
            centre=self.centre,  # moved only after this
        )
        p = {a: taps["codes"] for a, taps in student.items()}
        loss = over_pairs(compare, p, z, mean_encoding=config.mean_encoding)
        if self.training:
            move_centre(self.centre, z.values(), config.centre_momentum)
        first = next(iter(student))
        return Step(
            loss, {**student[first], "target": bottlenecks.get(first, next(iter(bottlenecks.values())))}
        )

    @property
    def temperature(self) -> float:
        """The teacher's temperature in this epoch."""
        c = self.config
        return teacher_temperature(
            self.when.epoch,
            c.teacher_temperature,
            c.warmup_teacher_temperature,
            c.warmup_teacher_temperature_epochs,
        )

    def encode_target(self, x: Tensor) -> Tensor:
        """Images [n, 3, S, S] to the teacher's bottleneck [n, d], of length one."""
        return F.normalize(self.target["projector"](self.target["backbone"](x)), dim=1)

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], bottleneck [n, d], logits [n, K], teacher's bottleneck [n, d]."""
        return {**self._student(x), "target": self.encode_target(x)}

    def _student(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        y = F.normalize(self.projector(h), dim=1)
        return {"backbone": h, "projector": y, "codes": _scores(self.prototypes, y)}

    def after_backward(self) -> None:
        """Takes the gradient from prototypes that are still frozen: no decay, no momentum, no step."""
        if self.when.epoch < self.config.freeze_last_layer:
            for parameter in self.prototypes.parameters():
                parameter.grad = None

    def param_groups(self) -> list[ParamGroup]:
        """Backbone, projector, prototypes; the teacher has no gradient."""
        return self.groups("backbone", "projector", "prototypes")


@in_full_precision
def _scores(prototypes: nn.Module, y: Tensor) -> Tensor:
    scores: Tensor = prototypes(y)  # not rounded to half precision: low temperatures divide them
    return scores
