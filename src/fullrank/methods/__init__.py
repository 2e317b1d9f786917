"""Methods, found by file name, and what the author of another one needs.

>>> sorted(METHODS)[:2]
['barlow_twins', 'byol']
"""

import pkgutil
from importlib import import_module

from fullrank.methods._base import *
from fullrank.methods._contrast import *
from fullrank.methods._one_branch import *
from fullrank.methods._two_branch import *
from fullrank.networks.heads import *

for _module in pkgutil.iter_modules(__path__):  # a file is enough
    if not _module.name.startswith("_"):
        import_module(f"fullrank.methods.{_module.name}")
