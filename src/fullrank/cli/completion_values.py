"""Values that a shell completes after an option, where its type names none."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args, get_origin, get_type_hints

COMMAS = frozenset({"metrics", "taps", "fail_on", "parts"})
"""Options that take several names with commas between."""

ALSO_FILES = frozenset({"data", "against"})
"""Options that take a file or a folder as well as a name."""


def _views() -> Mapping[str, Any]:
    from fullrank.views.presets import VIEWS

    return VIEWS


def _methods() -> Mapping[str, Any]:
    from fullrank.methods import METHODS

    return METHODS


def _backbones() -> tuple[str, ...]:
    from fullrank.cli.listing import listed

    return ("auto", *listed("backbones"))


def _metrics() -> Mapping[str, Any]:
    from fullrank.collapse.metrics import METRICS

    return METRICS


def _data() -> Mapping[str, Any]:
    from fullrank.images.named import DATA

    return DATA


def _taps() -> tuple[str, ...]:
    from fullrank.encoders.runs import METHOD_TAPS

    return ("features", "all", *METHOD_TAPS)


def _kinds() -> tuple[str, ...]:
    from fullrank.collapse.verdict import Kind

    # a shell would part a name with a space in it, and that one is no collapse
    return ("collapsed", *(kind for kind in get_args(Kind) if " " not in kind))


def _protocols() -> Mapping[str, Any]:
    from fullrank.evaluation.protocols import PROTOCOLS

    return PROTOCOLS


def _logs() -> tuple[str, ...]:
    from fullrank.training.config import TrainConfig

    return choices("log", get_type_hints(TrainConfig)["log"])


VALUES: Mapping[str, Callable[[], Any]] = {
    "views": _views,
    "view_preset": _views,
    "method": _methods,
    "backbone": _backbones,
    "metrics": _metrics,
    "data": _data,
    "taps": _taps,
    "tap": lambda: tuple(name for name in _taps() if name != "all"),
    "fail_on": _kinds,
    "protocol": _protocols,
    "log": _logs,
    "layers": lambda: ("all",),
    "against": lambda: ("untrained",),
}
"""Names that an option of text may have, by the option."""


def choices(name: str, hint: Any) -> tuple[str, ...]:
    """Names that an option takes; none where they are not known.

    Example:
        >>> choices("to", Literal["timm", "onnx"]), choices("epochs", int)
        (('timm', 'onnx'), ())
    """
    if get_origin(hint) is tuple:
        hint = get_args(hint)[0]
    if get_origin(hint) is Literal:
        return tuple(text for value in get_args(hint) if (text := str(value)))
    return tuple(VALUES[name]()) if name in VALUES and hint is not int else ()
