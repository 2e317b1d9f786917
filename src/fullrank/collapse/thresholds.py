"""Borders of the verdict, in one table, with where each comes from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from fullrank.collapse.metrics import METRICS
from fullrank.collapse.metrics.clusters import JUMP
from fullrank.errors import UsageError

HIGHEST_LEVEL = 0.5  # of isotropic rows' level, that the border of a falling level does not exceed
RANK_FALL_WIDTH = 0.1  # of the border of a rank's fall, in natural logarithms of what is left


@dataclass(frozen=True)
class Thresholds:
    """Borders of the verdict, with where each comes from.

    At a border a verdict is as likely as not, one width beyond it three times as likely.

    Attributes:
        level: complete below it. A constant with noise is the same cloud as one with a large mean, so this is
            a convention: an isotropic cloud whose mean is ten standard deviations reads 0.099 and passes;
            collapsed runs of the demo read 0.01 to 0.04, healthy ones above 0.5.
        level_width: in natural logarithms, of this border and the two below.
        falling_level: complete below it, too, where level and centred share have both lost half of their best
            earlier values; the border rises by the same factor with each halving of the one that has lost
            less, up to `HIGHEST_LEVEL`. SimSiam trials:
            collapsed runs at 0.07 and 0.11 while their centred effective rank still read 88 of 128. At the
            end of 71 healthy runs of the fitted methods the level is at most 5 % below its best.
        centred_share: complete below it, where norms hide what the level shows. A mean of ten standard
            deviations reads 0.0099.
        copies: complete where a larger share of the rows is one and the same row.
        copies_width: of this border.
        jump: clusters where distances around two of three rows jump by this natural logarithm. Clouds and
            curves of any dimension reach 0.5; 2 to n / 3 clusters of Gaussian centres reach 16 as points, 2.5
            at a spread of 0.05, 1.1 at 0.2 and 0.75 at 0.3, where they begin to touch.
        jump_width: of this border.
        point_share: tight clusters within which less than this share of the variance lies are points.
        within_share: tight clusters within which more than this share of the variance lies are not tight: a
            far minority makes the rest look so.
        within_width: of this border.
        most_points: up to this many points are a cluster collapse; more of them, or tight clusters that are
            not quite points, are a collapse within clusters.
        decay: dimensional where the spectrum decays faster than this exponent, in the mean of several views
            (`fullrank.collapse.decay`). Fitted on encoders of known worth, see docs/verdict.md.
        decay_width: of this border: the width of the best log score on the same encoders, in steps of 0.05.
        unfallen: added to this border where earlier panels show that neither centred share nor rank has
            fallen: few directions are often how a healthy encoder begins, and an audit cannot know. Fitted
            like the width.
        centred_fall: taken off it for each factor e that the centred share has fallen by, one at most.
        rank_fall: taken off it where `erank_centred`, relative to its baseline, fell by far more than
            `erank_fall` from its best earlier value, half of it at that share. A fall alone accuses nobody,
            for healthy runs settle: those of the fitted methods lose up to 72 %.
        erank_fall: that share.
        code_share: cluster where the perplexity of codes is below this share of the codes that the images at
            hand could use. CPLearn on the generated shapes: collapsed 3 of 1,024, healthy 215.
        first_code_share: cluster where one code is the first choice of more than this share of images.
        code_information: uniform-assignment where codes say less about an image than this share of ln K, and
            an image's own assignment is as wide as ln K but for that share.
        fewest_codes: cluster below this perplexity, whatever the share.
        fewest_rows: with fewer, nothing is decided: the estimates themselves scatter.
    """

    level: float = 0.05
    level_width: float = 0.25
    falling_level: float = 0.15
    centred_share: float = 0.0025
    copies: float = 0.75
    copies_width: float = 0.05
    jump: float = JUMP
    jump_width: float = 0.06
    point_share: float = 0.03
    within_share: float = 0.2
    within_width: float = 0.03
    most_points: int = 50
    decay: float = 2.9
    decay_width: float = 0.2
    unfallen: float = 0.4
    centred_fall: float = 1.0
    rank_fall: float = 0.3
    erank_fall: float = 0.75
    code_share: float = 0.05
    first_code_share: float = 0.5
    code_information: float = 0.02
    fewest_codes: float = 1.5
    fewest_rows: int = 32

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
                raise UsageError(f"the threshold {name} must be a finite number of at least 0, not {value}")

    def levels(self) -> dict[str, float]:
        """The level checks, each with the least value that passes."""
        judged = (metric for metric in METRICS.values() if metric.needs == "moments" and metric.threshold)
        return {metric.name: float(getattr(self, metric.threshold)) for metric in judged}

    def level_after(self, trend: float | None) -> float:
        """Border of the level of rows that has changed by a share since its best.

        Example:
            >>> [round(Thresholds().level_after(trend), 2) for trend in (None, 0.0, -0.25, -0.5, -0.75)]
            [0.05, 0.05, 0.08, 0.15, 0.45]
        """
        if trend is None or trend >= 0:
            return self.level
        halvings = min(-math.log2(max(1 + trend, 1e-300)), 30.0)  # which is past every border
        return max(min(self.level * math.pow(self._rise, halvings), HIGHEST_LEVEL), self.level)

    def level_from(self, best: float) -> float:
        """Level that is on the border once it has been as high as `best`.

        Example:
            >>> round(Thresholds().level_from(1.0), 2), round(Thresholds().level_from(0.3), 2)
            (0.31, 0.15)
        """
        power = math.log2(self._rise)
        fallen = math.pow(self.level * math.pow(max(best, 0.0), power), 1 / (1 + power))
        return max(fallen, self.level)

    def decay_after(self, share: float | None, rank: float | None) -> float:
        """Border of the decay, after what centred share and rank have lost.

        Args:
            share: change of `centred_share`; None where nothing is known of a past, as in an audit.
            rank: change of `erank_centred`.

        Example:
            >>> after = Thresholds().decay_after
            >>> [round(after(share, None), 2) for share in (None, 0.2, 0.0, -0.25, -0.5, -0.9)]
            [2.9, 3.3, 3.3, 3.01, 2.61, 2.3]
            >>> round(after(0.0, -0.95), 2)
            2.6
        """
        border, fell = self.decay, 0.0
        if rank is not None and rank < 0 and self.erank_fall < 1:
            fell = beyond(_lost(rank), -math.log(1 - self.erank_fall), RANK_FALL_WIDTH)
            border -= self.rank_fall * fell
        if share is not None:
            border += self.unfallen * (1 - fell) - self.centred_fall * min(_lost(share), 1.0)
        return max(border, 0.0)

    @property
    def _rise(self) -> float:
        """Factor by which the border of the level rises with each halving."""
        return min(max(self.falling_level / self.level, 1.0), 1e3) if self.level > 0 else 1.0


def _lost(change: float) -> float:
    """Natural logarithm of how many times less is left."""
    return -math.log(min(max(1 + change, 1e-300), 1.0))


def beyond(value: float, border: float, width: float) -> float:
    """Probability that a value is beyond a border.

    Formula: `1 / (1 + 3^((border - value) / width))`.

    Example:
        >>> beyond(2.0, 2.0, 0.5), beyond(2.5, 2.0, 0.5), beyond(1.0, 2.0, 0.0)
        (0.5, 0.75, 0.0)
    """
    if not width > 0:
        return float(value > border)
    return 1 / (1 + math.exp(min(-math.log(3) * (value - border) / width, 700.0)))
