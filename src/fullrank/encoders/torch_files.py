"""Files of `torch.save`, read without ever running code that they bring along.

`torch.load(weights_only=True)` calls nothing but what is known to rebuild tensors. Training scripts also save
their arguments and numpy arrays, which it would refuse; here such objects become inert stand-ins, which hold
what was stored and do nothing. Any other class or function in a file is refused by its name.
"""

from __future__ import annotations

import errno
import os
import pickle
import re
import threading
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fullrank.atomic import replacing
from fullrank.errors import DataError, FullrankError
from fullrank.untrusted.parsing import MAX_DEPTH
from fullrank.untrusted.paths import require_regular

HOLDS = (Tensor, list, tuple, Mapping)
MOST_CONTAINERS = 200_000  # lists and mappings of one file


def write_torch_file(content: Mapping[str, Any], path: Path) -> None:
    """Write what `torch.save` makes of tensors and plain values: whole, or not at all.

    Raises:
        OSError: the disk is full, or may not be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_torch_file({"z": torch.ones(2)}, Path(folder, "z.pt"))
        ...     torch.load(Path(folder, "z.pt"), weights_only=True)
        {'z': tensor([1., 1.])}
    """
    try:
        with replacing(path) as file:
            torch.save(dict(content), file)
    except RuntimeError as error:  # what PyTorch's zip writer makes of a full disk
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


class StoredObject:
    """A stand-in for an object beside tensors: settings of a script.

    Attributes:
        fields: what was stored of it, by name; empty where that is not a mapping.
    """

    fields: dict[str, Any]

    def __new__(cls, *_: Any, **__: Any) -> StoredObject:
        """An empty one, whatever the file asks for."""
        new = super().__new__(cls)
        new.fields = {}
        return new

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        self.fields = {str(key): value for key, value in state.items()} if isinstance(state, dict) else {}

    def __hash__(self) -> int:
        return id(self)


class _StoredDtype(StoredObject):
    """A numpy dtype: kind and byte order as stored."""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "|"):
            self.order = state[1]


class _StoredArray(StoredObject):
    """A numpy array as stored, decoded only if it is plain numbers."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def tensor(self) -> Tensor | None:
        """The numbers, or None where they are of another kind or do not fill the shape."""
        if not (isinstance(self.state, tuple) and len(self.state) == 5):
            return None
        _, shape, dtype, fortran, raw = self.state
        if not (isinstance(dtype, _StoredDtype) and isinstance(raw, bytes) and isinstance(shape, tuple)):
            return None
        if not re.fullmatch(r"[fiu][1248]", dtype.code):
            return None
        try:
            flat = np.frombuffer(raw, np.dtype(dtype.order + dtype.code)).astype(dtype.code)
            return torch.from_numpy(np.ascontiguousarray(flat.reshape(shape, order="F" if fortran else "C")))
        except (ValueError, TypeError):
            return None


def _mapping(*_: Any) -> OrderedDict[Any, Any]:
    return OrderedDict()


_SETTINGS = (
    "argparse.Namespace",
    "typing.Any",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "pathlib.WindowsPath",
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.Metadata",
    "omegaconf.base.ContainerMetadata",
    *(
        f"omegaconf.nodes.{kind}Node"
        for kind in ("Any", "String", "Integer", "Float", "Boolean", "Enum", "Path", "Bytes", "Union")
    ),
    *(f"builtins.{kind}" for kind in ("dict", "list", "int", "float", "str", "bool", "tuple", "slice")),
    *(f"numpy.{core}.multiarray.scalar" for core in ("core", "_core")),
)
_ONE_AT_A_TIME = threading.Lock()  # for what torch allows is known to all threads
_STAND_INS: list[Any] = [
    *((StoredObject, name) for name in _SETTINGS),
    (_mapping, "collections.defaultdict"),
    *(
        (OrderedDict, f"{package}.utilities.{module}.AttributeDict")
        for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
        for module in ("parsing", "data")
    ),
    *((_StoredArray, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    (StoredObject, "numpy.ndarray"),
    (_StoredDtype, "numpy.dtype"),
]
_NOT_A_MODEL = re.compile(
    r"(optim|scaler|lr_sched|sched|callback|loops|hyper_param|datamodule|rng|native_amp)", re.I
)


def load_torch_file(path: Path) -> tuple[Any, bool]:
    """Load a file of `torch.save` on the CPU, mapped where its format allows it.

    Args:
        path: `.pt`, `.pth`, `.pth.tar`, `.ckpt`, `.bin`, of any PyTorch since 0.4.

    Returns:
        The content, and whether all tensors are mapped: files of PyTorch before 1.6 are read whole, and so
        are numpy arrays, which come as tensors. Arguments of scripts are `StoredObject`s.

    Raises:
        DataError: the file is empty, damaged, or not openable without running code.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"z": torch.ones(2, 3)}, Path(folder, "z.pt"))
        ...     content, mapped = load_torch_file(Path(folder, "z.pt"))
        ...     content["z"].shape, mapped
        (torch.Size([2, 3]), True)
    """
    require_regular(path)
    try:
        mapped = _is_archive(path)
        if mapped:
            _check_archive(path)
        with _ONE_AT_A_TIME, torch.serialization.safe_globals(_STAND_INS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on formats that are refused or read all the same
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped or None)
    except FullrankError:
        raise
    except PermissionError as error:
        raise DataError(f"{path} may not be read") from error
    except OSError as error:
        raise DataError(f"{path} is damaged or cut short") from error
    except (
        Exception
    ) as error:  # UnpicklingError, RuntimeError, EOFError, KeyError, AttributeError, ... of torch
        raise DataError(_why(path, error)) from error
    _check_content(path, content)
    held: list[Tensor] = []
    content = _with_tensors(content, held)
    return content, mapped and not held


def _is_archive(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:  # an end that speaks of several disks
        return False


def _check_archive(path: Path) -> None:
    """Refuse what `torch.save` does not write: members that are larger than the file."""
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    size = path.stat().st_size
    if any(entry.compress_type != zipfile.ZIP_STORED or entry.file_size > size for entry in entries):
        raise DataError(f"{path} is damaged or no file of torch.save: its members are compressed")


def _check_content(path: Path, content: Any) -> None:
    """Check what was loaded, before it is walked through again and again.

    A list that holds itself, or lists of one list many times over, would never end; a tensor may have storage
    that the file does not hold.

    Raises:
        DataError: it is nested too deep, holds too much, or promises more numbers than the file has bytes.
    """
    waiting, containers, size = [(content, 0)], 0, path.stat().st_size
    stored: dict[int, int] = {}
    while waiting:
        part, depth = waiting.pop()
        if isinstance(part, Tensor):
            if part.device.type != "cpu":
                raise DataError(f"{path} is damaged: a tensor in it has no numbers")
            if part.layout == torch.strided and not part.is_quantized:
                stored[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
            continue
        if not isinstance(part, Mapping | list | tuple):
            continue
        containers += 1
        if depth > MAX_DEPTH or containers > MOST_CONTAINERS:
            raise DataError(f"{path} is nested more than {MAX_DEPTH} deep, or holds too many lists")
        inner = part.values() if isinstance(part, Mapping) else part
        waiting += [(each, depth + 1) for each in inner if isinstance(each, HOLDS)]
    if sum(stored.values()) > size:
        raise DataError(f"{path} is cut short: its tensors promise more bytes than its {size:,}")


def named_tensors(content: Any, within: str = "") -> dict[str, Tensor]:
    """Tensors in nested mappings by dotted path, without optimisers' state.

    Example:
        >>> one = torch.ones(1)
        >>> list(named_tensors({"model": {"a.weight": one}, "epoch": 3, "optimizer": {"m": one}}))
        ['model.a.weight']
    """
    if isinstance(content, Tensor):
        return {within: content}
    if isinstance(content, list | tuple):
        content = {str(i): part for i, part in enumerate(content)}
    found: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        for key, part in content.items():
            if isinstance(key, str) and not (isinstance(part, Mapping) and _NOT_A_MODEL.match(key)):
                found |= named_tensors(part, f"{within}.{key}" if within else key)
    return found


def _with_tensors(content: Any, held: list[Tensor]) -> Any:
    """The same with tensors where numpy arrays were stored; those are added to `held`."""
    if isinstance(content, _StoredArray):
        tensor = content.tensor()
        if tensor is None:
            return content
        held.append(tensor)
        return tensor
    if type(content) is dict:
        return {key: _with_tensors(part, held) for key, part in content.items()}
    if type(content) in (list, tuple):
        return type(content)(_with_tensors(part, held) for part in content)
    return content


def _why(path: Path, error: Exception) -> str:
    if path.stat().st_size == 0:
        return f"{path} is empty"
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"PK\x03\x04" and not _is_archive(path):
        return f"{path} is damaged or cut short"
    text = str(error)
    named = re.search(r"GLOBAL ([\w.]+)|\[<class '([\w.]+)'|class ([\w.]+)", text)
    what = next((group for group in named.groups() if group), "") if named else ""
    if isinstance(error, pickle.UnpicklingError) and what:
        return (
            f"{path} asks for {what.rstrip('.')} to be run, which is refused; whoever wrote it can save the "
            f"tensors alone, with torch.save(model.state_dict(), ...) or as .safetensors"
        )
    if "TorchScript" in text:
        return f"{path} is a TorchScript archive, which holds code; a state dict or .safetensors is needed"
    if isinstance(error, pickle.UnpicklingError | UnicodeDecodeError) and not _is_archive(path):
        return (
            f"{path} is no file of torch.save; a pickle can run code and is never opened: save a tensor or a "
            f"state dict with torch.save, or .npy or .safetensors"
        )
    first = text.strip().splitlines()[0] if text.strip() else type(error).__name__
    return f"{path} is damaged or no file of torch.save: {first[:120]}"
