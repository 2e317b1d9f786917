"""Methods: one file each, found by name.

>>> sorted(METHODS)[:2]
['barlow_twins', 'byol']
"""

from importlib import import_module

from fullrank.methods.base import (
    METHODS,
    Method,
    MethodConfig,
    ParamGroup,
    Step,
    StepInfo,
    build_method,
    coerce,
    make_config,
    register,
)

__all__ = [
    "METHODS",
    "Method",
    "MethodConfig",
    "ParamGroup",
    "Step",
    "StepInfo",
    "build_method",
    "coerce",
    "make_config",
    "register",
]

# the five lines of work, then what they are compared with
for _name in (
    "simsiam", "nnsiam", "byol", "directpred", "directcopy", "isoloss", "rdm_simsiam", "rdm_byol", "cplearn",
    "gedi", "teacher_student", "distill",
    "barlow_twins", "vicreg", "swav", "dino", "wmse", "simclr", "mocov3", "directclr", "lejepa",
):  # fmt: skip
    import_module(f"fullrank.methods.{_name}")
