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
    When,
    build_method,
    make_config,
    register,
    typed,
)

__all__ = [
    "METHODS",
    "Method",
    "MethodConfig",
    "ParamGroup",
    "Step",
    "When",
    "build_method",
    "make_config",
    "register",
    "typed",
]

# the five lines of work, then what they are compared with
for _name in (
    "simsiam", "nnsiam", "byol", "directpred", "directcopy", "isoloss", "rdm_simsiam", "rdm_byol", "cplearn",
    "gedi", "teacher_student", "distill",
    "barlow_twins", "vicreg", "swav", "dino", "wmse", "simclr", "mocov3", "directclr", "lejepa",
):  # fmt: skip
    import_module(f"fullrank.methods.{_name}")
