"""How images are seen: random views of a batch, made on its device.

Example:
    >>> import torch
    >>> from fullrank.views.views import Views
"""
