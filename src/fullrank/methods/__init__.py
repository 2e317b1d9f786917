"""Methods: one file each, found by name.

>>> sorted(METHODS)[:2]
['byol', 'simsiam']
"""

from fullrank.methods import byol, simsiam
from fullrank.methods.base import (
    METHODS,
    Method,
    ParamGroup,
    Step,
    build_method,
    make_config,
    register,
    typed,
)

__all__ = ["METHODS", "Method", "ParamGroup", "Step", "build_method", "make_config", "register", "typed"]

del byol, simsiam
