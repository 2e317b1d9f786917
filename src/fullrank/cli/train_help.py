"""Help of `fullrank train METHOD`: options in groups, with the defaults in use."""

from __future__ import annotations

import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Mapping
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

FIRST = (
    *("data", "out", "epochs", "batch_size", "lr", "backbone", "image_size", "views", "on_collapse", "seed"),
)
"""The ten options that matter first."""

GROUPS: Mapping[str, tuple[str, ...]] = {
    "data": (
        *("data", "limit", "image_size", "order", "chunk_size", "rounds", "repeat_batch", "steps_per_epoch"),
        *(
            "switch_epoch",
            "shuffle_window",
            "ordering",
            "ordering_sha256",
            "download",
            "max_corrupt",
            "max_pixels",
        ),
    ),
    "views": ("views", "mean", "std"),
    "backbone": (
        *(
            "backbone",
            "init",
            "freeze",
            "thaw_epochs",
            "thaw_parts",
            "lora",
            "stem",
            "zero_init_residual",
            "checkpoint_activations",
        ),
    ),
    "optimiser": (
        *("epochs", "batch_size", "accumulate", "optimizer", "lr", "lr_scaling", "lr_backbone"),
        *("layer_decay", "weight_decay", "final_weight_decay"),
        *("exclude_1d_decay", "momentum", "nesterov", "betas", "lars_variant", "lars_eta", "lars_clip"),
        *("lars_exclude_1d", "schedule", "milestones", "warmup_epochs", "warmup_lr", "final_lr", "clip_grad"),
        *("clip_grad_of", "predictor_warmup_steps"),
    ),
    "watching": (
        *("watch_every", "panels", "diagnostics_every", "level_every", "watch_images", "on_collapse"),
        *("patience", "patience_steps", "early_stop", "on_nan"),
    ),
    "probes": ("knn_every", "knn_k", "knn_bank", "probe", "probe_lr", "keep_every"),
    "devices": (
        *("precision", "channels_last", "compile", "sync_bn", "accelerator", "devices", "num_nodes"),
        *("strategy", "reduce_precision", "timeout_minutes", "workers", "seed"),
    ),
    "logs": (
        *("out", "resume", "log", "checkpoint_every", "checkpoint_minutes", "keep_checkpoints", "quiet"),
        *("json", "profile", "live"),
    ),
}
"""Options by what they are about; those of the method are a group of their own."""

EARLY = ("data", "views", "backbone")  # before the method's own

COMMAND_TEXTS = {
    "resume": "auto continues the run in --out where it has these settings; never refuses what is there. "
    "Under SLURM and torchrun auto is the default.",
    "quiet": "print nothing but errors.",
    "json": "print one object at the end: run, verdict, loss, level, rank, knn, linear.",
    "live": "serve the page on 127.0.0.1 while it grows, and open it in a browser (docs/live.md).",
    "profile": "train so many steps only, tell where their time goes, and keep but a trace.",
}

PAGE = """\
usage: {prog} [OPTIONS]

Train {method} on unlabelled images, watch for collapse, and write the run's page.
Example: {prog} --data FOLDER --epochs 200 --lr 0.1 --out runs/first

{of_what}

{options}
"""
REST = """
  -h, --help, --help-all  the first options, or all of them with their texts

further options, with --help-all:
{names}"""


def help_page(prog: str, method: str, values: Mapping[str, Any], config: Any, whole: bool, data: str) -> str:
    """Help of one method.

    Args:
        prog: the command.
        method: its name.
        values: defaults of TrainConfig's fields as they would be used, `options` left out.
        config: the method's own options, with their defaults.
        whole: show every option with its text, else the first ten, and the names of the others.
        data: for which images the defaults are; empty: for large ones.
    """
    from fullrank.training.config import TrainConfig

    texts = COMMAND_TEXTS | attribute_texts(TrainConfig)
    hints = get_type_hints(TrainConfig) | {"quiet": bool, "json": bool, "profile": int, "live": bool}
    hints["resume"] = Literal["never", "auto"]
    values = {"resume": "never", "quiet": False, "json": False, "profile": 0, "live": False, **values}
    own = {f"options.{f.name}": getattr(config, f.name) for f in dataclasses.fields(config)}
    kinds = {f"options.{name}": hint for name, hint in get_type_hints(type(config)).items()}
    said = {f"options.{name}": text for name, text in attribute_texts(type(config)).items()}
    groups = {name: list(options) for name, options in GROUPS.items()}
    known = {name for options in GROUPS.values() for name in options} | {"method", "options"}
    groups["more"] = [name for name in hints if name not in known]
    before, after = (
        ("data", "views", "backbone", "method", "optimiser"),
        ("watching", "probes", "devices", "logs"),
    )
    order = (*before, *after, "more")
    groups["method"] = list(own)
    every, hints, texts = values | own, hints | kinds, texts | said

    def listed(names: list[str]) -> str:
        rows = [
            (f"{_flag(n, hints[n])} {_metavar(hints[n])}".rstrip(), texts.get(n, ""), every[n]) for n in names
        ]
        return "\n".join(_row(*row) for row in rows)

    if whole:
        options = "\n\n".join(f"{name}:\n{listed(groups[name])}" for name in order if groups[name])
    else:
        options = listed(list(FIRST))
        names = [
            _wrapped(f"  {name:<11}", " ".join(_flag(n, hints[n]) for n in groups[name] if n not in FIRST))
            for name in order
            if set(groups[name]) - set(FIRST)
        ]
        options += "\n" + REST.format(names="\n".join(names))
    of_what = (
        f"Defaults are those for {data}."
        if data
        else "Defaults are a recipe's, or the method's for large images; beside --data X those for X."
    )
    return PAGE.format(prog=prog, method=method, of_what=_wrapped("", of_what), options=options)


def attribute_texts(cls: type[Any]) -> dict[str, str]:
    """Texts of a dataclass's fields, from `Attributes:` in its docstring and bases'.

    Example:
        >>> from fullrank.options import KnnOptions
        >>> attribute_texts(KnnOptions)["metric"], attribute_texts(KnnOptions)["seed"]
        ('what makes neighbours near: cosine or l2.', 'seed of everything random.')
    """
    texts: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        doc = inspect.cleandoc(base.__dict__.get("__doc__") or "")
        _, _, attributes = doc.partition("Attributes:\n")
        for name, text in re.findall(r"^    (\w+): (.*(?:\n      +.*)*)", attributes, re.MULTILINE):
            texts[name] = " ".join(text.split())
    return texts


def _flag(name: str, kind: Any) -> str:
    *group, option = name.replace("_", "-").split(".")
    return "--" + ".".join([*group, f"[no-]{option}" if kind is bool else option])


def _metavar(kind: Any) -> str:
    """What an option takes, as INT, {a,b} or [STR ...]."""
    origin, args = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "{" + ",".join(map(str, args)) + "}"
    if origin is tuple:
        several = args[-1] is ...
        return f"[{_metavar(args[0])} ...]" if several else " ".join(map(_metavar, args))
    if origin in (Union, UnionType):
        return "|".join(_metavar(arg) for arg in args if arg is not type(None))
    return {bool: "", int: "INT", float: "FLOAT", str: "STR"}.get(kind, "VALUE")


def _row(flag: str, text: str, default: Any) -> str:
    shown = " ".join(map(str, default)) if isinstance(default, tuple | list) else str(default)
    shown = f"{default:g}" if isinstance(default, float) else shown
    return _wrapped(f"  {flag:<29}  ", f"{text} (default: {shown or 'empty'})")


def _wrapped(head: str, text: str) -> str:
    """Text behind a head, wrapped; a long head has a line of its own."""
    width = max(60, min(shutil.get_terminal_size().columns, 110))
    indent = " " * min(len(head), 33)
    body = textwrap.wrap(text, width - len(indent), break_long_words=False, break_on_hyphens=False) or [""]
    first = [head.rstrip(), *(indent + line for line in body)] if len(head) > 33 else [head + body[0]]
    return "\n".join([*first, *(indent + line for line in body[1:])] if len(head) <= 33 else first)
