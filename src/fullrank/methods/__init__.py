"""Methods: one file each, found by name; and all that the author of another one needs.

>>> sorted(METHODS)[:2]
['barlow_twins', 'byol']
"""

import pkgutil
from importlib import import_module

from fullrank.methods._base import (
    METHODS,
    SIMSIAM_SGD,
    SOLO_LARS,
    Method,
    MethodConfig,
    ParamGroup,
    ProjectorConfig,
    Step,
    StepInfo,
    build_method,
    check_views,
    coerce,
    make_config,
    register,
)
from fullrank.methods._contrast import info_nce, nt_xent
from fullrank.methods._one_branch import OneBranchMethod, unordered_pairs
from fullrank.methods._spectral import FilterConfig, filtered_pair
from fullrank.methods._two_branch import (
    ALL_PAIRS,
    MomentumConfig,
    MomentumMethod,
    PerView,
    TwoBranchConfig,
    TwoBranchMethod,
    ViewPairs,
    negative_cosine,
    over_pairs,
    regression_loss,
    small_crops,
    step_of,
    tap_of,
)
from fullrank.networks.heads import mlp
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import gather_rows, mean_over_processes

__all__ = [
    "ALL_PAIRS",
    "METHODS",
    "SIMSIAM_SGD",
    "SOLO_LARS",
    "FilterConfig",
    "Method",
    "MethodConfig",
    "MomentumConfig",
    "MomentumMethod",
    "OneBranchMethod",
    "ParamGroup",
    "PerView",
    "ProjectorConfig",
    "Step",
    "StepInfo",
    "TwoBranchConfig",
    "TwoBranchMethod",
    "ViewPairs",
    "build_method",
    "check_views",
    "coerce",
    "filtered_pair",
    "gather_rows",
    "in_full_precision",
    "info_nce",
    "make_config",
    "mean_over_processes",
    "mlp",
    "negative_cosine",
    "nt_xent",
    "over_pairs",
    "register",
    "regression_loss",
    "small_crops",
    "step_of",
    "tap_of",
    "unordered_pairs",
]

for _module in pkgutil.iter_modules(__path__):  # a file is enough
    if not _module.name.startswith("_"):
        import_module(f"fullrank.methods.{_module.name}")
