"""`fullrank explain loss VALUE`: which fixed point of a method's loss that is."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro

from fullrank import api
from fullrank.cli.arguments import parse
from fullrank.errors import UnknownNameError, UsageError
from fullrank.methods import METHODS


@dataclass(frozen=True)
class Explain:
    """Say at which fixed point of a method's loss a value sits, and what ends there.

    Example: fullrank explain loss 8.317 --method dino --options num_prototypes=4096

    Attributes:
        what: loss.
        value: value of the loss, as a run logs it.
        method: a name of `fullrank list methods`.
        options: options of the method, as KEY=VALUE; the rest keeps its defaults.
        batch_size: images in a batch, over all devices.
        views: views of an image.
        feature_dim: features of the backbone, where widths of heads follow it (ResNet-18: 512).
        tolerance: allowed distance, as a share of the fixed point's size, at least of 1.
        json: print one object: method, value, at (fixed points within the tolerance), fixed_points, lines.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    value: Annotated[float, tyro.conf.Positional, tyro.conf.arg(metavar="VALUE")]
    method: str
    options: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY=VALUE")] = ()
    batch_size: int = 256
    views: int = 2
    feature_dim: int = 512
    tolerance: float = 0.01
    json: bool = False


def run(words: Sequence[str]) -> int:
    """Print what the value means."""
    _see_that_what_is_there(words)
    args = parse(Explain, words, "fullrank explain")
    if args.what != "loss":
        raise UnknownNameError("subject to explain", args.what, ["loss"])
    found = api.explain_loss(
        args.value,
        args.method,
        _options(args.options),
        batch_size=args.batch_size,
        views=args.views,
        feature_dim=args.feature_dim,
        tolerance=args.tolerance,
    )
    print(json.dumps(found.as_dict(), indent=2) if args.json else "\n".join(found.lines))
    return 0


def _see_that_what_is_there(words: Sequence[str]) -> None:
    """Raise UsageError where another word stands for WHAT, or VALUE is missing."""
    first = words[0] if words else ""
    if _is_number(first):
        raise UsageError(f"WHAT is `loss`, as in `fullrank explain loss {' '.join(words)}`")
    if first in METHODS:
        raise UsageError(f"WHAT is `loss`, as in `fullrank explain loss VALUE --method {first}`")
    if first == "loss" and (len(words) < 2 or (words[1].startswith("--") and words[1] != "--help")):
        rest = " ".join(["", *words[1:]])
        raise UsageError(f"VALUE is missing: a loss as a run logs it, `fullrank explain loss VALUE{rest}`")


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _options(words: Sequence[str]) -> dict[str, Any]:
    import yaml

    options = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not (key and equals and value):
            raise UsageError(f"--options takes KEY=VALUE, as num_prototypes=4096, not {word!r}")
        try:
            options[key.replace("-", "_")] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(
                f"--options {word} has no value that YAML reads: a number, true, a word"
            ) from error
    return options
