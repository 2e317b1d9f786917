"""Options of an audit."""

from __future__ import annotations

from dataclasses import dataclass, field

from fullrank.collapse.audit import SAMPLE
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.thresholds import Thresholds
from fullrank.errors import UsageError
from fullrank.options import Names, SubjectOptions, split_names


@dataclass(frozen=True)
class AuditOptions(SubjectOptions):
    """How an audit is done.

    Attributes:
        labels: a file with a class per row, for metrics of classes and the colours of the map.
        codes: rows are scores (logits) over codes or prototypes.
        taps: layer outputs (taps) of an encoder, or taps that were stored, with commas between; `features`
            is what an encoder puts out, `all` every stage or block.
        sample: rows that are compared with each other.
        metrics: names of metrics, with commas between; empty: all that apply, but for three slow ones.
        split: `train` or `held-out` images; empty: held-out ones of a run's own data
            and of stored features, else train.
        threshold: what the verdict depends on.
    """

    codes: bool = False
    taps: Names = ""
    sample: int = SAMPLE
    metrics: Names = ""
    split: str = ""
    threshold: Thresholds = field(default_factory=Thresholds)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.sample < 1:
            raise UsageError(f"a sample of {self.sample} rows is none; the default is {SAMPLE}")
        if self.split not in ("", "train", "held-out"):
            raise UsageError(f"the split is train or held-out, not {self.split}")
        for name in split_names(self.metrics):
            _ = METRICS[name]
