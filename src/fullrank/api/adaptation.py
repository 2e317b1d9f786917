"""Adapt an encoder to images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.api._options import chosen_options
from fullrank.coercion import as_name
from fullrank.errors import PAGE_PACKAGES, require_packages

if TYPE_CHECKING:
    from fullrank.adaptation.options import AdaptOptions
    from fullrank.adaptation.result import Adaptation
    from fullrank.training.records import Listener


def adapt(
    model: Path | str,
    options: AdaptOptions | None = None,
    *,
    out: Path | str = "",
    listeners: Sequence[Listener] = (),
    **changes: Any,
) -> Adaptation:
    """Go on pretraining an encoder on images, and keep it only where it is better.

    The same call goes on with an adaptation that was interrupted.

    Args:
        model: a run, a checkpoint or the name of an encoder.
        options, changes: see `AdaptOptions`; single ones by name. `data` is needed.
        out: the run directory, whose encoder.safetensors is the chosen one; empty: named after model and
            data, under `runs`.
        listeners: each is called with every record as it is written.

    Raises:
        UsageError: whatever cannot work, before anything is written.

    Example:
        >>> adapt("timm:resnet18", data="photos", out="runs/adapted").adapted  # doctest: +SKIP
        True
    """
    from fullrank.adaptation.options import AdaptOptions
    from fullrank.adaptation.run import adapt as adapt_encoder

    require_packages(*PAGE_PACKAGES)
    name = as_name(model, "a run, a checkpoint or the name of an encoder is taken")
    chosen = chosen_options(AdaptOptions, options, changes)
    folder = Path(as_name(out, "out is the run directory")) if out else None
    return adapt_encoder(name, chosen, folder, listeners)
