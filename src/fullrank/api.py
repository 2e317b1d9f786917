"""The functions that `import fullrank` offers and the command line calls."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, overload

from fullrank.coercion import as_name, shown
from fullrank.errors import PAGE_PACKAGES, UnknownNameError, UsageError, require_packages
from fullrank.options import Options, split_names

if TYPE_CHECKING:
    from torch import nn

    from fullrank.collapse.thresholds import Thresholds
    from fullrank.encoders.encoder import Encoder
    from fullrank.encoders.export.writing import Exported, Format
    from fullrank.encoders.initial import Sources
    from fullrank.evaluation.result import EvaluationResult, Probe
    from fullrank.evaluation.table import EncoderRow
    from fullrank.features.embeddings import Matrix
    from fullrank.features.labels import Labels
    from fullrank.features.writing import Written
    from fullrank.methods import LossExplanation, Method
    from fullrank.options import CompareOptions, EmbedOptions, EvaluateOptions, ExportOptions, OnProgress
    from fullrank.report.audit.terminal import AuditView
    from fullrank.report.compare.arms import Comparison
    from fullrank.training.config import TrainConfig
    from fullrank.training.loop import Outcome
    from fullrank.training.records import Listener

Chosen = TypeVar("Chosen", bound=Options)
ENCODER = "a run, a checkpoint or the name of an encoder is taken"
FOLDER = "out is the folder to write"


def train(
    start: Path | str, *, out: Path | str = "", listeners: Sequence[Listener] = (), **settings: Any
) -> Outcome:
    """Train a method on unlabelled images and watch it for collapse.

    Args:
        start: a method, a recipe or its file. A method on images that come along starts from its recipe for
            these.
        out: the run directory; empty: a free name under `runs`.
        listeners: each is called with every record as it is written.
        settings: options of `fullrank train` with underscores: data, init, epochs, lr ...; the method's own
            as `options={...}`.

    Raises:
        UsageError: whatever cannot work, before anything is written; names come with the nearest real one.
        FullrankError: the loss stopped being finite.

    Example:
        >>> import tempfile
        >>> small = {"limit": 64, "batch_size": 32, "epochs": 1, "backbone": "resnet8-w16"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     outcome = train("simsiam", data="shapes", out=f"{folder}/run", **small)
        >>> outcome.reason, outcome.record.verdict["tap"]
        ('finished', 'projector')
    """
    from fullrank.encoders.initial import Sources, open_initial_weights
    from fullrank.training.planning import plan_run

    name = as_name(start, "train takes the name of a method or recipe, or a recipe's file")
    if not isinstance(start, str) and not name.endswith((".yaml", ".yml")):
        raise UsageError(f"{name} is a path, and not one of a recipe: give a method's name as text")
    if "data" in settings:
        settings["data"] = as_name(settings["data"], "data is a folder or a name")
    plan = plan_run(name, settings, open_initial_weights)
    return train_config(plan.config, out, listeners, Sources(plan.data, plan.initial), plan.named)


def train_config(
    config: TrainConfig,
    out: Path | str,
    listeners: Sequence[Listener] = (),
    sources: Sources | None = None,
    named: Collection[str] | None = None,
) -> Outcome:
    """Train by a whole configuration, and write the run's page; see `train`.

    `sources` are its images and initial weights where open; what is not `named` may change to fit memory.
    """
    from fullrank.encoders.initial import open_initial_weights
    from fullrank.report.run.page import write_page
    from fullrank.training import loop, run_dir

    require_packages(*PAGE_PACKAGES)
    data, initial = sources or (None, open_initial_weights(config))
    path = Path(out) if out else run_dir.free_name(config)
    outcome = loop.train(config, path, listeners, data, initial, named)
    write_page(outcome.path)
    return outcome


def resume(run: Path | str, *, listeners: Sequence[Listener] = ()) -> Outcome:
    """Continue a run exactly from its last checkpoint.

    A run that has ended is left as it is. Raises UsageError where there is no run, or its data is not where
    it was.

    Example:
        >>> resume("runs/first").reason  # doctest: +SKIP
        'finished'
    """
    from fullrank.encoders.initial import open_initial_weights
    from fullrank.report.run.page import write_page
    from fullrank.training import loop

    require_packages(*PAGE_PACKAGES)
    outcome = loop.resume(Path(as_name(run, "a run directory is taken")), listeners, open_initial_weights)
    write_page(outcome.path)
    return outcome


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


def embed(
    what: Path | str,
    out: Path | str,
    options: EmbedOptions | None = None,
    *,
    on_progress: OnProgress | None = None,
    **changes: Any,
) -> Written:
    """Write the features of images into a folder, or go on where that was interrupted.

    Args:
        what: a run directory, which has images of its own, or an encoder by name or checkpoint.
        out: the folder, one file a split.
        options, changes, on_progress: see `EmbedOptions`; single ones by name; called after every batch.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     embed("resnet10t", f"{folder}/F", data="shapes", limit=8, untrained=True, image_size=32).rows
        {'train': 8, 'test': 8}
    """
    from fullrank.features.writing import write_features
    from fullrank.options import EmbedOptions

    chosen = _chosen(EmbedOptions, options, changes)
    return write_features(as_name(what, ENCODER), Path(as_name(out, FOLDER)), chosen, on_progress)


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
    chosen = _chosen(kind, options, changes)
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
    chosen = _chosen(CompareOptions, options, changes)
    takes = "runs, encoders, files and folders are compared, in one list"
    if isinstance(subjects, str | Path) or not isinstance(subjects, list | tuple):
        subjects = [as_name(subjects, takes)]
    names = [as_name(subject, takes) for subject in subjects]
    page = Path(as_name(out, "out is the page's file"))
    if page.is_dir():
        raise UsageError(f"{page} is a folder: --out takes the page's file, as in {page / 'compare.html'}")
    comparison = compare_subjects(names, chosen, on_progress)
    title = ", ".join(arm.name for arm in comparison.arms)
    write_arms(comparison, page, title if len(title) <= 70 else f"{len(comparison.arms)} arms compared")
    return comparison


def export(
    what: Path | str, to: Format, out: Path | str, options: ExportOptions | None = None, **changes: Any
) -> Exported:
    """Export an encoder for another library, and check its features there.

    Args:
        what, to, out: see `fullrank.encoders.export.writing.export_encoder`.
        options, changes: see `ExportOptions`; single ones by name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export("timm:resnet10t", "torch", f"{folder}/E", untrained=True, image_size=32).files
        ('model.pth', 'fullrank.json', 'README.md')
    """
    from fullrank.encoders.export.writing import export_encoder
    from fullrank.features.store import is_stored
    from fullrank.options import ExportOptions

    if is_stored(Path(as_name(what, ENCODER))):
        raise UsageError(f"{what} holds features, not an encoder: --to map draws them")
    opening = _chosen(ExportOptions, options, changes).opening()
    return export_encoder(what, to, Path(as_name(out, FOLDER)), **opening)


def open_encoder(what: Path | str, **options: Any) -> Encoder:
    """Open an encoder of timm, torchvision, Hugging Face, a run, or a checkpoint.

    See `fullrank.encoders.opening.open_encoder` for names, and `CheckpointOptions` for options.

    Example:
        >>> open_encoder("timm:resnet10t", untrained=True, image_size=32).feature_dim
        512
    """
    from fullrank.encoders import opening
    from fullrank.options import CheckpointOptions

    return opening.open_encoder(what, **_chosen(CheckpointOptions, None, options).opening())


def _chosen(kind: type[Chosen], options: Chosen | None, changes: Mapping[str, Any]) -> Chosen:
    """The options with changes, where they are of their kind."""
    if options is not None and not isinstance(options, kind):
        raise UsageError(f"options are {kind.__name__}, or single ones by name, not {shown(options)}")
    return (options or kind()).changed(**changes)


def create_method(
    name: str, backbone: str | nn.Module = "resnet18", *, image_size: int = 32, width: int = 0, **options: Any
) -> Method:
    """Build a method around a backbone, for a training loop of your own.

    Args:
        name: as `list_methods` has it.
        backbone: a name, or a network from images [n, 3, S, S] to features [n, width].
        image_size: S in pixels, for a backbone by name.
        width: of the features of a network.
        options: the method's own options; the rest keeps its defaults.

    Example:
        >>> import torch
        >>> method = create_method("simsiam", "resnet8-w16", proj_output_dim=8)
        >>> method.eval().embed(torch.zeros(2, 3, 32, 32))["projector"].shape
        torch.Size([2, 8])
    """
    from fullrank.methods import build_method
    from fullrank.networks.backbones import build_backbone

    name = as_name(name, "the name of a method is taken")
    if not hasattr(backbone, "forward"):
        backbone = as_name(backbone, "a backbone is a name or a network")
    if isinstance(backbone, str):
        built = build_backbone(backbone, image_size)
        return build_method(name, built.network, built.feature_dim, options)
    return build_method(name, backbone, width, options)


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


def list_methods() -> list[str]:
    """Names of the methods that can be trained.

    Example:
        >>> "simsiam" in list_methods()
        True
    """
    from fullrank.methods import METHODS

    return list(METHODS)


def list_metrics() -> list[str]:
    """Names of the metrics that an audit can compute.

    Example:
        >>> "rankme_unit" in list_metrics()
        True
    """
    from fullrank.collapse.metrics import METRICS

    return list(METRICS)
