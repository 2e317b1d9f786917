"""Parts of a checkpoint: processes write them side by side, one can read.

`torch.distributed.checkpoint` writes them as safetensors, a file a process, into a folder beside `last.pt`,
which names the folder and the SHA-256 of each file. Nothing in them is unpickled.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from fullrank.errors import NotFiniteError, UsageError
from fullrank.networks.finite import first_not_finite
from fullrank.networks.sharded import is_sharded
from fullrank.untrusted.paths import is_regular

KEY = "shards"
PREFIX = "shards-"
SEPARATOR = "/"


def write_shards(folder: Path, state: Mapping[str, Any], step: int) -> dict[str, Any]:
    """Write the sharded tensors of a state; all processes call it.

    Args:
        folder: of the checkpoints.
        state: nested mappings.
        step: of the run, for the name.

    Returns:
        The state without them, and under `shards` where they are.

    Raises:
        NotFiniteError: one of them is not finite, on any process; nothing is kept.
        UsageError: PyTorch is too old.
    """
    try:
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import save
    except ImportError as error:
        raise UsageError("checkpoints of --strategy fsdp need PyTorch 2.9 or later") from error
    tensors = dict(_sharded(state))
    notes: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(notes, first_not_finite(tensors))
    if where := next(filter(None, notes), ""):
        raise NotFiniteError(f"{where.replace(SEPARATOR, '.')} is not finite: no checkpoint of it is written")
    name = [f"{PREFIX}{step:08d}-{secrets.token_hex(4)}"]
    dist.broadcast_object_list(name, src=0)
    target = folder / name[0]
    logging.getLogger("torch.distributed.checkpoint").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of its own ways of saving
        save(tensors, storage_writer=HuggingFaceStorageWriter(str(target), save_distributed=True))
    own = [p for p in sorted(target.iterdir()) if p.name.startswith(f"shard-{dist.get_rank() + 1:05d}-")]
    digests: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(digests, {path.name: _synced_digest(path) for path in own})
    files = {name: digest for part in digests for name, digest in part.items()}
    return {**_without(state), KEY: {"folder": name[0], "files": files}}


def with_shards(state: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put the parts that lie beside a checkpoint into it, whole, on the CPU.

    Raises:
        ValueError: they are not what was written.
    """
    place = state.pop(KEY, None)
    if place is None:
        return state
    name, files = str(place["folder"]), place["files"]
    source = folder / name
    if not name.startswith(PREFIX) or SEPARATOR in name or source.is_symlink():
        raise ValueError(f"{name!r} is no folder of shards")
    for file, digest in files.items():
        path = source / file
        if SEPARATOR in file or not is_regular(path):
            raise ValueError(f"{path} is not there")
        with path.open("rb") as opened:
            if hashlib.file_digest(opened, "sha256").hexdigest() != digest:
                raise ValueError(f"{path} is damaged: its SHA-256 is not that of what was written")
    if others := {path.name for path in source.iterdir()} - set(files):
        raise ValueError(f"{source} holds {min(others)}, which no process wrote")
    for path, tensor in _read(source).items():
        *outer, last = path.split(SEPARATOR)
        inner: Any = state
        for key in outer:
            inner = inner.setdefault(int(key) if key.isdecimal() else key, {})
        inner[last] = tensor
    return state


def remove_unused(folder: Path, checkpoints: Iterator[Path]) -> None:
    """Remove folders of shards that no checkpoint names any more."""
    found = [path for path in folder.glob(f"{PREFIX}*") if path.is_dir() and not path.is_symlink()]
    if not found:
        return
    used = set()
    for path in checkpoints:
        try:
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            used.add(state.get(KEY, {}).get("folder"))
        except Exception:  # whatever a damaged one raises: it may name any of them
            return
    for path in found:
        if path.name not in used:
            shutil.rmtree(path, ignore_errors=True)


def _read(source: Path) -> dict[str, Tensor]:
    """All tensors of a folder, whole; this process reads alone."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    metadata = HuggingFaceStorageReader(str(source)).read_metadata()
    known: Mapping[str, Any] = metadata.state_dict_metadata
    tensors = {key: torch.empty(each.size, dtype=each.properties.dtype) for key, each in known.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        load(tensors, storage_reader=HuggingFaceStorageReader(str(source)), no_dist=True)
    return tensors


def _sharded(state: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Sharded tensors in nested mappings, each with its path as its name."""
    if isinstance(state, Tensor):
        if is_sharded(state):
            yield name, state.detach()
    elif isinstance(state, Mapping):
        for key, value in state.items():
            yield from _sharded(value, f"{name}{SEPARATOR}{key}" if name else str(key))


def _without(state: Any) -> Any:
    """Nested mappings without the sharded tensors in them."""
    if not isinstance(state, Mapping):
        return state
    return {
        key: _without(value)
        for key, value in state.items()
        if not (isinstance(value, Tensor) and is_sharded(value))
    }


def _synced_digest(path: Path) -> str:
    """SHA-256 of a file, as it is read back from the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        return hashlib.file_digest(file, "sha256").hexdigest()
