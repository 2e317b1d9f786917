"""A run as an encoder with every tap of its method, and its images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fullrank.encoders.encoder import Encoder, check_finite, tap_module
from fullrank.encoders.opening import open_encoder
from fullrank.errors import DataError, UsageError
from fullrank.images.sources import Data
from fullrank.methods import Method
from fullrank.networks.lora import merge_lora
from fullrank.training.config import TrainConfig
from fullrank.training.data import open_run_data
from fullrank.training.networks import OpenInitial, build_networks
from fullrank.training.run_dir import RunDir
from fullrank.untrusted.parsing import parse_json, refusing
from fullrank.untrusted.paths import expand_user, require_regular

METHOD_TAPS = ("backbone", "projector", "predictor", "target", "codes")


def own_run(what: str | Path) -> RunDir | None:
    """The run directory of a path to it or to its `encoder.safetensors`; else None."""
    path = expand_user(what)
    folder = path.parent if path.name == "encoder.safetensors" else path
    return RunDir.open(folder) if (folder / "config.yaml").is_file() else None


def own_data(config: TrainConfig, limit: int = 0, download: bool = False) -> Data:
    """Open the images that a run was trained on, and the ones that it held out.

    `limit` takes only so many of each; 0 is all that the run saw.

    Example:
        >>> data = own_data(TrainConfig(limit=50, seed=3))
        >>> len(data.train), len(data.held_out)
        (50, 50)
    """
    most = min(filter(None, (limit, config.limit)), default=0)
    return open_run_data(replace(config, limit=most, download=download))


class EveryTap(nn.Module):
    """A method as a network, with a module for the output of each of its taps.

    Scores over codes are divided by the method's temperature, as the softmax over them wants it.
    """

    def __init__(self, method: Method, taps: Sequence[str]) -> None:
        super().__init__()
        self.method = method
        self.outlets = nn.ModuleDict({tap: nn.Identity() for tap in taps})
        for name in ("num_prefix_tokens", "output_fmt"):
            if hasattr(method.backbone, name):
                setattr(self, name, getattr(method.backbone, name))

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, 3, S, S] to features [n, d]."""
        taps = self.method.embed(images)
        for tap, rows in taps.items():
            self.outlets[tap](rows / self.method.code_temperature if tap == "codes" else rows)
        return taps["backbone"]


def open_with_taps(
    what: str | Path, taps: Sequence[str] | None, begin: OpenInitial | None = None, **options: Any
) -> Encoder:
    """Open an encoder; of a run whose method's taps are wanted, the whole method.

    The weights are those of the encoder that the run left: its last checkpoint's, or where a collapsed run
    kept its last healthy encoder, that one's. With `begin`, which opens what a run started from, they are
    those that the run began with. `options` are those of `open_encoder`.

    Raises:
        UsageError: the method has no such tap, or the run no checkpoint.
    """
    run = own_run(what)
    model = open_encoder(what, **options)
    first = None
    if run is not None and begin is not None:
        first = _first_method(run, begin, bool(options.get("download")))
        model = _as_begun(model, run, first)
    wanted = [tap for tap in taps or () if tap in METHOD_TAPS]
    if run is None or not wanted:
        return model
    method = first or _method(run)
    with torch.no_grad():
        there = list(method.embed(torch.zeros(2, 3, model.image_size, model.image_size)))
    for tap in wanted:
        if tap not in there:
            raise UsageError(f"{run.path}: {method.name} has no tap {tap}; it has {', '.join(there)}")
    network = EveryTap(method, there).eval().requires_grad_(False)
    modules = {name: tap_module(method.backbone, name) for name in model.taps}
    outlets = {tap: network.outlets[tap] for tap in there}
    others = [tap for tap in taps or () if tap not in (*modules, *outlets, "all", "features")]
    modules |= {tap: tap_module(method.backbone, tap) for tap in others}
    return replace(model, network=network, taps={**modules, **outlets})


def _as_begun(model: Encoder, run: RunDir, method: Method) -> Encoder:
    """The encoder of a run with the weights that it began with."""
    model.network.load_state_dict(merge_lora(dict(method.backbone.state_dict())))
    began = f"{run.path} as it began, before the first step"
    return replace(model, origin=began, notes=(*model.notes, f"the network of {began}"))


def _first_method(run: RunDir, begin: OpenInitial, download: bool) -> Method:
    """The method of a run before its first step: equal seeds give equal weights."""
    config = replace(run.config(), download=download)
    initial = begin(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_networks(config, initial)[1].eval()


def _method(run: RunDir) -> Method:
    config, step = run.config(), encoder_header(run).get("step")
    for found in run.checkpoints.every():
        state = found.state
        progress = state.get("progress")
        if isinstance(progress, dict) and progress.get("step") == step:  # that of the run's encoder
            break
    else:
        raise UsageError(
            f"{run.path} has no checkpoint of its encoder (step {step}): its features and layers can be had, "
            f"what its method puts behind them cannot"
        )
    with torch.random.fork_rng(devices=[]):
        method = build_networks(config)[1]
    try:
        method.load_state_dict(state["method"])
    except (RuntimeError, LookupError, TypeError, AttributeError) as error:
        first = (str(error) or type(error).__name__).strip().splitlines()[-1].strip()
        raise UsageError(f"{run.path}: its checkpoint does not fit its config.yaml: {first[:160]}") from error
    check_finite(method, str(found.path))
    return method.eval()


def encoder_header(run: RunDir) -> dict[str, Any]:
    """The header of a run's encoder: method, data, epoch, step, verdict and more."""
    path = run.path / "encoder.safetensors"
    if not path.is_file():
        raise DataError(f"{run.path} has no encoder.safetensors yet: its first checkpoint writes one")
    return read_header(path)


def encoder_step(what: str | Path) -> dict[str, int]:
    """Epoch and step of a run's encoder; {} of what is no run."""
    run = own_run(what)
    header = encoder_header(run) if run is not None else {}
    return {key: header[key] for key in ("epoch", "step") if isinstance(header.get(key), int)}


def begins_loaded(what: str | Path) -> bool:
    """Whether what is named is a run that began with loaded weights (`--init`)."""
    run = own_run(what)
    return run is not None and bool(run.config().init)


def is_untrained(what: str | Path) -> bool:
    """Whether an encoder is one of a run before its first step, of random weights."""
    path = expand_user(what)
    file = path / "encoder.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    header = read_header(file)
    if header.get("format") != "fullrank-encoder" or header.get("step") != 0:
        return False
    runs = [folder for folder in (file.parent, file.parent.parent) if (folder / "config.yaml").is_file()]
    return not (runs and RunDir.open(runs[0]).config().init)


def read_header(path: Path) -> dict[str, Any]:
    """The texts in the header of a safetensors file, parsed where they are JSON."""
    from safetensors import safe_open

    def value(text: str) -> Any:
        try:
            return parse_json(text, f"the header of {path}")
        except DataError:  # plain text, as a method's name
            return text

    require_regular(path)
    with refusing(f"{path} is no safetensors file, or damaged"), safe_open(path, framework="np") as file:
        # the library gives them in an order of chance
        return {key: value(text) for key, text in sorted((file.metadata() or {}).items())}
