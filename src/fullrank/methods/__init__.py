"""Methods: one file each, found by name.

>>> sorted(METHODS)[:2]
['barlow_twins', 'byol']
"""

import pkgutil
from importlib import import_module

from fullrank.methods._base import (
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

for _found in pkgutil.iter_modules(__path__):  # a file is enough
    if not _found.name.startswith("_"):
        import_module(f"fullrank.methods.{_found.name}")
