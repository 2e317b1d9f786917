"""Open, embed and export encoders, and build methods."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.api._options import chosen_options
from fullrank.coercion import as_name
from fullrank.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from fullrank.encoders.encoder import Encoder
    from fullrank.encoders.export.writing import Exported, Format
    from fullrank.features.writing import Written
    from fullrank.methods import Method
    from fullrank.options import EmbedOptions, ExportOptions, OnProgress

ENCODER = "a run, a checkpoint or the name of an encoder is taken"
FOLDER = "out is the folder to write"


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

    chosen = chosen_options(EmbedOptions, options, changes)
    return write_features(as_name(what, ENCODER), Path(as_name(out, FOLDER)), chosen, on_progress)


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
    opening = chosen_options(ExportOptions, options, changes).opening()
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

    return opening.open_encoder(what, **chosen_options(CheckpointOptions, None, options).opening())


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
