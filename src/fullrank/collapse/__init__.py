"""Collapse of embeddings: measurements, and the verdict they support.

Takes tensors [n, d], so it serves anybody's embeddings. From the ground up:

- `moments`, `sampling`: one pass over the rows, kept as float64 sums and a bounded sample;
- `metrics`: pure functions of rows, of a spectrum, of codes ..., each declared once;
- `baselines`: what each of them reads for an isotropic Gaussian of the same n and d;
- `panel`: the metrics of one tap beside their baselines; `verdict`: which collapse that is, and why;
- `monitor`: both for the named taps of a training run, on any number of processes.

Example:
    >>> import torch
    >>> z = torch.randn(1000, 4) @ torch.randn(4, 64)
    >>> judge(Panel.from_moments("projector", Moments.of(z))).kind
    'dimensional'
"""

from fullrank.collapse.code_verdict import judge_codes
from fullrank.collapse.evidence import Evidence
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.metrics.clusters import TightClusters, tight_clusters
from fullrank.collapse.metrics.codes import CodeUsage, Usage
from fullrank.collapse.metrics.decay import auc, cumulative_curve
from fullrank.collapse.metrics.level import centred_share, level, mean_cosine
from fullrank.collapse.metrics.ranks import effective_rank, participation_ratio, rankme
from fullrank.collapse.metrics.sphere import uniformity
from fullrank.collapse.metrics.views import alignment
from fullrank.collapse.moments import Moments
from fullrank.collapse.monitor import CollapseMonitor, Report
from fullrank.collapse.panel import Measure, Panel
from fullrank.collapse.sampling import Reservoir
from fullrank.collapse.thresholds import Thresholds
from fullrank.collapse.verdict import Verdict, judge

__all__ = [
    "METRICS",
    "CodeUsage",
    "CollapseMonitor",
    "Evidence",
    "Measure",
    "Moments",
    "Panel",
    "Report",
    "Reservoir",
    "Thresholds",
    "TightClusters",
    "Usage",
    "Verdict",
    "alignment",
    "auc",
    "centred_share",
    "cumulative_curve",
    "effective_rank",
    "judge",
    "judge_codes",
    "level",
    "mean_cosine",
    "participation_ratio",
    "rankme",
    "tight_clusters",
    "uniformity",
]
