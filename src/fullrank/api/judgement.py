"""Judge embeddings and encoders, and compare them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from fullrank.api._options import chosen_options, page_file
from fullrank.coercion import as_name
from fullrank.errors import UnknownNameError, UsageError
from fullrank.options import split_names

if TYPE_CHECKING:
    from fullrank.collapse.thresholds import Thresholds
    from fullrank.evaluation.result import EvaluationResult, Probe
    from fullrank.evaluation.table import EncoderRow
    from fullrank.features.embeddings import Matrix
    from fullrank.features.labels import Labels
    from fullrank.methods import LossExplanation
    from fullrank.options import CompareOptions, EvaluateOptions, OnProgress, PickOptions
    from fullrank.report.audit.terminal import AuditView
    from fullrank.report.compare.arms import Comparison
    from fullrank.selection.ranking import Selection


def audit(
    what: Matrix | Path | str,
    *,
    labels: Labels | None = None,
    tap: str | None = None,
    thresholds: Thresholds | Mapping[str, float] | None = None,
    metrics: Sequence[str] | str | None = None,
    **options: Any,
) -> AuditView:
    """Judge an embedding: whether it has collapsed, how, and by which evidence.

    Args:
        what: a matrix [n, d]; a file or folder of embeddings; or, with `data`, an encoder: a name of timm,
            torchvision or Hugging Face, a checkpoint, a run directory (which knows its data).
        labels: a class per row, or a file of them, for the metrics of classes.
        tap: layer whose output is judged (tap); an encoder's features by default.
        thresholds: what the verdict depends on.
        metrics: names as `list_metrics` has them; None takes all that the rows allow, but for three slow
            ones.
        options: further ones of `AuditOptions`: data, key, codes, sample, limit, split ...

    Returns: the audit; a notebook and `print` show it, `.write("folder")` leaves a page.

    Example:
        >>> import fullrank, torch
        >>> z = torch.randn(1000, 3) @ torch.randn(3, 64)
        >>> fullrank.audit(z).verdict.kind
        'dimensional'
    """
    from fullrank.report.audit.subjects import AuditOptions, audit_subject

    if "taps" in options:
        raise UsageError("an audit is of one layer output: use tap, as in tap='projector'")
    options |= {"taps": tap, "metrics": metrics, "threshold": thresholds}
    if isinstance(labels, str | Path):
        options, labels = options | {"labels": labels}, None
    if len(split_names(tap if isinstance(tap, str) else "")) > 1:
        raise UsageError(f"an audit is of one layer output, and tap names several: {tap}")
    return next(iter(audit_subject(what, AuditOptions().changed(**options), labels).values()))


@overload
def evaluate(probe: Literal["all"], what: Path | str, *args: Any, **kwargs: Any) -> list[EncoderRow]: ...
@overload
def evaluate(probe: Probe, what: Matrix | Path | str, *args: Any, **kwargs: Any) -> EvaluationResult: ...
def evaluate(
    probe: Probe | Literal["all"],
    what: Matrix | Path | str,
    options: EvaluateOptions | None = None,
    *,
    labels: Labels | None = None,
    out: Path | str = "",
    on_progress: OnProgress | None = None,
    **changes: Any,
) -> EvaluationResult | list[EncoderRow]:
    """Evaluate a representation with labels.

    Args:
        probe: linear, knn, cluster or finetune; or all: the first three for every encoder that a run kept.
        what: a run, an encoder with `data`, a folder of `fullrank embed`, a file of embeddings or a matrix.
        labels: a class per row of embeddings, or a file of them.
        options, changes: of the probe's own class (`LinearOptions`, `KnnOptions` ...); single ones by name.
        out: folder for the state of an interrupted protocol; empty: as `result_folder` says.
        on_progress: called as it goes on.

    Example:
        >>> import numpy as np, tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/z.npz", z=np.eye(4)[np.arange(80) % 4], y=np.arange(80) % 4)
        ...     evaluate("knn", f"{folder}/z.npz", ks="1").results["top1"]
        1.0
    """
    from fullrank import options as kinds
    from fullrank.evaluation.cluster import evaluate_cluster
    from fullrank.evaluation.finetune import evaluate_finetune
    from fullrank.evaluation.knn import evaluate_knn
    from fullrank.evaluation.labelled import with_labels
    from fullrank.evaluation.linear import evaluate_linear
    from fullrank.evaluation.table import evaluate_all

    probes: dict[str, tuple[type[EvaluateOptions], Any]] = {
        "linear": (kinds.LinearOptions, evaluate_linear),
        "knn": (kinds.KnnOptions, evaluate_knn),
        "cluster": (kinds.ClusterOptions, evaluate_cluster),
        "finetune": (kinds.FinetuneOptions, evaluate_finetune),
        "all": (kinds.EvaluateOptions, evaluate_all),
    }
    if as_name(probe, "evaluate takes a probe first, by name") not in probes:
        raise UnknownNameError("probe", probe, probes)
    kind, evaluated = probes[probe]
    chosen = chosen_options(kind, options, changes)
    if isinstance(labels, str | Path):
        chosen = chosen.changed(labels=labels)
    elif labels is not None or not isinstance(what, str | Path):
        if probe in ("finetune", "all") or getattr(chosen, "protocol", "logistic") != "logistic":
            raise UsageError(
                f"this evaluation needs {'a run' if probe == 'all' else 'an encoder'}, not a matrix"
            )
        what = with_labels(what, chosen, labels)
    result: EvaluationResult | list[EncoderRow] = evaluated(what, chosen, out, on_progress)
    return result


def compare(
    subjects: Sequence[Path | str] | Path | str,
    options: CompareOptions | None = None,
    *,
    out: Path | str = "compare.html",
    on_progress: OnProgress | None = None,
    **changes: Any,
) -> Comparison:
    """Compare runs, encoders, embeddings and audits, and write one page about them.

    Args:
        subjects: run directories, names or checkpoints of encoders, files of embeddings, folders of audits.
            Runs that differ in nothing but their seed are one arm.
        options, changes: see `CompareOptions`; single ones by name.
        out, on_progress: the page; called as images are embedded.

    Example:
        >>> compare(["runs/a", "runs/b", "timm:resnet18"], data="photos").arms  # doctest: +SKIP
    """
    from fullrank.options import CompareOptions
    from fullrank.report.compare.arms import compare_subjects
    from fullrank.report.compare.page import write_arms

    if isinstance(options, str | Path):
        raise UsageError("several subjects come in one list, as in compare([first, second])")
    chosen = chosen_options(CompareOptions, options, changes)
    takes = "runs, encoders, files and folders are compared, in one list"
    if isinstance(subjects, str | Path) or not isinstance(subjects, list | tuple):
        subjects = [as_name(subjects, takes)]
    names = [as_name(subject, takes) for subject in subjects]
    page = page_file(out, "compare.html")
    comparison = compare_subjects(names, chosen, on_progress)
    title = ", ".join(arm.name for arm in comparison.arms)
    write_arms(comparison, page, title if len(title) <= 70 else f"{len(comparison.arms)} arms compared")
    return comparison


def pick(
    subjects: Sequence[Path | str] | Path | str,
    options: PickOptions | None = None,
    *,
    within: float = 1.0,
    out: Path | str = "",
    on_progress: OnProgress | None = None,
    **changes: Any,
) -> Selection:
    """Rank checkpoints of a run, runs of a sweep, or encoders, without labels.

    All of them see the same views of the same held-out images. A score of label-free measures, learnt on
    encoders of known accuracy, says which serves best and how sure that is (docs/pick.md).

    Args:
        subjects: a run, a folder of runs, or encoders by name or checkpoint.
        options, changes: see `PickOptions`; single ones by name.
        within: points of k-NN accuracy from the best that count as close to it.
        out: the page; empty: none.
        on_progress: called as images are embedded.

    Raises:
        UsageError: fewer than two encoders, or no images for them.

    Example:
        >>> str(pick("runs/first"))  # doctest: +SKIP
        'epoch 120 of 400; 83 % sure that it is within 1 point of the best. What came after took ...'
    """
    from fullrank.options import PickOptions
    from fullrank.selection.candidates import find_candidates
    from fullrank.selection.measuring import choose_images, measure
    from fullrank.selection.page import write_selection
    from fullrank.selection.ranking import rank

    chosen = chosen_options(PickOptions, options, changes)
    takes = "a run, a folder of runs or the name of an encoder is taken"
    if isinstance(subjects, str | Path) or not isinstance(subjects, list | tuple):
        subjects = [as_name(subjects, takes)]
    if not 0 < within <= 100:
        raise UsageError(f"--within is {within:g} points, and must be above 0 and at most 100")
    page = page_file(out, "pick.html") if out else None
    names = [as_name(subject, takes) for subject in subjects]
    candidates = find_candidates(names, chosen.every_checkpoint, chosen.untrained)
    images = choose_images(candidates, chosen)
    found = rank([measure(each, images, chosen, on_progress) for each in candidates], images, within)
    if page is not None:
        write_selection(found, page)
    return found


def explain_loss(
    value: float, method: str, options: Mapping[str, Any] | None = None, **situation: Any
) -> LossExplanation:
    """Say at which fixed point of a method's loss a value sits.

    Example:
        >>> explain_loss(0.0, "simsiam").at[0]["state"]
        'unrelated'
    """
    from fullrank.methods import explain_loss as explain

    return explain(value, method, options, **situation)
