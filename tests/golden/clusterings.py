"""SwAV and DINO against their references."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from fullrank.methods.dino import dino_loss, teacher_temperature
from fullrank.methods.swav import swav_loss
from fullrank.networks.soft_targets import Prototypes, move_centre, sinkhorn
from golden.case import Case, comparer
from golden.invariances import found_in
from golden.predictors import NUMBER


@comparer("06c_swav")
def swav(case: Case) -> None:
    z1, z2, v = case.inputs("z1", "z2", "prototypes")
    given = case.settings
    for key, size in (("n", len(z1)), ("d", v.shape[1]), ("prototypes", len(v))):
        given.expect(key, size)
    prototypes = Prototypes(v.shape[1], len(v)).to(case.dtype)
    scores = [functional_call(prototypes, {"v": v}, F.normalize(z, dim=1)) for z in (z1, z2)]
    inputs = {"z1": z1, "z2": z2, "prototypes": v, "scores1": scores[0], "scores2": scores[1]}
    for number, score in enumerate(scores, 1):
        case.check(f"out.scores{number}", score)
    for name, found in found_in(case, "out.", rf"assign([12])_it(\d+)_eps({NUMBER})"):
        case.check(f"out.{name}", sinkhorn(scores[int(found[1]) - 1], float(found[3]), int(found[2])))
    for name, found in found_in(case, "out.", rf"loss_it(\d+)_eps({NUMBER})_temp({NUMBER})"):
        q = [sinkhorn(score, float(found[2]), int(found[1])) for score in scores]
        case.check_gradients(name, swav_loss(scores, q, float(found[3])), **inputs)
    # the variant's name has no options: they are those of the settings
    epsilon, iterations, temperature = (
        given.get(key, default) for key, default in (("epsilon", 0.05), ("sk_iters", 3), ("temperature", 0.1))
    )
    together = sinkhorn(torch.cat(scores), epsilon, iterations).chunk(2)
    case.check("alt.stable_pretraining_loss_joint_sinkhorn", swav_loss(scores, together, temperature))


@comparer("06d_dino")
def dino(case: Case) -> None:
    given = case.settings
    warmup = given["teacher_temp"], given["warmup_teacher_temp"], given["warmup_teacher_temp_epochs"]
    epochs = given.get("num_epochs", len(case.arrays.get("out.teacher_temp_schedule", ())))
    case.check("out.teacher_temp_schedule", [teacher_temperature(e, *warmup) for e in range(epochs)])
    teachers = case.names("in.teacher_step")
    codes = case.tensor(f"in.teacher_step{teachers[0]}").shape[1]
    given.expect("prototypes", codes)
    crops = given.get("num_large_crops", given.get("num_crops", 2))
    centre = (
        case.tensor("in.center") if "in.center" in case.arrays else torch.zeros(1, codes, dtype=case.dtype)
    )
    steps = sorted(found_in(case, "out.", r"loss_step(\d+)_epoch(\d+)"), key=lambda pair: int(pair[1][1]))
    for turn, (name, found) in enumerate(steps):
        step, epoch = int(found[1]), int(found[2])
        # a call without logits of its own takes up the first ones again
        own = f"{step}" if f"{step}" in teachers else teachers[turn % len(teachers)]
        z: list[Tensor] = list(case.tensor(f"in.teacher_step{own}").chunk(2))
        given.expect("n", len(z[0]))
        (student,) = case.inputs(
            f"student_step{step}" if f"in.student_step{step}" in case.arrays else "student"
        )
        loss = dino_loss(
            student.chunk(crops),
            z,
            centre,
            student_temperature=given["student_temp"],
            temperature=teacher_temperature(epoch, *warmup),
        )
        case.check_gradients(name, loss, student=student)
        move_centre(centre, z, given["center_momentum"])
        case.check(f"out.center_after_step{step}", centre)
