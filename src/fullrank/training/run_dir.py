"""Run directory: self-describing, and safe to kill at any byte."""

from __future__ import annotations

import errno
import json
import os
import pickle
import platform
import re
import secrets
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import torch
import yaml
from safetensors.torch import save as to_safetensors
from torch import Tensor

import fullrank
from fullrank.coercion import load_yaml
from fullrank.errors import BusyError, FullrankError, UsageError
from fullrank.lock import sole_writer
from fullrank.networks.backbones import NARROW
from fullrank.training.config import TrainConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file so that a reader finds the old one or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with _replacing(path) as file:
        file.write(content)


@contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside `path` that takes its place once it is on the disk."""
    temporary = path.with_name(f".{path.name}.partial")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


FOLDERS = ("checkpoints", "spectra", "figures")
STALE = 10.0  # seconds; a younger directory with empty folders is another run's that begins now


def _is_empty_part(path: Path) -> bool:
    """Whether this is a folder of a run with nothing in it."""
    return path.name in FOLDERS and path.is_dir() and not any(path.iterdir())


class RunDir:
    """Files of one run.

    `config.yaml`, `environment.json`, `metrics.jsonl` (appended, one object a line), `spectra/`,
    `skipped.txt` (files that are not read, with the reason, where there are any), `checkpoints/` (`last.pt`,
    and `healthy.pt`, the last one judged healthy), `encoder.safetensors`, `figures/`, `report.html`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise UsageError where something is at `path` already."""
        if path.exists() and not (path.is_dir() and all(_is_empty_part(part) for part in path.iterdir())):
            raise UsageError(
                f"{path} exists already: take another --out, or continue it with `fullrank resume {path}`"
            )

    @classmethod
    def create(cls, path: Path, config: TrainConfig) -> RunDir:
        """Make a new run directory, by one renaming of a complete one.

        Raises:
            UsageError: something is there already.
        """
        cls.check_free(path)
        whole = path.absolute().with_name(f".{path.absolute().name}.{secrets.token_hex(4)}.partial")
        try:
            for folder in FOLDERS:
                (whole / folder).mkdir(parents=True, exist_ok=True)
            settings = yaml.safe_dump(config.as_dict(), sort_keys=False)
            write_atomically(whole / "config.yaml", settings.encode())
            cls(whole).write_environment()
            if path.exists() and time.time() - path.stat().st_mtime > STALE:  # of a run killed as it began
                for folder in FOLDERS:
                    with suppress(OSError):
                        (path / folder).rmdir()
            whole.rename(path)
        except OSError as error:
            shutil.rmtree(whole, ignore_errors=True)
            cls.check_free(path)  # where another run was quicker
            raise OSError(error.errno, error.strerror, str(path)) from error
        return cls(path)

    @contextmanager
    def written_alone(self, fabric: Fabric) -> Iterator[None]:
        """Hold the directory for this run's processes, all of which call it.

        Raises:
            BusyError: another run's process holds it.
        """
        with ExitStack() as stack:
            busy = ""
            if fabric.is_global_zero:
                try:
                    stack.enter_context(sole_writer(self.path))
                except BusyError as error:
                    busy = str(error)
            busy = fabric.broadcast(busy)
            if busy:
                raise BusyError(busy)
            if fabric.is_global_zero:
                for folder in FOLDERS:
                    (self.path / folder).mkdir(exist_ok=True)
            yield

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open a run directory; raises UsageError where there is none."""
        if not (path / "config.yaml").is_file():
            raise UsageError(f"{path} is no run directory: it has no config.yaml")
        return cls(path)

    def config(self) -> TrainConfig:
        """Resolved configuration that the run was started with."""
        try:
            values = load_yaml((self.path / "config.yaml").read_text())
        except yaml.YAMLError:
            values = None
        if not isinstance(values, dict):
            raise UsageError(f"{self.path / 'config.yaml'} is damaged: it holds no mapping")
        config = TrainConfig.from_dict(values)
        if config.stem == "auto" and NARROW.fullmatch(config.backbone):
            config = replace(config, stem="cifar")  # runs from before, when these had no other
        return config

    def write_environment(self) -> None:
        """Write what the run runs on: versions, machine, threads, command."""
        packages = ("fullrank", "torch", "torchvision", "timm", "lightning-fabric", "numpy")
        environment = {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": platform.machine(),
            "cpu_threads": torch.get_num_threads(),
            "devices": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] or ["cpu"],
            "command": " ".join(["fullrank", *sys.argv[1:]]),
            "versions": {name: package_version(name) for name in packages},
        }
        write_atomically(self.path / "environment.json", json.dumps(environment, indent=2).encode())

    # metrics: appended line by line; a checkpoint remembers how long the file was when it was taken

    @property
    def metrics_path(self) -> Path:
        """Path of the records."""
        return self.path / "metrics.jsonl"

    def append(self, record: Mapping[str, Any]) -> None:
        """Append one record as one line."""
        with self.metrics_path.open("ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def metrics_size(self) -> int:
        """Length of `metrics.jsonl` in bytes, after making sure that it is on the disk."""
        if not self.metrics_path.exists():
            return 0
        with self.metrics_path.open("rb+") as file:
            os.fsync(file.fileno())
        return self.metrics_path.stat().st_size

    def truncate_metrics(self, size: int) -> None:
        """Drop what was written after the checkpoint that had `size` bytes before it."""
        if self.metrics_path.exists():
            with self.metrics_path.open("rb+") as file:
                file.truncate(size)

    def write_spectra(self, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write `spectra/epoch_NNNN.npz`, one array per tap and kind."""
        single: dict[str, Any] = {name: np.asarray(a, np.float32) for name, a in arrays.items()}
        with _replacing(self.path / "spectra" / f"epoch_{epoch:04d}.npz") as file:
            np.savez_compressed(file, **single)

    def checkpoint_path(self, name: str = "last") -> Path:
        """Path of the checkpoint `last` or `healthy`."""
        return self.path / "checkpoints" / f"{name}.pt"

    def save_checkpoint(self, state: Mapping[str, Any], name: str = "last") -> None:
        """Write a checkpoint atomically."""
        path = self.checkpoint_path(name)
        try:
            with _replacing(path) as file:
                torch.save(dict(state), file)
        except RuntimeError as error:  # what PyTorch's zip writer makes of a full disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error

    def load_checkpoint(self, name: str = "last") -> dict[str, Any] | None:
        """Read a checkpoint to the CPU, without unpickling code; None without one."""
        path = self.checkpoint_path(name)
        if not path.exists():
            return None
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise FullrankError(f"{path} is damaged and cannot be resumed from") from error
        return state

    def save_encoder(
        self, weights: Mapping[str, Tensor], header: Mapping[str, Any], name: str = "encoder.safetensors"
    ) -> None:
        """Write the backbone alone, with a header that describes it."""
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        metadata = {"format": "fullrank-encoder", "fullrank": fullrank.__version__}
        metadata |= {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in header.items()
        }
        write_atomically(self.path / name, to_safetensors(tensors, metadata))


def package_version(package: str) -> str:
    """Version of an installed package, and of fullrank as its source has it."""
    try:
        return fullrank.__version__ if package == "fullrank" else version(package)
    except PackageNotFoundError:
        return "not installed"


def free_name(config: TrainConfig) -> Path:
    """A run directory that is not there yet, called after method and data.

    Example:
        >>> free_name(TrainConfig(data="photos")).as_posix()
        'runs/simsiam-photos'
    """
    data = re.sub(r"[^\w.+-]+", "-", Path(config.data).expanduser().resolve().name)  # no control characters
    stem = f"runs/{config.method}-{data}"
    path, number = Path(stem), 2
    while path.exists():
        path, number = Path(f"{stem}-{number}"), number + 1
    return path
