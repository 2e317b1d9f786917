"""Encoders of timm, torchvision and Hugging Face transformers.

Nothing is fetched unless the user asks for it: weights come from what these libraries have in their caches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from torch import Tensor, nn

from fullrank.encoders.checkpoints import read_weights
from fullrank.encoders.encoder import IMAGENET, Encoder, make_encoder
from fullrank.errors import DataError, UnknownNameError, UsageError, first_line
from fullrank.networks.architecture import Built, load_strictly, without_head
from fullrank.untrusted.parsing import read_json, refusing

NOT_OF_A_FILE = {"checkpoint_path", "cache_dir", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"}
"""Arguments of timm that open or fetch other files, in older releases by unpickling."""
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")


def refuse_unknown_name(spec: str) -> None:
    """Raise UnknownNameError where the library of `timm:NAME` has no such model.

    Example:
        >>> refuse_unknown_name("timm:resnet18")
        >>> refuse_unknown_name("torchvision:resnet81")
        Traceback (most recent call last):
            ...
        fullrank.errors.UnknownNameError: unknown torchvision model 'resnet81'; did you mean 'resnet18'?
    """
    library, _, name = spec.partition(":")
    if library == "timm":
        import timm

        if not timm.is_model(name):
            raise UnknownNameError("timm model", name, timm.list_models())
    elif library == "torchvision" and name not in torchvision_names():
        raise UnknownNameError("torchvision model", name, torchvision_names())


def from_timm(name: str, pretrained: bool, download: bool, image_size: int | None = None) -> Encoder:
    """A timm model by name, with or without a tag of its weights."""
    import timm

    refuse_unknown_name(f"timm:{name}")
    try:
        config: Any = timm.get_pretrained_cfg(name)
    except RuntimeError:  # an unknown tag
        config = None
    if config is None:
        raise UnknownNameError(
            "weights of a timm model", name, timm.list_pretrained(f"{name.split('.')[0]}*")
        )
    weights = _timm_weights(name, config, download) if pretrained else None
    return _timm(name, config.to_dict(), {}, weights, f"timm:{name}", image_size)


def _timm(
    name: str,
    config: dict[str, Any],
    options: dict[str, Any],
    weights: dict[str, Tensor] | None,
    origin: str,
    image_size: int | None,
) -> Encoder:
    """Build a model with a classifier, so that every weight fits, and take it off."""
    import timm

    if image_size and config.get("fixed_input_size"):
        options = {**options, "img_size": image_size}
    if weights is not None:
        drop = ("url", "file", "hf_hub_id", "source")
        overlay = {key: value for key, value in config.items() if key not in drop} | {"state_dict": weights}
        options = {**options, "pretrained": True, "pretrained_cfg": overlay}
    try:
        network: Any = timm.create_model(name.split(".")[0], **options)
        network.reset_classifier(0)
    except Exception as error:  # of timm and torch, on weights that do not fit or options that it has not
        first = (str(error).strip() or type(error).__name__).replace("\n", " ")
        raise UsageError(f"{origin} cannot be built: {first[:200]}") from error
    with refusing(f"{origin} cannot be built: its configuration is damaged"):
        return make_encoder(
            Built(name, network, config["input_size"][1], notes=[] if weights is not None else [UNTRAINED]),
            origin=origin,
            image_size=image_size,
            mean=config["mean"],
            std=config["std"],
            crop_ratio=config["crop_pct"],
            recorded=True,
        )


UNTRAINED = "untrained: the weights are random, as they were asked to be"


def _timm_weights(name: str, config: Any, download: bool) -> dict[str, Tensor]:
    if config.custom_load or not (config.hf_hub_id or config.url):
        raise UsageError(
            f"timm has no weights of {name} in PyTorch's format; take another tag, or no weights"
        )
    path = None
    if config.hf_hub_id:
        names = [config.hf_hub_filename] if config.hf_hub_filename else list(WEIGHT_FILES)
        path = _from_hub(config.hf_hub_id, names, download)
    elif config.url:
        path = _from_url(config.url, download)
    if path is None:
        raise _not_here(f"timm:{name}")
    return read_weights(path)[0]


def _not_here(what: str) -> DataError:
    return DataError(
        f"the weights of {what} are not on this machine: fetch them with --download, or take the network "
        f"with random weights (--untrained)"
    )


def _from_hub(repository: str, names: list[str], download: bool) -> Path | None:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    for name in names:
        cached = try_to_load_from_cache(repository, name)
        if isinstance(cached, str):
            return Path(cached)
    for name in names if download else ():
        try:
            return Path(hf_hub_download(repository, name))
        except EntryNotFoundError:
            continue
        except Exception as error:  # of the hub's client and of the network below it
            raise DataError(f"{repository} cannot be fetched: {first_line(error, 160)}") from error
    return None


def _from_url(url: str, download: bool) -> Path | None:
    path = Path(torch.hub.get_dir(), "checkpoints", Path(urlparse(url).path).name)
    if path.is_file():
        return path
    if not download:
        return None
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), progress=False)
    except OSError as error:
        raise DataError(f"{url} cannot be fetched: {error}") from error
    return path


def from_timm_folder(folder: Path, image_size: int | None = None) -> Encoder:
    """A directory as timm puts it on the Hub: `config.json` and `model.safetensors`."""
    config = read_json(folder / "config.json")
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise DataError(
            f"{folder} holds no weights: {' or '.join(WEIGHT_FILES)} is needed beside config.json"
        )
    weights = read_weights(file)[0]
    given = config.get("pretrained_cfg") or config
    import timm

    architecture = str(config["architecture"])
    if not timm.is_model(architecture.split(".")[0]):
        raise UnknownNameError("timm model", architecture, timm.list_models(), f"in {folder / 'config.json'}")
    defaults: Any = timm.get_pretrained_cfg(architecture.split(".")[0], allow_unregistered=True)
    known = {**(defaults.to_dict() if defaults else {}), **given}
    with refusing(f"{folder / 'config.json'} is damaged"):
        options = dict(config.get("model_args") or {})
        given = dict(given)
    if refused := sorted(NOT_OF_A_FILE & options.keys()):
        raise DataError(
            f"{folder / 'config.json'} may not set {refused[0]} of timm: remove it from model_args"
        )
    for key in ("num_classes", "global_pool"):
        if config.get(key) is not None:
            options.setdefault(key, config[key])
    known["num_classes"] = options.get("num_classes", known.get("num_classes", 1000))
    return _timm(architecture, known, options, weights, str(folder), image_size)


def torchvision_names() -> list[str]:
    """torchvision's classifiers of images."""
    import torchvision

    names: list[str] = torchvision.models.list_models(module=torchvision.models)
    return names


def from_torchvision(name: str, pretrained: bool, download: bool, image_size: int | None = None) -> Encoder:
    """A torchvision classifier without its last layer, with its default weights."""
    import torchvision

    refuse_unknown_name(f"torchvision:{name}")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    preset = weights.transforms()
    network = torchvision.models.get_model(name, weights=None)
    if pretrained:
        path = _from_url(weights.url, download)
        if path is None:
            raise _not_here(f"torchvision:{name}")
        load_strictly(Built(name, network), read_weights(path)[0], str(path))
    size = int(preset.crop_size[0])
    return make_encoder(
        Built(name, without_head(network, name), size, notes=[] if pretrained else [UNTRAINED]),
        origin=f"torchvision:{name}, {weights}" if pretrained else f"torchvision:{name}",
        image_size=image_size,
        mean=preset.mean,
        std=preset.std,
        crop_ratio=size / int(preset.resize_size[0]),
        recorded=True,
    )


class PooledOutput(nn.Module):
    """A transformers encoder as a map of images to its pooled output [n, d].

    Where that comes from a dense layer behind the class token (BERT's pooler in ViT), it is the class token.

    Args:
        encoder: takes `pixel_values`.
        dense: whether the pooler is such a layer.
    """

    def __init__(self, encoder: nn.Module, dense: bool) -> None:
        super().__init__()
        self.encoder, self.dense = encoder, dense

    def forward(self, images: Tensor) -> Tensor:
        """Images [n, 3, S, S] to features [n, d]."""
        output = self.encoder(pixel_values=images)
        pooled = None if self.dense else getattr(output, "pooler_output", None)
        if pooled is None:
            hidden: Tensor = output.last_hidden_state
            pooled = hidden[:, 0] if hidden.ndim == 3 else hidden.mean((2, 3))
        features: Tensor = pooled.flatten(1)
        return features


def from_hugging_face(where: str, download: bool, image_size: int | None = None) -> Encoder:
    """An encoder of transformers, by its name on the Hub or from a directory.

    Code that comes with a model is never run. Needs transformers.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError(f"{where} needs transformers; pip install 'fullrank[hf]'") from error
    options: dict[str, Any] = {"local_files_only": not download, "trust_remote_code": False}
    auto: Any = transformers.AutoModel
    if not Path(where).is_dir() and not download and _from_hub(where, ["config.json"], False) is None:
        raise _not_here(f"hf:{where}")
    try:
        with _quiet(transformers):
            encoder, loaded = auto.from_pretrained(where, output_loading_info=True, **options)
    except Exception as error:  # of the hub, the configuration, the weights
        raise DataError(f"hf:{where} cannot be opened: {first_line(error)}") from error
    prefix = ""
    if hasattr(encoder, "vision_model"):
        prefix, encoder = "vision_model.", encoder.vision_model
    missing = [key for key in loaded["missing_keys"] if key.startswith(prefix)]
    dense = hasattr(getattr(encoder, "pooler", None), "dense")
    missing = [key for key in missing if not (dense and key.startswith(f"{prefix}pooler."))]
    unlike = list(loaded.get("mismatched_keys") or ())
    if missing or unlike:
        shown = ", ".join(str(key) for key in [*missing, *unlike][:3])
        raise UsageError(
            f"hf:{where} lacks {len(missing) + len(unlike)} weights of its architecture ({shown})"
        )
    network = PooledOutput(encoder, dense)
    path: Path | None = Path(where, "preprocessor_config.json")
    if not Path(where).is_dir():
        path = _from_hub(where, ["preprocessor_config.json"], download)
    seen = read_json(path) if path is not None and path.is_file() else {}
    with refusing(f"{path} is damaged"):
        sizes = (seen.get("crop_size"), seen.get("size"), getattr(encoder.config, "image_size", None))
        size = next(filter(None, map(_side, sizes)), None)
        resized = _side(seen.get("size")) or size
    notes = ["features are the class token, not the dense layer behind it"] if dense else []
    return make_encoder(
        Built(str(encoder.config.model_type), network, size, notes=notes),
        origin=f"hf:{where}",
        image_size=image_size,
        mean=seen.get("image_mean") or IMAGENET[0],
        std=seen.get("image_std") or IMAGENET[1],
        crop_ratio=min(1.0, size / resized) if size and resized and seen.get("do_center_crop") else 1.0,
        recorded=bool(seen),
    )


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Silence transformers' reports on loading, which are read and judged here."""
    logging: Any = transformers.utils.logging
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()


def _side(size: Any) -> int | None:
    """Side in pixels of any of the forms in which transformers keeps a size."""
    if isinstance(size, Mapping):
        size = size.get("height") or size.get("shortest_edge")
    if isinstance(size, list | tuple):
        size = size[0]
    return int(size) if isinstance(size, int | float) else None
