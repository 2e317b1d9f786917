"""Teacher and student: which teachers keep a student from collapse."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from fullrank.errors import UsageError
from fullrank.methods._base import Step, StepInfo, register
from fullrank.methods._config import follow_backbone
from fullrank.methods._fixed_points import CONSTANT, UNIFORM_CODES, FixedPoint
from fullrank.methods._two_branch import TwoBranchConfig, TwoBranchMethod, over_pairs, with_target
from fullrank.networks.backbones import features_and_tokens, reinitialized
from fullrank.networks.momentum import cosine_tau, update_momentum
from fullrank.networks.soft_targets import cross_entropy, move_centre, sharpen


def teacher_student_loss(
    student: Tensor,
    teacher: Tensor,
    *,
    student_temperature: float = 1.0,
    teacher_temperature: float = 1.0,
    centre: Tensor | None = None,
) -> Tensor:
    """Mean cross-entropy over tokens of teacher's and student's softmax, in nats.

    Of logits [tokens, K] of the same tokens in two views; a centre [1, K] is subtracted from the teacher's.
    Gradient flows into both arguments; detach the teacher's to stop it there.

    Example:
        >>> round(teacher_student_loss(torch.zeros(3, 4), torch.zeros(3, 4)).item(), 4)  # log 4
        1.3863
    """
    return cross_entropy(student, sharpen(teacher, teacher_temperature, centre), student_temperature)


DINO_TEACHER: dict[str, Any] = {
    "teacher": "ema",
    "independent_init": False,
    "symmetric": True,
    "centring": True,
    "student_temperature": 0.1,
    "teacher_temperature": 0.04,
}


@register("teacher_student")
class TeacherStudent(TwoBranchMethod):
    """Teachers of the SSL collapse tutorial (2025), and DINO's remedies.

    Student and teacher are networks of one shape, each with a head on every patch token. The student's
    distribution over K outputs meets the teacher's at the same place of another view. Where a backbone has no
    tokens, its pooled features are the one token. The tutorial's regimes are `teacher`: trained (A), frozen
    (B) and copied at the end of each epoch (C, the default); DINO's (2104.14294) average, `ema`, is mentioned
    there.

    What keeps it from collapse: in regime A nothing, the loss falls to zero. A frozen teacher cannot join, so
    that the loss stops at what its outputs have in common with other views; a copied or averaged one follows
    later, and no gradient makes it agree.

    Where reference and paper differ: there is no paper. Here the pairs of views come from one image instead
    of two loaders, batches are shuffled, and `teacher_eval`, temperatures, the centre and the symmetric form
    are added.

    Taps: backbone, projector (the head's output, mean over an image's tokens), target (the teacher's).
    """

    paper, year = "SSL collapse tutorial", 2025
    mechanism = "a teacher without gradient: frozen, copied or averaged"
    # The tutorial's; it has no other for large images.
    compares_batch = False
    small_image_defaults = {
        "optimizer": "adamw",
        "lr": 1e-3,
        "lr_scaling": "none",
        "weight_decay": 0.01,
        "schedule": "constant",
        "batch_size": 128,
        "views": "tutorial",
    }
    small_batch_defaults = small_image_defaults
    fixed_points = (
        FixedPoint(
            "uniform over codes",
            "ln K",
            lambda at: math.log(at.config.proj_output_dim),
            ("uniform-assignment", "complete"),
            UNIFORM_CODES,
        ),
        FixedPoint(
            "all on one code",
            "0",
            lambda at: None if at.config.centring else 0.0,
            ("complete", "cluster"),
            CONSTANT,
        ),
    )

    @dataclass(frozen=True)
    class Config(TwoBranchConfig):
        """Options of teacher and student; the defaults are the tutorial's regime C.

        Attributes:
            proj_hidden_dim: width of the head's two hidden layers; 0: 2048, less for narrow backbones.
            proj_output_dim: K, what the softmax is over; 0: 128, less for narrow backbones.
            dropout: share of the head's hidden values that is dropped in training (the tutorial: 0.1).
            teacher: `trained` by gradient as the student is, `frozen` as it was initialised, `copied` from
                the student from time to time, or its moving average, `ema`.
            copy_every: steps or epochs between copies.
            copy_unit: which of the two.
            tau_base: averaging coefficient of `ema` at the start, in [0, 1].
            tau_final: the same at the end, in [0, 1], reached along a cosine.
            independent_init: the teacher is initialised by itself; else it starts as the student's copy. One
                that is copied or averaged has the student's backbone all the same where a run starts from
                weights that exist.
            teacher_eval: the teacher runs in evaluation mode, without dropout and with BN's running
                statistics (with BN, a frozen teacher is a fixed function only so).
            symmetric: every view passes both networks. Otherwise, unless the views have roles, the teacher
                sees the last and the student all others.
            student_temperature: of the student's softmax (DINO: 0.1).
            teacher_temperature: of the teacher's (DINO: 0.04 to 0.07).
            centring: takes a running mean of the teacher's logits from them, as DINO does.
            centre_momentum: of that mean, in [0, 1].
        """

        positive, below_one = ("copy_every",), ("dropout",)
        proj_output_dim: int = follow_backbone(128)
        dropout: float = 0.0
        teacher: Literal["trained", "frozen", "copied", "ema"] = "copied"
        copy_every: int = 1
        copy_unit: Literal["steps", "epochs"] = "epochs"
        tau_base: float = 0.996
        tau_final: float = 1.0
        independent_init: bool = True
        teacher_eval: bool = False
        symmetric: bool = False
        student_temperature: float = 1.0
        teacher_temperature: float = 1.0
        centring: bool = False
        centre_momentum: float = 0.9

    @classmethod
    def option_defaults(cls, batch: int, named: Collection[str]) -> Mapping[str, tuple[Any, str]]:
        """See `Method.option_defaults`."""
        if "teacher" in named:
            return {}
        why = "DINO's teacher: those of the tutorial's regimes are there to collapse"
        return {name: (value, why) for name, value in DINO_TEACHER.items() if name not in named}

    config: Config
    centre: Tensor

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        hidden, drop = config.proj_hidden_dim, config.dropout
        self.projector = nn.Sequential(
            nn.Linear(feature_dim, hidden), nn.ReLU(), nn.Dropout(drop),
            nn.Linear(hidden, hidden), nn.Dropout(drop),
            nn.Linear(hidden, config.proj_output_dim),
        )  # fmt: skip
        other = reinitialized if config.independent_init else copy.deepcopy
        self.target = nn.ModuleDict({"backbone": other(backbone), "projector": other(self.projector)})
        if config.teacher != "trained":
            self.target.requires_grad_(False)
        self.register_buffer("centre", torch.zeros(1, config.proj_output_dim))
        self.eval_parts = ("target",) if config.teacher_eval else ()
        self.train()

    def sources(self, views: Sequence[Tensor]) -> list[int]:
        """The views that the student sees."""
        sources = super().sources(views)
        return sources if self._both_ways else [a for a in sources if a not in self.targets(views)]

    def targets(self, views: Sequence[Tensor]) -> list[int]:
        """The views that the teacher sees."""
        targets = super().targets(views)
        return targets if self._both_ways else targets[-1:]

    @property
    def _both_ways(self) -> bool:
        return self.config.symmetric or bool(set(self.roles) - {"both"})

    @property
    def target_follows(self) -> bool:
        """A teacher that starts as the student's copy, or becomes one."""
        return self.config.teacher in ("copied", "ema") or not self.config.independent_init

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to the mean cross-entropy over pairs and tokens."""
        config = self.config
        student = {a: self._encode(self, views[a]) for a in self.sources(views)}
        with torch.set_grad_enabled(torch.is_grad_enabled() and config.teacher == "trained"):
            teacher = {b: self._encode(self.target, views[b]) for b in self.targets(views)}
        counts = {logits.shape[1] for _, logits in (*student.values(), *teacher.values())}
        if len(counts) > 1:
            raise UsageError(
                f"teacher_student compares token by token, and views came with {sorted(counts)} tokens: take "
                "views of one size, or a backbone that pools (resnet8-w32 and its like)"
            )
        p, z = ({v: logits.flatten(0, 1) for v, (_, logits) in side.items()} for side in (student, teacher))
        compare = partial(
            teacher_student_loss,
            student_temperature=config.student_temperature,
            teacher_temperature=config.teacher_temperature,
            centre=self.centre,  # moved only after this
        )
        loss = over_pairs(compare, p, z, self.view_pairs())
        if self.training and config.centring:
            move_centre(self.centre, z.values(), config.centre_momentum)
        taps = {a: {"backbone": h, "projector": logits.mean(dim=1)} for a, (h, logits) in student.items()}
        return Step(loss, with_target(taps, {b: logits.mean(dim=1) for b, (_, logits) in teacher.items()}))

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F] and both heads' mean outputs [n, K]."""
        (h, logits), (_, others) = self._encode(self, x), self._encode(self.target, x)
        return {"backbone": h, "projector": logits.mean(dim=1), "target": others.mean(dim=1)}

    def _encode(self, branch: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        h, tokens = features_and_tokens(branch.backbone, x, self.feature_dim)
        return h, branch.projector(tokens)

    def after_step(self, info: StepInfo) -> None:
        """Copy or average the student into the teacher, when it is time."""
        config, done = self.config, info.step + 1
        every = config.copy_every * (info.steps_per_epoch if config.copy_unit == "epochs" else 1)
        tau = cosine_tau(config.tau_base, config.tau_final, info.progress)
        for name, part in self.target.items():
            if config.teacher == "ema":
                update_momentum(part, getattr(self, name), tau)
            elif config.teacher == "copied" and done % every == 0:
                part.load_state_dict(getattr(self, name).state_dict())
