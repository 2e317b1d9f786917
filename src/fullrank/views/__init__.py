"""Random views of a batch of images, made on its device.

Example:
    >>> import torch
    >>> images = torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)
    >>> [tuple(view.shape) for view in Views("simsiam-cifar", image_size=32)(images)]
    [(4, 3, 32, 32), (4, 3, 32, 32)]
"""

from fullrank.views.masked import DenseViews
from fullrank.views.params import Params, RandomNumbers, ViewParams
from fullrank.views.presets import VIEWS, Role, View, ViewSet
from fullrank.views.views import Views, save_sheet, sheet

__all__ = [
    "VIEWS", "DenseViews", "Params", "RandomNumbers", "Role", "View", "ViewParams", "ViewSet", "Views",
    "save_sheet", "sheet",
]  # fmt: skip
