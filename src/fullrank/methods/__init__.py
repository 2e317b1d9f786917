"""Methods, found by file name, and what the author of another one needs.

Example:
    >>> sorted(METHODS)[:2]
    ['barlow_twins', 'byol']
"""

from fullrank.methods._base import *
from fullrank.methods._config import *
from fullrank.methods._contrast import *
from fullrank.methods._explain import *
from fullrank.methods._fixed_points import *
from fullrank.methods._one_branch import *
from fullrank.methods._two_branch import *
from fullrank.networks.heads import *
from fullrank.registry import discover

METHODS.enter = register
discover(__name__, __file__, registry=METHODS, how='put @register("name") above the class')
