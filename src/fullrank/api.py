"""The functions that `import fullrank` offers and the command line calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from fullrank.collapse.thresholds import Thresholds
    from fullrank.encoders.encoder import Encoder
    from fullrank.encoders.export.writing import Exported, Format
    from fullrank.evaluation.result import EvaluationResult, Probe
    from fullrank.features.writing import Written
    from fullrank.images.sources import Data
    from fullrank.methods import Method
    from fullrank.options import CompareOptions, EmbedOptions, EvaluateOptions, ExportOptions, OnProgress
    from fullrank.report.audit.terminal import AuditView
    from fullrank.report.compare.arms import Comparison
    from fullrank.training.config import TrainConfig
    from fullrank.training.loop import Outcome
    from fullrank.training.records import Listener

__all__ = [
    "audit",
    "compare",
    "create_method",
    "embed",
    "evaluate",
    "export",
    "list_methods",
    "list_metrics",
    "open_encoder",
    "resume",
    "train",
]


def train(
    start: str, *, out: Path | str = "", listeners: Sequence[Listener] = (), **settings: Any
) -> Outcome:
    """Train a method on unlabelled images and watch it for collapse.

    Args:
        start: a method or a recipe. A method on images that come along starts from its recipe for these.
        out: the run directory; empty: a free name under `runs`.
        listeners: each is called with every record as it is written.
        settings: options of `fullrank train` with underscores: data, epochs, batch_size, lr ...; the
            method's own as `options={...}`.

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
    from fullrank.methods import METHODS
    from fullrank.training.config import TrainConfig, make_train_config
    from fullrank.training.setup import size_and_data

    method, layers, _ = starting_point(start, str(settings.get("data", TrainConfig.data)))

    def configured(size: int) -> TrainConfig:
        defaults = {key: value for key, value in METHODS[method].defaults(size).items() if key != "views"}
        return make_train_config(method, defaults, *layers, settings)

    size, data = size_and_data(configured(224))
    return train_config(configured(size), out, listeners, data)


def starting_point(start: str, data: str) -> tuple[str, list[Mapping[str, Any]], str]:
    """The method, the first settings and the recipe that a name stands for.

    A method on an embedded data set starts from the recipe that was tried on it, where there is one:
    published settings are for larger images and hundreds of epochs.
    """
    from fullrank.methods import METHODS
    from fullrank.training.recipes import load_recipe, recipe_names

    name = start
    if start in METHODS:
        name = f"{data}/{start}"
        if not name.startswith(("shapes/", "digits/")) or name not in recipe_names():
            return start, [], start
    if "/" in name or name.endswith((".yaml", ".yml")):
        recipe = load_recipe(name)
        return str(recipe.settings["method"]), [recipe.settings], name
    raise UnknownNameError("method or recipe", start, [*METHODS, *recipe_names()])


def train_config(
    config: TrainConfig, out: Path | str, listeners: Sequence[Listener] = (), data: Data | None = None
) -> Outcome:
    """Train by a whole configuration, and write the run's page; see `train`."""
    from fullrank.report.run.page import write_page
    from fullrank.training import loop
    from fullrank.training.run_dir import free_name

    outcome = loop.train(config, Path(out) if out else free_name(config), listeners, data)
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
    from fullrank.report.run.page import write_page
    from fullrank.training import loop

    outcome = loop.resume(Path(run), listeners)
    write_page(outcome.path)
    return outcome


def audit(
    what: Tensor | np.ndarray | Path | str | Any,
    *,
    labels: Tensor | np.ndarray | Sequence[int] | Path | str | None = None,
    tap: str | None = None,
    thresholds: Thresholds | None = None,
    metrics: Sequence[str] | None = None,
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
        options: further options of `fullrank audit` with underscores: data, key, codes, sample, limit,
            split, image_size, untrained, download.

    Returns:
        The audit; a notebook and `print` show it, `.write("folder")` leaves a page.

    Raises:
        UsageError: nothing that can be audited, in one line that says why.

    Example:
        >>> import fullrank, torch
        >>> z = torch.randn(1000, 3) @ torch.randn(3, 64)
        >>> fullrank.audit(z).verdict.kind
        'dimensional'
    """
    from fullrank.report.audit.subjects import AuditOptions, audit_subject

    given = {key: value for key, value in options.items() if value is not None}
    given |= {"taps": tap or "", "metrics": tuple(metrics or ())}
    given |= {} if thresholds is None else {"threshold": thresholds}
    if isinstance(labels, str | Path):
        given, labels = given | {"labels": str(labels)}, None
    elif labels is not None and hasattr(labels, "detach"):
        labels = labels.detach().cpu().numpy()
    return next(iter(audit_subject(what, AuditOptions().changed(**given), labels).values()))


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
        options: how.
        on_progress: called after every batch.
        changes: single options by name: data, taps, split, views ...

    Raises:
        UsageError: the folder holds something else, or an option makes no sense here.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     embed("resnet10t", f"{folder}/F", data="shapes", limit=8, untrained=True, image_size=32).rows
        {'train': 8, 'test': 8}
    """
    from fullrank.features.writing import write_features
    from fullrank.options import EmbedOptions

    return write_features(what, Path(out), (options or EmbedOptions()).changed(**changes), on_progress)


def evaluate(
    probe: Probe,
    what: Path | str,
    options: EvaluateOptions | None = None,
    *,
    out: Path | str = "",
    on_progress: OnProgress | None = None,
    **changes: Any,
) -> EvaluationResult:
    """Evaluate a representation with labels.

    Args:
        probe: linear, knn, cluster or finetune.
        what: a run, an encoder with `data`, a folder of `fullrank embed`, or a file of embeddings.
        options: how, of the probe's own class: `LinearOptions`, `KnnOptions` ...
        out: folder for the state of an interrupted protocol; empty: as `result_folder` says.
        on_progress: called as it goes on.
        changes: single options by name: data, labels, tap, limit ...

    Raises:
        UsageError: there are no labels, or an option makes no sense here.

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
    from fullrank.evaluation.linear import evaluate_linear

    probes: dict[str, tuple[type[EvaluateOptions], Any]] = {
        "linear": (kinds.LinearOptions, evaluate_linear),
        "knn": (kinds.KnnOptions, evaluate_knn),
        "cluster": (kinds.ClusterOptions, evaluate_cluster),
        "finetune": (kinds.FinetuneOptions, evaluate_finetune),
    }
    if probe not in probes:
        raise UnknownNameError("probe", probe, probes)
    kind, evaluated = probes[probe]
    result: EvaluationResult = evaluated(what, (options or kind()).changed(**changes), out, on_progress)
    return result


def compare(
    subjects: Sequence[Path | str],
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
        options: how.
        out: the page.
        on_progress: called as images are embedded.
        changes: single options by name: data, names, queries, bank, k, measure, download.

    Raises:
        UsageError: something named cannot be compared, or needs images.

    Example:
        >>> compare(["runs/a", "runs/b", "timm:resnet18"], data="photos").arms  # doctest: +SKIP
    """
    from fullrank.options import CompareOptions
    from fullrank.report.compare.comparing import compare_subjects
    from fullrank.report.compare.page import write_arms

    page = Path(out)
    if page.is_dir():
        raise UsageError(f"{page} is a folder: --out takes the page's file, as in {page / 'compare.html'}")
    chosen = (options or CompareOptions()).changed(**changes)
    comparison = compare_subjects([str(subject) for subject in subjects], chosen, on_progress)
    names = ", ".join(arm.name for arm in comparison.arms)
    write_arms(comparison, page, names if len(names) <= 70 else f"{len(comparison.arms)} arms compared")
    return comparison


def export(
    what: Path | str, to: Format, out: Path | str, options: ExportOptions | None = None, **changes: Any
) -> Exported:
    """Export an encoder for another library, and check its features there.

    Args:
        what: a run directory, or an encoder by name or checkpoint.
        to: timm, torchvision, torch or onnx.
        out: the folder to make.
        options: how.
        changes: single options by name: image_size, arch, prefix, stem, untrained, download.

    Raises:
        UsageError: the folder exists, or the format's library has no such network.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     export("timm:resnet10t", "torch", f"{folder}/E", untrained=True, image_size=32).files
        ('model.pth', 'fullrank.json', 'README.md')
    """
    from fullrank.encoders.export.writing import export_encoder
    from fullrank.features.store import is_stored
    from fullrank.options import ExportOptions

    if is_stored(Path(what)):
        raise UsageError(f"{what} holds features, not an encoder: --to map draws them")
    opening = (options or ExportOptions()).changed(**changes).opening()
    return export_encoder(what, to, Path(out), **opening)


def open_encoder(what: Path | str, **options: Any) -> Encoder:
    """Open an encoder of timm, torchvision, Hugging Face, a run, or a checkpoint.

    See `fullrank.encoders.opening.open_encoder` for names and options.

    Example:
        >>> open_encoder("timm:resnet10t", pretrained=False, image_size=32).feature_dim
        512
    """
    from fullrank.encoders import opening

    return opening.open_encoder(what, **options)


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

    if isinstance(backbone, str):
        built = build_backbone(backbone, image_size)
        return build_method(name, built.network, built.feature_dim, options)
    return build_method(name, backbone, width, options)


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
