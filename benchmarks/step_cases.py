"""The networks whose training steps are measured, and the bars that they must reach."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A network and what is asked of it.

    Attributes:
        backbone: its name.
        hidden: width of the projector, all three layers.
        bottleneck: width of the predictor's hidden layer.
        steps: in a turn.
        warm_up: steps of a peer before its clock starts; more than its loader prefetches if steps are short.
        bare: bar beside the bare loop.
        peers: bar beside each of the two libraries.
        best_peer: bar beside the better of the two.
        peak: bar of the share of the convolution peak.
    """

    backbone: str
    hidden: int
    bottleneck: int
    steps: int
    warm_up: int
    bare: float
    peers: float | None = None
    best_peer: float | None = None
    peak: float | None = None
    batch: int = 128


CASES = (
    Case("resnet18", 2048, 512, steps=4, warm_up=1, bare=0.97, peers=1.1, peak=0.68),
    Case("resnet8-w16", 128, 64, steps=20, warm_up=6, bare=0.80, best_peer=2.0),
)
