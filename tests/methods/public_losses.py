"""Every public loss as a function of rows alone, for what holds of all of them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from fullrank.methods import info_nce, negative_cosine, nt_xent, over_pairs, regression_loss
from fullrank.methods._cplearn_loss import cplearn_loss
from fullrank.methods.barlow_twins import barlow_loss
from fullrank.methods.byol import byol_loss
from fullrank.methods.dino import dino_loss
from fullrank.methods.directclr import directclr_loss
from fullrank.methods.distill import distill_loss
from fullrank.methods.gedi import gedi_loss
from fullrank.methods.isoloss import isoloss_cosine, isoloss_euclidean
from fullrank.methods.lejepa import epps_pulley, lejepa_loss, random_directions, sigreg
from fullrank.methods.mocov3 import mocov3_loss
from fullrank.methods.simsiam import simsiam_loss
from fullrank.methods.swav import swav_loss
from fullrank.methods.teacher_student import teacher_student_loss
from fullrank.methods.vicreg import vicreg_loss
from fullrank.methods.wmse import wmse_loss
from fullrank.networks.codes import SignDictionary

DIM = 8
ELSEWHERE = {
    "covariance": "of rows that are gathered already",
    "variance": "likewise",
    "whiten": "likewise",
    "filtered_pair": "no loss: the rows that the RDM losses compare",
    "nearest": "no loss: rows of a queue",
    "random_directions": "no loss: random numbers",
}


def directions() -> Tensor:
    return random_directions(DIM, 6, seed=0).double()


LOSSES: dict[str, Callable[..., Tensor]] = {
    "barlow_loss": lambda a, b: barlow_loss([a, b])["loss"],
    "byol_loss": lambda a, b: byol_loss([a, b], [b, a]),
    "cplearn_loss": lambda a, b: cplearn_loss([a, b], SignDictionary(DIM, 16, seed=0), 0.3)["loss"],
    "dino_loss": lambda a, b: dino_loss([a, b], [b, a], torch.linspace(-1, 1, DIM, dtype=a.dtype)),
    "directclr_loss": lambda a, b: directclr_loss([a, b], [torch.arange(4), torch.arange(4, DIM)]),
    "distill_loss": lambda a, b: distill_loss(a, b),
    "epps_pulley": lambda a, b: epps_pulley(a @ directions()).mean() + epps_pulley(b).mean(),
    "gedi_loss": lambda a, b: gedi_loss([a, b])["loss"],
    "info_nce": lambda a, b: info_nce(a, b),
    "isoloss_cosine": lambda a, b: isoloss_cosine(a, b, (a * b).sum(1), b.flip(1)),
    "isoloss_euclidean": lambda a, b: isoloss_euclidean(a, b, b.flip(1)),
    "lejepa_loss": lambda a, b: lejepa_loss([a, b], directions())["loss"],
    "mocov3_loss": lambda a, b: mocov3_loss([a, b], [b, a]),
    "negative_cosine": lambda a, b: negative_cosine(a, b),
    "nt_xent": lambda a, b, index: nt_xent(torch.cat([a, b]), torch.cat([index, index])),
    "over_pairs": lambda a, b: over_pairs(negative_cosine, [a, b], [b, a]),
    "regression_loss": lambda a, b: regression_loss(a, b),
    "sigreg": lambda a, b: sigreg(torch.stack([a, b]), directions()).mean(),
    "simsiam_loss": lambda a, b: simsiam_loss([a, b], [b, a]),
    "swav_loss": lambda a, b: swav_loss([a, b], [b.softmax(1), a.softmax(1)]),
    "teacher_student_loss": lambda a, b: teacher_student_loss(a, b),
    "vicreg_loss": lambda a, b: vicreg_loss([a, b])["loss"],
    "wmse_loss": lambda a, b: wmse_loss([a, b]),
}


def inputs(name: str, rows: int) -> list[Tensor]:
    """Two views, float64 [rows, 8], and for a loss that asks which image is which their numbers."""
    generator = torch.Generator().manual_seed(len(name))
    a = torch.randn(rows, DIM, generator=generator, dtype=torch.float64)
    b = a + torch.randn(rows, DIM, generator=generator, dtype=torch.float64)
    return [a, b, torch.arange(rows)] if name == "nt_xent" else [a, b]


def public_functions(package: ModuleType) -> set[str]:
    """Names of all functions of a package's modules that are public and give tensors."""
    modules = [
        importlib.import_module(f"{package.__name__}.{found.name}")
        for found in pkgutil.iter_modules(package.__path__)
    ]
    return {
        name
        for module in modules
        for name, function in vars(module).items()
        if inspect.isfunction(function) and function.__module__ == module.__name__ and name[0] != "_"
        if inspect.signature(function).return_annotation in ("Tensor", "dict[str, Tensor]")
    }
