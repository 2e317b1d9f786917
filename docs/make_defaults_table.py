"""Write docs/defaults.md from what is chosen for a run: python docs/make_defaults_table.py."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from fullrank.methods import METHODS
from fullrank.networks.backbones import is_transformer
from fullrank.training.defaults import LARGE_BATCH, Default, Situation, default_settings

PAGE = Path(__file__).with_name("defaults.md")
IMAGES = (2_000, 20_000, 200_000)
BACKBONES = {"ResNet": "resnet18", "ViT": "vit_tiny_patch16_224"}
SIZE = 224

HEAD = f"""\
# Defaults

What `fullrank train METHOD --data FOLDER` takes where nobody names it: for each method, number of images
and kind of backbone, here for photographs ({SIZE} pixels). Rates are for 256 images a step and scaled by the
batch; every schedule warms up over a tenth of the run, at most 10 epochs, and ends in a cosine, but where
the table says otherwise. Recipes (`fullrank list recipes`) keep their own settings. What is chosen for you
is printed when a run starts and stands in its `config.yaml`. An option always wins, and what hangs on it
follows it: `--optimizer lars` brings LARS's rate, `--epochs` the coefficient of the moving average.

[benchmarks/defaults.md](../benchmarks/defaults.md) has what such runs reach on small sets.

Before the first step a run estimates its memory (weights, gradients, optimiser, activations, workers) against
what is free: on the machine, in its container, under `ulimit`, or on the GPU. What nobody named is changed
until it fits: smaller batches with `--accumulate`, so that a step has as many images, then
`--checkpoint-activations`, then smaller images. Losses that compare the images of a batch keep it and are
checkpointed first. What was named and cannot fit is refused before any work, with what would fit.
"""


def page() -> str:
    """The whole page."""
    every = {
        (family, method, images): default_settings(Situation(method, images, SIZE, backbone))
        for family, backbone in BACKBONES.items()
        for method in METHODS
        for images in IMAGES
    }
    assert all(is_transformer(backbone) == (family == "ViT") for family, backbone in BACKBONES.items())
    parts = [HEAD]
    for family, backbone in BACKBONES.items():
        rows = {key[1:]: chosen for key, chosen in every.items() if key[0] == family}
        parts.append(f"## {family} (`{backbone}`)\n\n" + _table(rows))
    parts.append("## Why\n\n" + _reasons(every.values()))
    return "\n".join(parts)


def _table(rows: Mapping[tuple[str, int], Mapping[str, Default]]) -> str:
    columns = ["method", "images", "batch", "epochs", "optimiser, rate", "weight decay", "views", "besides"]
    lines = [columns, ["---"] * len(columns)]
    for (method, images), chosen in rows.items():
        value = {key: default.value for key, default in chosen.items()}
        decay = f"{value.get('weight_decay', 1e-4):g}"
        if "final_weight_decay" in value:
            decay += f" to {value['final_weight_decay']:g}"
        rate = f"{value['optimizer']} {value['lr']:g}"
        lines.append(
            [
                f"`{method}`",
                f"{images:,}",
                str(value["batch_size"]),
                str(value["epochs"]),
                rate + (" (not scaled)" if value.get("lr_scaling") == "none" else ""),
                decay,
                value["views"],
                _besides(value),
            ]
        )
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def _besides(value: Mapping[str, Any]) -> str:
    own = {key.removeprefix("options."): number for key, number in value.items() if "." in key}
    if value["schedule"] != "cosine":
        own = {"schedule": value["schedule"], **own}
    return ", ".join(f"{key} {number}" for key, number in own.items())


def _reasons(every: Iterable[Mapping[str, Default]]) -> str:
    """Each setting with its reasons, numbers that differ from run to run left out."""
    found: dict[str, dict[str, None]] = {}
    for chosen in every:
        for key, default in chosen.items():
            reason = " ".join("N" if _is_count(word) else word for word in default.reason.split())
            found.setdefault(key, {})[reason] = None
    rows = [f"| `{key.removeprefix('options.')}` | {'; '.join(reasons)} |" for key, reasons in found.items()]
    return "\n".join(["| setting | because |", "|---|---|", *rows]) + "\n"


def _is_count(word: str) -> bool:
    """Whether a word is a number that hangs on the images: steps of a run, images.

    Example:
        >>> _is_count("12,345"), _is_count("1,024"), _is_count("256")
        (True, False, False)
    """
    return "," in word and word.replace(",", "").isdigit() and word != f"{LARGE_BATCH:,}"


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


if __name__ == "__main__":
    main()
