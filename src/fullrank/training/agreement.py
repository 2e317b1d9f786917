"""Agreement of the processes of a run on settings and images, before step 1."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fullrank.agreement import REMEDY, check_same
from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError, printable
from fullrank.images.fingerprints import difference, digest, fingerprint_of_choice
from fullrank.images.sources import Data
from fullrank.training.checkpoint_files import LoadedCheckpoint
from fullrank.training.config import TrainConfig
from fullrank.training.networks import InitialWeights

OF_A_MACHINE = frozenset(
    {
        "data", "out", "init", "ordering", "devices", "num_nodes", "accelerator", "workers", "log",
        "download", "timeout_minutes",
    }
)  # fmt: skip
"""Settings that processes may have of their own: where things lie, and how a machine is used."""

CHOOSE_IMAGES = ("limit", "seed", "max_corrupt", "max_pixels")


def check_alike(
    config: TrainConfig,
    data: Data,
    initial: InitialWeights | None = None,
    named: Collection[str] | None = None,
    peers: Peers | None = None,
) -> None:
    """See that all processes of a run understood the same; each of them calls it.

    Args:
        config: resolved, as this process was started.
        data: the images that this one has opened.
        initial: the weights that it starts from.
        named: the settings that were asked for, which a message names first.
        peers: the processes; None: those of the process group.

    Raises:
        UsageError: one differs from the first, in all of them alike.

    Example:
        >>> from fullrank.training.data import open_run_data
        >>> check_alike(config := TrainConfig(limit=50), open_run_data(config))
    """
    peers = peers or Peers()
    if peers.size == 1:
        return
    images = fingerprint_of_choice(data)
    found = peers.tell(understood(config, data, images, initial, named))
    rank = next((rank for rank, other in enumerate(found) if _differs(found[0], other)), None)
    if rank is None:
        return
    what = ""
    if found[rank]["digest"] != found[0]["digest"]:  # only now are all digests sent
        prints = peers.tell(images)
        what = difference(prints[0], prints[rank])
    raise UsageError(f"{_sentence(found[0], found[rank], rank, what)}: {REMEDY}")


def check_same_run(out: Path, found: LoadedCheckpoint | None = None, peers: Peers | None = None) -> None:
    """See that all processes write into one run, and go on from one checkpoint.

    Each of them calls it.

    Args:
        out: the run directory; machines may have it in different places, by one name.
        found: the checkpoint that this process has read; None: it starts anew.
        peers: the processes; None: those of the process group.

    Raises:
        UsageError: one differs from the first, in all of them alike.

    Example:
        >>> check_same_run(Path("runs/first"))
    """
    peers = peers or Peers()
    if peers.size == 1:
        return
    fact = f"starts {printable(out.name)}"
    if found is not None:
        progress = found.state.get("progress") or {}
        of = digest(json.dumps(progress, sort_keys=True, default=str).encode())[:8]
        step = progress.get("step", 0)
        fact = f"goes on with {printable(out.name)} from step {step} (checkpoint {of})"
    check_same({"run": fact}, peers)


def understood(
    config: TrainConfig,
    data: Data,
    images: Mapping[str, str],
    initial: InitialWeights | None = None,
    named: Collection[str] | None = None,
) -> dict[str, Any]:
    """What a process tells the others, in plain values."""
    settings = config.as_dict()
    options = {f"options.{key}": value for key, value in settings.pop("options").items()}
    return {
        "settings": {"method": settings.pop("method"), **settings, **options},
        "named": sorted(named or ()),
        "train": len(data.train),
        "held out": len(data.held_out),
        "digest": digest(*(f"{name}\0{each}".encode(errors="replace") for name, each in images.items())),
        "initial": _digest_of(initial),
    }


def _differs(first: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    alike = all(first[key] == other[key] for key in ("train", "held out", "digest", "initial"))
    return not alike or bool(_settings_apart(first, other))


def _settings_apart(first: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Settings that differ and may not: method first, then what somebody typed."""
    one, two = first["settings"], other["settings"]
    keys = [key for key in {**one, **two} if key not in OF_A_MACHINE and one.get(key) != two.get(key)]
    typed = {*first["named"], *other["named"]}
    return sorted(keys, key=lambda key: (key != "method", key.partition(".")[0] not in typed))


def _sentence(first: Mapping[str, Any], other: Mapping[str, Any], rank: int, images: str) -> str:
    """Say the first thing in which a process differs: images before what follows them."""
    apart = _settings_apart(first, other)
    one, two = first["settings"], other["settings"]
    for key in [key for key in apart if key == "method" or key in CHOOSE_IMAGES]:
        return _of_setting(key, one, two, rank)
    opened = [key for key in ("data",) if one[key] != two[key]]
    places = f" (--data {two['data']}, not {one['data']})" if opened else ""
    for key, kind in (("train", "training"), ("held out", "held-out")):
        if first[key] != other[key]:
            return printable(
                f"rank {rank} has {other[key]:,} {kind} images, rank 0 has {first[key]:,}{places}"
            )
    if first["digest"] != other["digest"]:
        return printable(f"rank {rank} has other images than rank 0{places} ({images})")
    if apart:
        return _of_setting(apart[0], one, two, rank)
    return printable(f"rank {rank} starts from other weights than rank 0 (--init {two['init'] or 'none'})")


def _of_setting(key: str, one: Mapping[str, Any], two: Mapping[str, Any], rank: int) -> str:
    flag = key if key == "method" else f"--{key.replace('_', '-')}"
    return printable(
        f"rank {rank} was started with {flag} {_shown(two.get(key))}, rank 0 with {_shown(one.get(key))}"
    )


def _shown(value: Any) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return " ".join(map(str, value)) or "none"
    return str(value) if value not in ("", None) else "none"


def _digest_of(initial: InitialWeights | None) -> str:
    """Digest of weights, by name; empty without any."""
    if initial is None:
        return ""
    parts = []
    for name, value in sorted(initial.weights.items()):
        content = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        parts += [name.encode(), digest(content.numpy().data.tobytes()).encode()]
    return digest(*parts)
