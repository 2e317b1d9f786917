"""Every metric as a torchmetrics class: `update` with rows, `compute` the value.

A class is made for each metric and named after it: `erank_centred` is `ErankCentred`. What moments are enough
for keeps float64 sums, so chunks and processes add up to the exact value of the whole. What compares rows
keeps a bounded sample that depends on the rows alone: not on their order, nor on chunks or processes. A value
that is not defined computes to None.

Classes of one kind keep the same states, so a `torchmetrics.MetricCollection` of them updates once for all:

    >>> import torch
    >>> from torchmetrics import MetricCollection
    >>> from fullrank.collapse.streaming import ErankCentred, Level, Uniformity
    >>> seen = MetricCollection([ErankCentred(dim=8), Level(dim=8), Uniformity(dim=8)])
    >>> for part in torch.randn(400, 8, generator=torch.Generator().manual_seed(0)).split(100):
    ...     seen.update(part)
    >>> {name: round(float(value), 1) for name, value in seen.compute().items()}
    {'ErankCentred': 8.0, 'Level': 1.0, 'Uniformity': -3.1}

This module costs the import of torchmetrics, so `fullrank.collapse` does not import it.
"""

from __future__ import annotations

import inspect

from fullrank.collapse.metrics import METRICS, Metric, class_name
from fullrank.collapse.streaming_metric import CollapseMetric
from fullrank.collapse.streaming_states import BASES
from fullrank.errors import UnknownNameError

__all__ = ["CollapseMetric", *(class_name(name) for name in METRICS)]


def _class_of(metric: Metric) -> type[CollapseMetric]:
    base, function = BASES[metric.needs], metric.function
    summary = (inspect.getdoc(function) or "").partition("\n")[0]
    how = inspect.getdoc(base) or ""
    about = f"{summary}\n\n`{function.__module__}.{function.__name__}` ({metric.variant}). {how}"
    return type(
        class_name(metric.name),
        (base,),
        {
            "__doc__": about,
            "__module__": __name__,
            "definition": metric,
            "higher_is_better": {"high": True, "low": False}.get(metric.better),
        },
    )


for _metric in METRICS.values():
    globals()[class_name(_metric.name)] = _class_of(_metric)


def __getattr__(name: str) -> type[CollapseMetric]:
    """Answer an unknown class with the nearest name."""
    if name.startswith("_"):
        raise AttributeError(name)
    known = [class_name(metric) for metric in METRICS]
    raise AttributeError(str(UnknownNameError("streaming metric", name, known)))
