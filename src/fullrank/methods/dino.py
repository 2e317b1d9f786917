"""DINO: a student matches its average's distribution over prototypes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.methods._base import SMALL_BATCH_ADAM, SOLO_LARS, PerView, Step, ViewPairs, register
from fullrank.methods._config import follow_backbone
from fullrank.methods._fixed_points import UNIFORM_CODES, FixedPoint
from fullrank.methods._two_branch import MomentumConfig, MomentumMethod, over_pairs
from fullrank.networks.heads import mlp
from fullrank.networks.soft_targets import Prototypes, cross_entropy, move_centre, prototype_scores, sharpen


def dino_loss(
    p: PerView,
    z: PerView,
    centre: Tensor,
    *,
    student_temperature: float = 0.1,
    temperature: float = 0.07,
    view_pairs: ViewPairs = ViewPairs(),
) -> Tensor:
    """Mean cross-entropy of teacher b and student a over views a != b (equation 2).

    Args:
        p: the student's logits [n, K] by view.
        z: the teacher's logits [n, K], of the first views or of all, detached here.
        centre: c [1, K], which is subtracted from the teacher's logits.
        student_temperature: of the student's softmax.
        temperature: of the teacher's.
        view_pairs: see `ViewPairs`.

    Example:
        >>> same = [torch.zeros(2, 4)] * 2
        >>> round(dino_loss(same, same, torch.zeros(1, 4)).item(), 4)  # log 4
        1.3863
    """

    def distance(student: Tensor, teacher: Tensor) -> Tensor:
        return cross_entropy(student, sharpen(teacher.detach(), temperature, centre), student_temperature)

    return over_pairs(distance, p, z, view_pairs)


def teacher_temperature(epoch: int, base: float, warmup: float, warmup_epochs: int) -> float:
    """Teacher's temperature in an epoch: equal steps from `warmup` to `base`.

    Example:
        >>> [round(teacher_temperature(epoch, 0.07, 0.04, 3), 3) for epoch in range(4)]
        [0.04, 0.055, 0.07, 0.07]
    """
    if epoch >= warmup_epochs:
        return base
    return warmup + (base - warmup) * epoch / max(warmup_epochs - 1, 1)


@register("dino")
class DINO(MomentumMethod):
    """DINO (Caron et al., 2104.14294): self-distillation without labels.

    Student and teacher, its moving average, end in a bottleneck of length one and a weight-normalised layer
    of prototypes. The student's distribution over prototypes meets the teacher's for another view (equation 2
    and algorithm 1); small crops pass the student only.

    What keeps it from collapse: two opposite forces on the teacher. Its logits are centred with a running
    mean, so that no prototype takes all, and sharpened with a low temperature, so that not all take the same;
    its parameters move slowly and get no gradient.

    Where reference and paper differ: projections have 256 dimensions before 4096 prototypes (paper: 65536),
    the head has no BN, and the teacher runs in training mode with BN statistics of its own (solo-learn).

    Taps: backbone, projector (bottleneck of length one), codes (logits), target (teacher's bottleneck).
    """

    paper, year = "2104.14294", 2021
    mechanism = "centred and sharpened momentum target"
    # The reference's; CIFAR and the larger sets differ in views.
    compares_batch = False
    small_image_defaults = SOLO_LARS | {"weight_decay": 1e-6}
    small_batch_defaults = SMALL_BATCH_ADAM | {"optimizer": "adamw", "lr": 1e-3}
    fixed_points = (
        FixedPoint(
            "uniform over codes",
            "ln K",
            lambda at: math.log(at.config.num_prototypes),
            ("uniform-assignment", "complete"),
            UNIFORM_CODES,
        ),
    )

    @dataclass(frozen=True)
    class Config(MomentumConfig):
        """Options of DINO; the defaults are the reference's.

        Attributes:
            proj_hidden_dim: width of the projector's hidden layers; 0: 2048, less for narrow backbones.
            proj_output_dim: d, width of the bottleneck; 0: 256, less for narrow backbones.
            num_prototypes: K.
            use_bn_in_head: BN after the projector's hidden layers.
            norm_last_layer: prototypes keep length one; else their lengths are trained.
            freeze_last_layer: epochs in which the prototypes do not move.
            student_temperature: of the student's softmax.
            teacher_temperature: of the teacher's, after its warm-up.
            warmup_teacher_temperature: the one that the warm-up starts with.
            warmup_teacher_temperature_epochs: epochs of the warm-up, in equal steps.
            centre_momentum: of the running mean of the teacher's logits, in [0, 1]; 1 is no centre.
        """

        not_negative = ("freeze_last_layer", "warmup_teacher_temperature_epochs")
        tau_base: float = 0.9995
        proj_hidden_dim: int = follow_backbone(2048)
        num_prototypes: int = 4096
        use_bn_in_head: bool = False
        norm_last_layer: bool = True
        freeze_last_layer: int = 1
        student_temperature: float = 0.1
        teacher_temperature: float = 0.07
        warmup_teacher_temperature: float = 0.04
        warmup_teacher_temperature_epochs: int = 0
        centre_momentum: float = 0.9

    @classmethod
    def option_defaults(cls, batch: int, named: Collection[str]) -> Mapping[str, tuple[Any, str]]:
        """See `Method.option_defaults`."""
        if batch >= 256:
            return {}
        steadier = {"use_bn_in_head": True, "teacher_temperature": 0.04}
        why = "small batches collapse less with them"
        return {name: (value, why) for name, value in steadier.items() if name not in named}

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
        self.code_temperature = config.student_temperature

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views [n, 3, S, S] to the mean cross-entropy over pairs, students first."""
        config = self.config
        taps, p, bottlenecks = self.encode_branches(views, "codes")
        with torch.no_grad():
            z = {b: prototype_scores(self.target["prototypes"], y) for b, y in bottlenecks.items()}
        temperatures = {"student_temperature": config.student_temperature, "temperature": self.temperature}
        loss = dino_loss(p, z, self.centre, **temperatures, view_pairs=self.view_pairs())
        if self.training:
            move_centre(self.centre, z.values(), config.centre_momentum)
        return Step(loss, taps)

    @property
    def temperature(self) -> float:
        """The teacher's temperature in this epoch."""
        c = self.config
        warmup, epochs = c.warmup_teacher_temperature, c.warmup_teacher_temperature_epochs
        return teacher_temperature(self.info.epoch, c.teacher_temperature, warmup, epochs)

    def encode_target(self, x: Tensor) -> Tensor:
        """Images [n, 3, S, S] to the teacher's bottleneck [n, d], of length one."""
        return F.normalize(self.target["projector"](self.target["backbone"](x)), dim=1)

    def encode_source(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], bottleneck [n, d] and logits [n, K]."""
        h = self.backbone(x)
        y = F.normalize(self.projector(h), dim=1)
        return {"backbone": h, "projector": y, "codes": prototype_scores(self.prototypes, y)}

    def after_backward(self) -> None:
        """Drop the gradient of frozen prototypes: no decay, no momentum, no step."""
        if self.info.epoch < self.config.freeze_last_layer:
            self.prototypes.zero_grad()
