"""Thresholds of the verdict, in one table, with where each comes from."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from fullrank.collapse.metrics import METRICS
from fullrank.errors import UsageError


@dataclass(frozen=True)
class Thresholds:
    """Thresholds of the verdict, with where each comes from.

    Attributes:
        level: complete below it. A constant with noise is the same cloud as one with a large mean, so this is
            a convention: an isotropic cloud whose mean is ten standard deviations reads 0.099 and passes;
            collapsed runs of the demo read 0.01 to 0.04, healthy ones above 0.5.
        falling_level: complete below it, too, where the level has lost half of its best earlier value.
            SimSiam trials: collapsed runs at 0.07 and 0.11 while their centred effective rank still read 88
            of 128.
        centred_share: complete below it, where norms hide what the level shows. A mean of ten standard
            deviations reads 0.0099.
        linked_share: clusters are tight where less than this share of the variance lies within them, and less
            than a quarter of what a Gaussian cloud of the same covariance, linked in the same way, keeps.
            Linked clusters of 2 to 100 Gaussian centres read 0.0001 at a spread of 0.01, 0.01 at 0.1 and 0.09
            at 0.3; at 0.5 they touch, and read 1 as curved manifolds and heavy tails do.
        point_share: tight clusters within which less than this share lies are points.
        most_points: up to this many points are a cluster collapse; more of them, or tight clusters that are
            not quite points, are a collapse within clusters.
        code_share: cluster where the perplexity of codes is below this share of the codes that the images at
            hand could use. CPLearn on the generated shapes: collapsed 3 of 1,024, healthy 215.
        first_code_share: cluster where one code is the first choice of more than this share of images.
        code_information: uniform-assignment where codes say less about an image than this share of ln K, and
            an image's own assignment is as wide as ln K but for that share.
        rank_share: dimensional where `rankme_unit` or `erank_centred` is below this share of d. Trials at
            d = 128: collapsed 7.6 (0.06), healthy 43 (0.34); eigenvalues 1/k over 512 dimensions read 0.8.
        participation_share: the same for `participation_ratio`; 0, the default, does not judge by it, for it
            ignores the tail: healthy runs on the generated shapes read 0.02 while their rank is 0.22. SimSiam
            on all of ImageNet, a known partial collapse, reads 0.008 (spectra published with 2209.15007).
        fewest_directions: dimensional below this many, whatever the share; rank one reads 1.0.
        erank_fall: dimensional where `erank_centred`, relative to its null, fell by more than this share from
            its best earlier value, and `rankme_unit` is below `falling_share`.
        falling_share: of d; a fall alone accuses nobody, for healthy runs settle: SimSiam on the generated
            shapes goes from 45 to 26 of 128 directions while its k-NN rises from 0.39 to 0.71.
        fewest_rows: with fewer, nothing is decided: the estimates themselves scatter.
        rows_per_dimension: n / d from which a low rank is a low rank; below it, the null of n rows is asked
            too. At 5 rows a dimension an isotropic cloud shows 99 % of its rank.
    """

    level: float = 0.05
    falling_level: float = 0.15
    centred_share: float = 0.0025
    linked_share: float = 0.2
    point_share: float = 0.03
    most_points: int = 50
    code_share: float = 0.05
    first_code_share: float = 0.5
    code_information: float = 0.02
    rank_share: float = 0.1
    participation_share: float = 0.0
    fewest_directions: float = 1.5
    erank_fall: float = 0.3
    falling_share: float = 0.15
    fewest_rows: int = 32
    rows_per_dimension: float = 5.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value >= 0:
                raise UsageError(f"the threshold {name} must be a number of at least 0, not {value}")

    def shares(self) -> dict[str, float]:
        """The rank metrics that are judged, each with the least share of d that passes."""
        judged = [metric for metric in METRICS.values() if metric.spectrum and metric.threshold]
        judged.sort(key=lambda metric: (metric.spectrum != "unit", metric.panel))  # unit rows first
        shares = {metric.name: float(getattr(self, metric.threshold)) for metric in judged}
        return {name: share for name, share in shares.items() if share > 0}

    def levels(self) -> dict[str, float]:
        """The level checks, each with the least value that passes."""
        judged = (metric for metric in METRICS.values() if metric.needs == "moments" and metric.threshold)
        return {metric.name: float(getattr(self, metric.threshold)) for metric in judged}

    def fewest(self, metric: str, of: float) -> float:
        """The least number of directions that passes, where `of` directions are possible."""
        return max(self.shares().get(metric, 0.0) * of, self.fewest_directions) if of > 1 else 0.0
