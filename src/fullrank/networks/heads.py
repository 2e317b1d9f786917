"""Projectors and predictors: multi-layer perceptrons with batch normalisation."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from torch import nn

__all__ = ["mlp"]


def mlp(
    widths: list[int],
    *,
    hidden_bias: bool = False,
    hidden_bn: bool = True,
    output_bias: bool = True,
    output_bn: bool = False,
    activation: Callable[[], nn.Module] = nn.ReLU,
) -> nn.Sequential:
    """Perceptron Linear(-BN-activation-Linear)*, [n, widths[0]] to [n, widths[-1]].

    Args:
        widths: layer widths from input to output, at least two.
        hidden_bias: whether hidden linear layers carry a bias (SimSiam: no; BYOL: yes).
        hidden_bn: batch normalisation after every hidden layer.
        output_bias: whether the last linear layer carries a bias.
        output_bn: ends in BN without affine parameters; the last linear's bias, which it would undo,
            is then frozen, as in SimSiam's reference.
        activation: makes the layer after every hidden one.

    Example:
        >>> [type(layer).__name__ for layer in mlp([8, 16, 4])]
        ['Linear', 'BatchNorm1d', 'ReLU', 'Linear']
    """
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths[:-1]):
        layers.append(nn.Linear(width_in, width_out, bias=hidden_bias))
        if hidden_bn:
            layers.append(nn.BatchNorm1d(width_out))
        layers.append(activation())
    last = nn.Linear(widths[-2], widths[-1], bias=output_bias)
    layers.append(last)
    if output_bn:
        if output_bias:
            last.bias.requires_grad_(False)
        layers.append(nn.BatchNorm1d(widths[-1], affine=False))
    return nn.Sequential(*layers)
