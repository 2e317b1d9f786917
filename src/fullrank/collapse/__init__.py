"""What has collapsed: measurements of embeddings, and the verdict they support.

Takes tensors [n, d], so it serves anybody's embeddings. From the ground up:

- `moments`, `reservoir`: one pass over the rows, kept as float64 sums and a bounded sample;
- `metrics`, `spectrum`: pure functions of rows and of a spectrum;
- `nulls`: what each of them reads for an isotropic Gaussian of the same n and d;
- `usage`: how codes or prototypes are used;
- `panel`: all metrics of one tap beside their nulls; `verdict`: which collapse that is, with the evidence;
- `monitor`: both for the named taps of a training run, on any number of processes.

Example:
    >>> import torch
    >>> z = torch.randn(1000, 4) @ torch.randn(4, 64)
    >>> judge(Panel.from_moments("projector", Moments.of(z))).kind
    'dimensional'
"""

from fullrank.collapse.clusters import TightClusters, tight_clusters
from fullrank.collapse.metrics import alignment, centred_share, level, mean_cosine, rankme, uniformity
from fullrank.collapse.moments import Moments
from fullrank.collapse.monitor import CollapseMonitor, Report
from fullrank.collapse.panel import Measure, Panel
from fullrank.collapse.reservoir import Reservoir
from fullrank.collapse.spectrum import auc, cumulative_curve, effective_rank, participation_ratio
from fullrank.collapse.thresholds import Thresholds
from fullrank.collapse.usage import CodeUsage, Usage
from fullrank.collapse.verdict import Evidence, Verdict, judge, judge_codes

__all__ = [
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
