"""Run directory: self-describing, and safe to kill at any byte."""

from __future__ import annotations

import errno
import json
import os
import platform
import re
import shutil
import stat
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import yaml
from torch import Tensor

import fullrank
from fullrank.atomic import draft_of, replacing, sweep_drafts, sync_folder, write_atomically
from fullrank.coercion import load_yaml
from fullrank.errors import BusyError, DiskFullError, LostFolderError, UnwritableError, UsageError
from fullrank.lock import FULL, naming_obstacles, sole_writer
from fullrank.networks.backbones import NARROW
from fullrank.networks.safetensors_bytes import safetensors_bytes
from fullrank.training.checkpoint_files import CheckpointFiles
from fullrank.training.config import TrainConfig
from fullrank.untrusted.parsing import read_text
from fullrank.untrusted.paths import did_you_mean, expand_user

if TYPE_CHECKING:
    from lightning_fabric import Fabric


FOLDERS = ("checkpoints", "spectra", "figures")
STALE = 10.0  # seconds; a younger directory with empty folders is another run's that begins now


def _is_empty_part(path: Path) -> bool:
    """Whether this is a folder of a run with nothing in it."""
    return path.name in FOLDERS and path.is_dir() and not any(path.iterdir())


class RunDir:
    """Files of one run.

    `config.yaml`, `environment.json`, `metrics.jsonl` (appended, one object a line), `spectra/`,
    `skipped.txt` (files that are not read, with the reason, where there are any), `checkpoints/` (`last.pt`,
    those before it, and `healthy.pt`), `trouble/` (batches that were not finite), `encoder.safetensors`,
    `figures/`, `report.html`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._held: os.stat_result | None = None  # the directory as it was when it was held for writing

    @staticmethod
    def check_free(path: Path) -> None:
        """Raise UsageError where something is at `path` already."""
        if os.path.lexists(path) and not path.is_dir():
            raise UsageError(f"--out {path} is a file, and a run is a directory: take another --out")
        if path.exists() and not (path.is_dir() and all(_is_empty_part(part) for part in path.iterdir())):
            raise UsageError(
                f"{path} exists already: take another --out, or continue it with `fullrank resume {path}`, "
                "or with this command and --resume auto"
            )

    @classmethod
    def create(cls, path: Path, config: TrainConfig) -> RunDir:
        """Make a new run directory, by one renaming of a complete one.

        Raises:
            UsageError: something is there already.
            UnwritableError: nothing can be written there.
        """
        cls.check_free(path)
        sweep_drafts(path.absolute().parent, path.name)
        whole = draft_of(path.absolute())
        try:
            for folder in FOLDERS:
                (whole / folder).mkdir(parents=True, exist_ok=True)
            cls(whole).write_config(config)
            cls(whole).write_environment()
            if path.exists() and time.time() - path.stat().st_mtime > STALE:  # of a run killed as it began
                for folder in FOLDERS:
                    with suppress(OSError):
                        (path / folder).rmdir()
            whole.rename(path)
            sync_folder(path.absolute().parent)
        except OSError as error:
            shutil.rmtree(whole, ignore_errors=True)
            cls.check_free(path)  # where another run was quicker
            with naming_obstacles(path):
                raise OSError(error.errno, error.strerror, str(path)) from error
        return cls(path)

    @contextmanager
    def written_alone(self, fabric: Fabric) -> Iterator[None]:
        """Hold the directory for this run's processes, all of which call it.

        Raises:
            BusyError: another run's process holds it.
            UnwritableError: it cannot be held.
            DiskFullError: the disk became full meanwhile.
            LostFolderError: the directory was removed, moved or replaced meanwhile.
        """
        with ExitStack() as stack:
            refused: tuple[type[UsageError], str] | None = None
            if fabric.is_global_zero:
                try:
                    stack.enter_context(sole_writer(self.path))
                except (BusyError, UnwritableError) as error:
                    refused = type(error), str(error)
            refused = fabric.broadcast(refused)
            if refused:
                raise refused[0](refused[1])
            if fabric.is_global_zero:
                for folder in FOLDERS:
                    (self.path / folder).mkdir(exist_ok=True)
                for folder in (".", *FOLDERS, "encoders"):
                    sweep_drafts(self.path / folder)
                sweep_drafts(self.path.absolute().parent, self.path.name)
            stack.enter_context(self._naming_losses())
            self._held = self.path.stat()
            yield

    @contextmanager
    def _naming_losses(self) -> Iterator[None]:
        """Say in place of errors of the system that the folder is lost or its disk full."""
        try:
            yield
        except OSError as error:
            self.require_in_place()
            if error.errno in FULL:
                where = error.filename or self.path
                raise DiskFullError(
                    f"{where}: {error.strerror}; with some space free, `fullrank resume {self.path}` goes on"
                ) from error
            raise
        finally:
            self._held = None

    def require_in_place(self) -> None:
        """See that the directory that is held is there still, before something is written.

        Raises:
            LostFolderError: it was removed, moved or replaced by another.
        """
        if self._held is None:
            return
        try:
            same = os.path.samestat(self._held, self.path.stat())
            if same and (self.path / "config.yaml").is_file():
                return
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ESTALE):
                raise
        raise LostFolderError(
            f"{self.path} was removed, moved or replaced while it was trained, and the run ends with it; "
            "where it lies elsewhere now, `fullrank resume` goes on there"
        )

    @classmethod
    def open(cls, path: Path) -> RunDir:
        """Open a run directory; raises UsageError where there is none."""
        if not (path / "config.yaml").is_file():
            there = path.exists()
            why = "it has no config.yaml" if there else f"there is nothing of that name{did_you_mean(path)}"
            if runs := sorted(file.parent for file in path.glob("*/config.yaml")):
                why = f"it is a folder of runs: name one, as {runs[0]}; `fullrank compare {path}/*` has all"
            raise UsageError(f"{path} is no run directory: {why}")
        records = path / "metrics.jsonl"
        if os.path.lexists(records) and not stat.S_ISREG(
            records.lstat().st_mode
        ):  # a link's aim would be cut
            raise UsageError(
                f"{records} is a link, a pipe or a folder, and no file: put the file itself there"
            )
        return cls(path)

    def config(self) -> TrainConfig:
        """Resolved configuration that the run was started with."""
        try:
            values = load_yaml(read_text(self.path / "config.yaml"))
        except yaml.YAMLError as error:
            why = " ".join(str(error).split())[:160]
            raise UsageError(f"{self.path / 'config.yaml'} is damaged: {why}") from error
        if not isinstance(values, dict):
            raise UsageError(f"{self.path / 'config.yaml'} is damaged: it holds no mapping")
        try:
            config = TrainConfig.from_dict(values)
        except UsageError as error:
            raise UsageError(f"{self.path / 'config.yaml'}: {error}") from error
        if config.stem == "auto" and NARROW.fullmatch(config.backbone):
            config = replace(config, stem="cifar")  # runs from before, when these had no other
        return config

    def write_config(self, config: TrainConfig) -> None:
        """Write the configuration that the run goes on with."""
        self.require_in_place()
        write_atomically(
            self.path / "config.yaml", yaml.safe_dump(config.as_dict(), sort_keys=False).encode()
        )

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
        self.require_in_place()
        with self.metrics_path.open("ab") as file:
            file.write(json.dumps(record, allow_nan=False).encode() + b"\n")

    def metrics_size(self) -> int:
        """Length of `metrics.jsonl` in bytes, after making sure that it is on the disk."""
        if not self.metrics_path.exists():
            return 0
        with self.metrics_path.open("rb+") as file:
            os.fsync(file.fileno())
        return self.metrics_path.stat().st_size

    def write_spectra(self, epoch: int, arrays: Mapping[str, np.ndarray]) -> None:
        """Write `spectra/epoch_NNNN.npz`, one array per tap and kind."""
        self.require_in_place()
        single: dict[str, Any] = {name: np.asarray(a, np.float32) for name, a in arrays.items()}
        with replacing(self.path / "spectra" / f"epoch_{epoch:04d}.npz") as file:
            np.savez_compressed(file, **single)

    @property
    def checkpoints(self) -> CheckpointFiles:
        """Checkpoints of the run."""
        self.require_in_place()
        return CheckpointFiles(self.path / "checkpoints")

    def save_encoder(
        self, weights: Mapping[str, Tensor], header: Mapping[str, Any], name: str = "encoder.safetensors"
    ) -> None:
        """Write the backbone alone, with a header that describes it."""
        self.require_in_place()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
        metadata = {"format": "fullrank-encoder", "fullrank": fullrank.__version__}
        metadata |= {
            key: value if isinstance(value, str) else json.dumps(value) for key, value in header.items()
        }
        write_atomically(self.path / name, safetensors_bytes(tensors, metadata))


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
    data = re.sub(r"[^\w.+-]+", "-", expand_user(config.data).resolve().name)  # no control characters
    stem = f"runs/{config.method}-{data}"
    path, number = Path(stem), 2
    while path.exists():
        path, number = Path(f"{stem}-{number}"), number + 1
    return path
