"""SwAV and DINO against their references."""

from __future__ import annotations

import re

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fullrank.methods.dino import dino_loss, teacher_temperature
from fullrank.methods.swav import swav_loss
from fullrank.networks.soft_targets import Prototypes, move_centre, sinkhorn
from golden.harness import Case, answers, comparer


@comparer("06c_swav")
def swav(case: Case) -> None:
    z1, z2, v = case.inputs("z1", "z2", "prototypes")
    prototypes = Prototypes(16, 20).to(case.dtype)
    scores = [functional_call(prototypes, {"v": v}, F.normalize(z, dim=1)) for z in (z1, z2)]
    inputs = {"z1": z1, "z2": z2, "prototypes": v, "scores1": scores[0], "scores2": scores[1]}
    for number, score in enumerate(scores, 1):
        case.check(f"out.scores{number}", score)
    for name in case.arrays:
        if found := re.fullmatch(r"out\.assign(\d)_it(\d+)_eps([\d.]+)", name):
            view, iterations, epsilon = found.groups()
            case.check(name, sinkhorn(scores[int(view) - 1], float(epsilon), int(iterations)))
        if found := re.fullmatch(r"out\.(loss_it(\d+)_eps([\d.]+)_temp([\d.]+))", name):
            output, iterations, epsilon, temperature = found.groups()
            q = [sinkhorn(score, float(epsilon), int(iterations)) for score in scores]
            loss = swav_loss(scores, q, float(temperature))
            case.check(name, loss)
            if f"grad.{output}/z1" in case.arrays:
                case.check_gradients(output, loss, **inputs)
    together = sinkhorn(torch.cat(scores), 0.05, 3).chunk(2)
    case.check("alt.stable_pretraining_loss_joint_sinkhorn", swav_loss(scores, together, 0.1).float())


@comparer("06d_dino")
def dino(case: Case) -> None:
    given = case.settings
    schedule = [
        teacher_temperature(
            epoch, given["teacher_temp"], given["warmup_teacher_temp"], given["warmup_teacher_temp_epochs"]
        )
        for epoch in range(given["num_epochs"])
    ]
    case.check("out.teacher_temp_schedule", schedule)
    (student,) = case.inputs("student")
    centre = torch.zeros(1, given["prototypes"], dtype=case.dtype)
    for step, epoch, teacher in ((1, 0, "teacher_step1"), (2, 0, "teacher_step2"), (3, 7, "teacher_step1")):
        z: list[Tensor] = list(case.tensor(f"in.{teacher}").chunk(2))
        loss = dino_loss(
            student.chunk(2),
            z,
            centre,
            student_temperature=given["student_temp"],
            temperature=schedule[epoch],
        )
        case.check_gradients(f"loss_step{step}_epoch{epoch}", loss, student=student)
        move_centre(centre, z, given["center_momentum"])
        case.check(f"out.center_after_step{step}", centre)


answers("swav", "swav", dict)
answers("swav_queue", "swav", dict)
answers(
    "dino",
    "dino",
    lambda given: {key: value for key, value in given.items() if key != "clip_grad"},
    first="codes",
)
