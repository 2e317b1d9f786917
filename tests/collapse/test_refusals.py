"""What cannot be measured is refused in one line that says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from collapse.inputs import drawn
from fullrank.collapse import CodeUsage, CollapseMonitor, Moments, Panel, Thresholds, judge
from fullrank.collapse.audit import audit
from fullrank.collapse.kmeans import kmeans, sample_kmeans
from fullrank.collapse.label_free_score import score_encoders
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.metrics._definition import metric
from fullrank.collapse.metrics.mixture import fit_mixture
from fullrank.collapse.moments import check_rows, why_not_numbers
from fullrank.collapse.phase import with_phase
from fullrank.collapse.similarity import linear_cka, neighbour_sets
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.collapse.verdict import Verdict
from fullrank.errors import FullrankError

Z = drawn(12, 3)
SAID = {"blind": "all", "reference": "none"}


def _finished() -> None:
    seen = EmbeddingStatistics(3)
    seen.update(Z)
    seen.finish()
    seen.finish()  # once more changes nothing
    seen.update(Z)


def _observed(**taps: Any) -> None:
    CollapseMonitor().observe(taps)


def _declared(**attributes: Any) -> None:
    def two_nn(z: Any) -> float:
        return 0.0

    metric("two_nn", **{**SAID, **attributes})(two_nn)


def _of_rows(value: float) -> None:
    seen = EmbeddingStatistics(3)
    seen.update(torch.full((40, 3), value))
    seen.finish()


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "an empty sample": (lambda: audit(Z, sample=0), "a sample of 0 rows is none; the default is 2048"),
    "masked rows": (lambda: audit(np.ma.array(Z.numpy(), mask=np.eye(12, 3) > 0)), "3 entries .* are masked"),
    "words for rows": (lambda: audit(np.array([["a"]])), "rows must be numbers, not <U1"),
    "no rows": (lambda: audit(Z[:0]), r"an audit needs rows: these are \[0, 3\]"),
    "too few labels": (lambda: audit(Z, labels=[1, 2]), r"need 12 labels in one dimension, not \(2,\)"),
    "labels in two dimensions": (lambda: audit(Z, labels=np.zeros((12, 1))), r"not \(12, 1\)"),
    "k-means of a vector": (lambda: kmeans(Z[0], 2), r"takes a matrix of finite numbers, not \[3\]"),
    "k-means of NaN": (lambda: kmeans(Z * float("nan"), 2), "takes a matrix of finite numbers"),
    "no cluster": (lambda: kmeans(Z, 0), "12 rows takes 1 to 12 clusters, .* not 0, 1 and 300"),
    "more clusters than rows": (lambda: kmeans(Z, 13), "not 13, 1 and 300"),
    "no restart": (lambda: kmeans(Z, 2, restarts=0), "not 2, 0 and 300"),
    "no step": (lambda: kmeans(Z, 2, steps=0), "not 2, 1 and 0"),
    "a sample of no rows": (lambda: sample_kmeans(Z[:0], 2), "rows and at least one cluster, not 0 and 2"),
    "a sample in no cluster": (lambda: sample_kmeans(Z, 0), "rows and at least one cluster, not 12 and 0"),
    "no component": (lambda: fit_mixture(Z, 0), "needs 1 to 12 components for as many rows, not 0"),
    "more components than rows": (lambda: fit_mixture(Z, 13), "not 13"),
    "rows after the end": (_finished, "these statistics are finished: more rows need new ones"),
    "huge rows": (lambda: _of_rows(1.1e30), r"the largest number of these rows is 1.1e\+30: scale"),
    "tiny rows": (lambda: _of_rows(-0.9e-30), "the largest number of these rows is 9e-31: scale them"),
    "nothing seen": (lambda: Moments(3).singular_values(), "no embedding rows were seen"),
    "no codes seen": (lambda: CodeUsage(3).result(), "no assignments were seen"),
    "nothing observed": (lambda: CollapseMonitor().close(), "nothing was observed"),
    "a tap of another width": (lambda: _observed(a=Z, b=Z[0]), r"tap 'b': an embedding is a matrix \[n, d\]"),
    "no period": (lambda: CollapseMonitor(every=0), "not 0, 2048 and 10"),
    "a sample of one": (lambda: CollapseMonitor(capacity=1), "not 1, 1 and 10"),
    "a negative period": (lambda: CollapseMonitor(diagnostics_every=-1), "not 1, 2048 and -1"),
    "no layer": (lambda: Panel.from_moments("z", Moments.of(Z), narrowest=0), "1 wide or more, not 0"),
    "no encoder": (lambda: score_encoders([]), "there is no encoder to score"),
    "two rows' neighbours": (lambda: neighbour_sets(Z[:2]), "neighbours of 2 rows say nothing"),
    "unlike embeddings": (lambda: linear_cka(Z, Z[:5]), "as many rows; these have 12 and 5"),
    "an accuracy of two": (lambda: with_phase(Verdict("cluster", "", ""), 9, accuracy=2), "lies between"),
    "a negative border": (lambda: Thresholds(decay=-1.0), "the threshold decay must be a finite number"),
    "an unknown attribute": (lambda: _declared(pane=3), "did you mean 'panel'"),
    "no word on blindness": (lambda: metric("new", reference="x")(len), "does not say its blind"),
    "no word at all": (lambda: metric("new")(len), "does not say its blind and its reference"),
    "an unknown need": (lambda: _declared(needs="pointz"), "did you mean 'points'"),
    "an unknown collapse": (lambda: _declared(sees="CX"), "'X'"),
    "an unknown change": (lambda: _declared(invariances={"scal"}), "did you mean 'scale'"),
    "an unknown spectrum": (lambda: _declared(needs="spectrum", spectrum="centre"), "did you mean 'centred'"),
    "no better": (lambda: _declared(better="hihg"), "did you mean 'high'"),
    "a spectrum of points": (lambda: _declared(spectrum="unit"), "needs points: `spectrum` says which one"),
    "no spectrum of a spectrum": (lambda: _declared(needs="unit spectrum"), "needs unit spectrum: "),
    "a name that is taken": (lambda: _declared(), "is defined already, in .*neighbours"),
    "booleans": (lambda: check_rows(Z > 0), r"holds booleans: make numbers of them with .float\(\)"),
    "sparse rows": (lambda: check_rows(Z.to_sparse()), r"is sparse: make it dense with .to_dense\(\)"),
    "rows without values": (lambda: check_rows(Z.to("meta")), "on the device meta, where it has no values"),
    "no tensor": (lambda: check_rows([1.0]), r"a torch tensor \[n, d\], not a list"),  # type: ignore[arg-type]
    "no width": (lambda: check_rows(Z[:, :0]), r"the shape \[12, 0\]: pool or flatten it"),
    "complex rows": (lambda: check_rows(Z.to(torch.complex64)), "an embedding is real; this one is complex"),
    "another width": (lambda: check_rows(Z, 4), "of width 3 came where earlier ones had the width 4"),
    "what is no moments": (lambda: Moments(3).merge(torch.eye(3)), "not with a Tensor"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said(case: str) -> None:
    work, says = REFUSED[case]
    with pytest.raises(FullrankError, match=says) as caught:
        work()
    assert "\n" not in str(caught.value)
    assert METRICS["two_nn"].function.__module__.endswith("neighbours")


def test_nothing_is_wrong_with_plain_numbers() -> None:
    assert why_not_numbers(Z) == ""


def test_a_collapse_at_its_very_border_is_a_thousandth_severe() -> None:
    panel = Panel.from_moments("z", Moments.of(drawn(300, 8) + 1))
    level = panel.value("level")
    assert level is not None
    verdict = judge(panel, thresholds=Thresholds(level=level))
    assert (verdict.kind, verdict.severity) == ("complete", 1e-3)
    assert 0.5 <= (verdict.probability or 0) < 0.51
