"""Likely causes of a collapse, who found them, and what to try first."""

from __future__ import annotations

from typing import NamedTuple

from fullrank.collapse.verdict import Kind


class Advice(NamedTuple):
    """One likely mechanism.

    Attributes:
        mechanism: what happens.
        paper: where it is shown, as an arXiv number.
        try_first: what to change.
    """

    mechanism: str
    paper: str
    try_first: str


ADVICE: dict[Kind, tuple[Advice, ...]] = {
    "complete": (
        Advice(
            "without a stop-gradient or a predictor, invariance alone is best served by a constant",
            "2011.10566",
            "detach the target; put a predictor on the source branch, at a constant rate",
        ),
        Advice(
            "the target moves as fast as the source, or the rate is too high for the optimiser",
            "2006.07733",
            "a momentum target near 0.99, a warm-up, a tenth of the rate",
        ),
        Advice(
            "weight decay outgrows the signal where the predictor's eigenvalues are small",
            "2102.06810",
            "less weight decay, or IsoLoss, whose modes all learn at one rate",
        ),
    ),
    "dimensional": (
        Advice(
            "augmentation varies some directions more than images do, and those are given up",
            "2110.09348",
            "weaker crops or colour, one at a time; a deeper projector that absorbs them",
        ),
        Advice(
            "the encoder is too small for the data, or the data are seen too often",
            "2209.15007",
            "a wider encoder, fewer epochs over more images",
        ),
        Advice(
            "both branches have one rank, so that nothing raises it",
            "2303.02387",
            "a predictor with a bottleneck, or a filter that lowers the source's rank or raises the target's",
        ),
        Advice(
            "nothing asks for decorrelated dimensions",
            "2105.04906",
            "a variance and covariance term, or an affine-free BN behind the projector",
        ),
    ),
    "cluster": (
        Advice(
            "images share a few codes because nothing asks that all be used",
            "2410.04959",
            "a prior on the mean assignment, more codes than clusters, Sinkhorn balancing",
        ),
        Advice(
            "the target is sharper than its centring can balance",
            "2104.14294",
            "a higher teacher temperature, a faster centre, frozen prototypes in the first epoch",
        ),
    ),
    "intra-cluster": (
        Advice(
            "the loss is met as soon as images agree on a code, so spread within it is given up",
            "2410.04959",
            "many more codes than semantic clusters, or a loss on the embedding beside the codes",
        ),
        Advice(
            "trained on labels, or pseudo-labels, to the end, classes shrink to their means",
            "2008.08186",
            "stop earlier, or take the layer before the projector",
        ),
    ),
    "uniform-assignment": (
        Advice(
            "centring without sharpening makes every assignment uniform; the loss then stands at ln K",
            "2104.14294",
            "a lower teacher temperature; check that the student's is above it",
        ),
        Advice(
            "the prior on the mean assignment outweighs the agreement of views",
            "2410.04959",
            "a larger weight on invariance, a lower temperature",
        ),
    ),
    "healthy": (),
    "not decidable": (
        Advice(
            "a rank measured on few rows is biased low", "2210.02885", "more rows: at least five a dimension"
        ),
    ),
}
"""Kind of verdict to its likely mechanisms, the likeliest first."""
