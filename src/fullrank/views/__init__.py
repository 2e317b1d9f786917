"""Random views of a batch of images, made on its device.

Example:
    >>> import torch
    >>> views = Views("simsiam-cifar", image_size=32)
    >>> images = torch.rand(4, 3, 32, 32)
    >>> params = views.sample(4, 32, 32, torch.Generator().manual_seed(0))
    >>> [tuple(view.shape) for view in views(images, params)]
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
