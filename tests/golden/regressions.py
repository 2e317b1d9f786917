"""SimSiam's and BYOL's losses, and the isotropic losses of independent arguments."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from fullrank.methods import negative_cosine, regression_loss
from fullrank.methods.byol import byol_loss
from fullrank.methods.isoloss import isoloss_cosine, isoloss_euclidean
from fullrank.methods.simsiam import simsiam_loss
from golden.case import Case, comparer

SHORT = 1e-8  # the norm below which the two ways to write a cosine differ


@comparer("01_simsiam_byol")
def losses(case: Case) -> None:
    p1, p2, z2 = case.inputs("p1", "p2", "z2")
    case.settings.expect("n", len(p1))
    case.settings.expect("d", p1.shape[1])
    pair = {"p1": p1, "p2": p2}
    if "in.z1" in case.arrays:
        (z1,) = case.inputs("z1")
        case.check_gradients("simsiam_symmetric", simsiam_loss([p1, p2], [z1, z2]), **pair)
        case.check_gradients("byol_sum_of_views", byol_loss([p1, p2], [z1, z2]), **pair)
        case.check("out.z_std_simsiam", F.normalize(z1, dim=1).std(dim=0).mean())
    case.check_gradients("byol_l2_one_way", regression_loss(p1, z2, "euclidean"), p1=p1)
    forms = ["True", "False"]  # ours is the first, cosine_similarity; the second divides by norms first
    if min(p1.norm(dim=1).min(), z2.norm(dim=1).min()) < SHORT:
        forms = ["True"]
    for form in forms:
        case.check_gradients(f"simsiam_one_way_simplified_{form}", negative_cosine(p1, z2.detach()), p1=p1)
        case.check_gradients(f"byol_one_way_simplified_{form}", regression_loss(p1, z2), p1=p1)
    case.check("alt.byol_stable_pretraining", regression_loss(p1, z2))
    free = 2.0 + 2.0 * negative_cosine(p1, z2)  # with gradient to the target
    case.check("alt.byol_ncs_one_way", free)
    for name, gradient in zip("xy", torch.autograd.grad(free, (p1, z2)), strict=True):
        case.check(f"alt.byol_ncs_grad_{name}", gradient)


@comparer("03_isoloss")
def isoloss(case: Case) -> None:
    p, psqrt, z, zt = case.inputs("p", "psqrt", "z", "zt")
    case.settings.expect("n", len(z))
    case.settings.expect("d", z.shape[1])
    arguments = {"z": z, "psqrt": psqrt, "p": p, "zt": zt}
    case.check_gradients("cos", isoloss_cosine(z, p, psqrt.square().sum(dim=1), zt), **arguments)
    case.check_gradients("l2", isoloss_euclidean(z, p, zt), **arguments)
