"""Self-check of convolutions in channels_last, where PyTorch may crash.

Strided 1x1 convolutions of fewer than 16 channels end Python itself on CPUs with AVX-512 (PyTorch 2.15,
inputs of 56 pixels and more). So narrow ones are tried in a child process, once per version and CPU.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.atomic import write_atomically

NARROW = 16  # channels of a group that fill a vector of the widest CPUs
STRIDED = 64  # channels of a 1x1 convolution with a stride, which subsamples its input first
CHILD = "from fullrank.networks.layouts import check_stdin; check_stdin()"
UNKNOWN = "could not be tried in"
SECONDS = 300.0  # that a child may take, on a busy machine


@dataclass(frozen=True, order=True)
class Convolution:
    """A convolution of a network on inputs of one size."""

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    groups: int
    height: int
    width: int
    dtype: str

    def __str__(self) -> str:
        kernel, stride = "x".join(map(str, self.kernel_size)), self.stride[0]
        groups = f", {self.groups} groups" if self.groups > 1 else ""
        return (
            f"{kernel} convolutions of {self.in_channels} to {self.out_channels} channels (stride {stride}"
            f"{groups}, {self.height} pixels, {self.dtype})"
        )


def channels_last_fault(network: nn.Module, sizes: Iterable[int], dtype: torch.dtype = torch.float32) -> str:
    """What keeps a network from channels_last on this CPU, in one line, or "".

    A network without narrow convolutions is not tried.

    Args:
        network: images [n, 3, S, S] to features, on the CPU.
        sizes: S of every kind of view.
        dtype: of the arithmetic, as autocast has it.

    Example:
        >>> channels_last_fault(nn.Conv2d(3, 64, 3), [32])
        ''
    """
    found = sorted(set(suspects(network, sizes, dtype)))
    faults = check(found)
    return next((f"{faults[conv]} {conv}" for conv in found if faults[conv]), "")


def _suspect(conv: nn.Conv2d) -> bool:
    inner, outer = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    pointwise = set(conv.kernel_size) == {1}
    if pointwise and set(conv.stride) != {1} and min(inner, outer) < STRIDED:
        return True
    return min(outer, inner if inner != 3 else outer) < NARROW  # 3: the images


@torch.no_grad()
def suspects(network: nn.Module, sizes: Iterable[int], dtype: torch.dtype) -> Iterator[Convolution]:
    """Narrow convolutions of a network, with the sizes of their inputs."""
    narrow = [m for m in network.modules() if isinstance(m, nn.Conv2d) and _suspect(m)]
    if not narrow:
        return
    seen: list[Convolution] = []

    def note(conv: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv2d)
        pad = (0, 0) if isinstance(conv.padding, str) else conv.padding
        height, width = inputs[0].shape[-2:]
        seen.append(
            Convolution(
                conv.in_channels, conv.out_channels, _pair(conv.kernel_size), _pair(conv.stride), _pair(pad),
                _pair(conv.dilation), conv.groups, height, width, str(dtype).removeprefix("torch."),
            )
        )  # fmt: skip

    hooks = [conv.register_forward_pre_hook(note) for conv in narrow]
    training = network.training
    try:
        for size in sorted(set(sizes)):
            with contextlib.suppress(RuntimeError, AssertionError):  # what it cannot take it says in training
                network.eval()(torch.zeros(1, 3, size, size))
    finally:
        network.train(training)
        for hook in hooks:
            hook.remove()
    yield from seen


def _pair(values: tuple[int, ...]) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def check(convolutions: list[Convolution]) -> dict[Convolution, str]:
    """`crashes in`, `is wrong in` or "" for each, from the cache or a child process."""
    known = _read_cache()
    todo = [conv for conv in convolutions if _key(conv) not in known]
    fresh = dict(zip(todo, _in_child(todo), strict=True)) if todo else {}
    if fresh:
        _write_cache({_key(conv): fault for conv, fault in fresh.items() if fault != UNKNOWN})
    return {conv: fresh[conv] if conv in fresh else known[_key(conv)] for conv in convolutions}


def _in_child(convolutions: list[Convolution]) -> list[str]:
    """Faults of all, found in a child process."""
    package = str(Path(__file__).parents[2])
    env = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (package, os.environ.get("PYTHONPATH"))))}
    try:
        done = subprocess.run(
            [sys.executable, "-c", CHILD],
            input=json.dumps([asdict(conv) for conv in convolutions]),
            capture_output=True,
            text=True,
            env=env,
            timeout=SECONDS,
        )
        faults = [str(fault) for fault in json.loads(done.stdout)]
    except (OSError, ValueError, subprocess.TimeoutExpired):
        faults = []
    return faults if len(faults) == len(convolutions) else [UNKNOWN] * len(convolutions)


def check_stdin() -> None:
    """Try each convolution of standard input in a fork; print their faults."""
    with contextlib.suppress(ImportError):  # Windows has none
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    torch.set_num_threads(1)  # a fork has no other threads
    print(json.dumps([_forked(Convolution(**_tuples(values))) for values in json.load(sys.stdin)]))


def _forked(conv: Convolution) -> str:
    if not hasattr(os, "fork"):
        return UNKNOWN
    child = os.fork()
    if child == 0:
        code = 2
        try:
            code = int(try_convolution(conv))
        finally:
            os._exit(code)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return "crashes in" if status < 0 else {0: "is wrong in", 1: ""}.get(status, UNKNOWN)


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}


def try_convolution(conv: Convolution, repeats: int = 3) -> bool:
    """Whether values and gradients of a convolution equal the contiguous ones."""
    dtype = getattr(torch, conv.dtype)
    tolerance = 1e-3 if dtype is torch.float32 else 0.05
    for _ in range(repeats):  # an overrun ends Python when memory is next taken or given back
        module = nn.Conv2d(
            conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation,
            conv.groups, bias=False,
        )  # fmt: skip
        x = torch.randn(2, conv.in_channels, conv.height, conv.width)
        expected = _values_and_gradients(module, x, torch.contiguous_format, dtype)
        found = _values_and_gradients(module, x, torch.channels_last, dtype)
        for one, other in zip(found, expected, strict=True):
            if not (one - other).abs().max() <= tolerance * other.abs().max().clamp(min=1e-6):
                return False
    return True


def _values_and_gradients(
    module: nn.Module, x: Tensor, layout: torch.memory_format, dtype: torch.dtype
) -> list[Tensor]:
    module.zero_grad()
    module.to(memory_format=layout)
    x = x.contiguous(memory_format=layout).detach().requires_grad_()
    with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32):
        y = module(x)
    y.float().square().sum().backward()
    gradients = [p.grad for p in (x, *module.parameters()) if p.grad is not None]
    return [value.detach().float().clone() for value in (y, *gradients)]


def _key(conv: Convolution) -> str:
    """Name of a convolution on this CPU with this PyTorch."""
    build = (torch.__version__, torch.backends.cpu.get_cpu_capability(), _processor())
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "")
    return hashlib.sha256(repr((*build, isa, conv)).encode()).hexdigest()[:24]


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def cache_file() -> Path:
    """Where faults are kept: `$XDG_CACHE_HOME/fullrank`, else `~/.cache/fullrank`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fullrank" / "layouts.json"


def _read_cache() -> dict[str, str]:
    try:
        known = json.loads(cache_file().read_text())
    except (OSError, ValueError):
        return {}
    return (
        {key: value for key, value in known.items() if isinstance(value, str)}
        if isinstance(known, dict)
        else {}
    )


def _write_cache(fresh: Mapping[str, str]) -> None:
    path = cache_file()
    with contextlib.suppress(OSError):  # without a cache each run tries again
        write_atomically(path, json.dumps(_read_cache() | dict(fresh)).encode())
