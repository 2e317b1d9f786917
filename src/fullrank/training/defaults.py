"""Default settings of a run: what suits method, backbone and images."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from fullrank.images.named import DATA
from fullrank.methods import METHODS
from fullrank.networks.backbones import NARROW, SMALL_STEM_SIZE, default_backbone, is_transformer
from fullrank.training.config import TrainConfig
from fullrank.views import VIEWS

LARGE_BATCH = 1024  # images a step from which on LARS is what the papers take
STEPS_PER_EPOCH = 16  # that a batch leaves to an epoch, at least
LEAST_BATCH, COMPARED, MOST_BATCH = 16, 64, 256  # images; the second where a loss compares them
LEAST_STEPS = 1_000  # of a run, by more epochs where images are few
SHORT_STEPS = 20_000  # of a run, below which rates of a hundred epochs of ImageNet move too little
HORIZONS = 50  # times that a moving average forgets all in the course of a run

Family = Literal["ResNet", "ViT"]


class Default(NamedTuple):
    """A setting that nobody named, and why it is what it is."""

    value: Any
    reason: str


@dataclasses.dataclass(frozen=True)
class Situation:
    """What default settings depend on.

    Attributes:
        method: by name.
        images: to train on.
        image_size: side of the views in pixels.
        backbone: by name; auto: by image size.
        data: by name; some sets that come along have views of their own.
        named: settings that are chosen already, as keys of TrainConfig with `options`.
    """

    method: str
    images: int
    image_size: int
    backbone: str = "auto"
    data: str = ""
    named: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def family(self) -> Family:
        """Whether the backbone is trained as ResNets are, or as transformers are."""
        return "ViT" if is_transformer(self.backbone) else "ResNet"


def default_settings(at: Situation) -> dict[str, Default]:
    """Settings that nobody named, each with its reason, decided here alone.

    Keys are those of TrainConfig, and `options.NAME` for a method's own. What `at.named` has is left out, and
    what hangs on it follows it.

    Example:
        >>> chosen = default_settings(Situation("byol", images=2_000, image_size=32))
        >>> chosen["optimizer"].value, chosen["batch_size"]
        ('sgd', Default(value=64, reason='the power of two that leaves an epoch 16 steps or more'))
    """
    named = at.named
    chosen = _schedule_length(at)
    batch = _value(chosen, named, "batch_size")
    accumulate = named.get("accumulate", 1)
    epochs = _value(chosen, named, "epochs")
    steps = max(epochs * (at.images // max(batch * accumulate, 1)), 1)
    chosen |= _inputs(at)
    chosen |= _optimisation(at, batch * accumulate, steps)
    chosen |= _options(at, batch, steps)
    options = {f"options.{name}" for name in named.get("options", {})}
    return {key: default for key, default in chosen.items() if key not in named and key not in options}


def as_settings(chosen: Mapping[str, Default]) -> dict[str, Any]:
    """Default settings as a layer of `make_train_config`.

    Example:
        >>> as_settings({"lr": Default(0.1, ""), "options.tau_base": Default(0.9, "")})
        {'lr': 0.1, 'options': {'tau_base': 0.9}}
    """
    flat = {key: default.value for key, default in chosen.items() if "." not in key}
    options = {key.removeprefix("options."): d.value for key, d in chosen.items() if "." in key}
    return flat | ({"options": options} if options else {})


def default_views(method: str, image_size: int, data: str = "") -> str:
    """Preset of views: the data's own, else the method's for that size.

    Example:
        >>> default_views("simsiam", 32), default_views("simsiam", 224), default_views("byol", 16, "shapes")
        ('simsiam-cifar', 'simsiam', 'shapes')
    """
    if data in DATA and data in VIEWS:
        return data
    return str(METHODS[method].defaults(image_size).get("views", "simsiam"))


def _value(chosen: Mapping[str, Default], named: Mapping[str, Any], key: str) -> Any:
    return named[key] if key in named else chosen[key].value


def _schedule_length(at: Situation) -> dict[str, Default]:
    fill, few = (2 ** int(math.log2(max(at.images / parts, 1))) for parts in (STEPS_PER_EPOCH, 4))
    compared = min(COMPARED, few) if METHODS[at.method].compares_batch else 0
    batch = min(max(fill, LEAST_BATCH, compared), MOST_BATCH, at.images)
    why_batch = f"the power of two that leaves an epoch {STEPS_PER_EPOCH} steps or more"
    if batch == MOST_BATCH:
        why_batch = "what the papers' rates are for; larger ones take more memory"
    elif batch > max(fill, LEAST_BATCH):
        why_batch = "its loss compares the images of a batch, and fewer tell it too little"
    elif batch > fill:
        why_batch = "fewer images would leave BatchNorm too little to go by"
    steps = max(at.images // (at.named.get("batch_size", batch) * at.named.get("accumulate", 1)), 1)
    epochs = min(max(100, 10 * math.ceil(LEAST_STEPS / steps / 10)), 400)
    why_epochs = "the papers' shortest schedule"
    if epochs > 100:
        why_epochs = f"so few images need them for {min(LEAST_STEPS, 400 * steps):,} steps"
    return {"batch_size": Default(batch, why_batch), "epochs": Default(epochs, why_epochs)}


def _inputs(at: Situation) -> dict[str, Default]:
    views, size = default_views(at.method, at.image_size, at.data), at.image_size
    own = views == at.data
    why = "made for these images" if own else f"the method's for images of {size} pixels"
    chosen = {"views": Default(views, why)}
    backbone = default_backbone(size) if at.backbone == "auto" else at.backbone
    if NARROW.fullmatch(backbone) or backbone.startswith("resnet"):
        small = size <= SMALL_STEM_SIZE
        chosen["stem"] = Default(
            "cifar" if small else "imagenet",
            f"up to {SMALL_STEM_SIZE} pixels a 7x7 stem with pooling leaves too small a map"
            if small
            else f"above {SMALL_STEM_SIZE} pixels a 3x3 stem takes sixteen times the memory",
        )
    return chosen


def _optimisation(at: Situation, batch: int, steps: int) -> dict[str, Default]:
    """Optimiser, rate, decay and schedule for `batch` images a step."""
    method = METHODS[at.method]
    own = {"optimizer": TrainConfig.optimizer, "lr": TrainConfig.lr, **method.defaults(at.image_size)}
    optimizer = at.named.get("optimizer")
    if at.family == "ViT" and optimizer in (None, "adamw"):
        return _by_the_root(_of_transformers(own), at, batch)
    lars_for_few = own["optimizer"] == "lars" and batch < LARGE_BATCH
    if optimizer is None and batch < LARGE_BATCH and (lars_for_few or steps < SHORT_STEPS):
        chosen = method.small_batch_defaults
        why = f"a short run of {steps:,} steps takes a higher rate than the papers'"
        if lars_for_few:
            why = f"LARS is for {LARGE_BATCH:,} images a step and more"
    elif optimizer in (None, own["optimizer"]):
        chosen, why = own, "the method's own"
    else:
        chosen, why = RATES[optimizer], "usual with this optimiser"
    settings = {"schedule": "cosine", "warmup_epochs": -1.0} | {
        key: value for key, value in chosen.items() if key not in ("views", "batch_size")
    }
    reasons = {
        "schedule": "half a cosine to zero, by step",
        "warmup_epochs": "a tenth of the run, at most 10 epochs",
    }
    found = {key: Default(value, reasons.get(key, why)) for key, value in settings.items()}
    return _by_the_root(found, at, batch) if optimizer is None else found


def _by_the_root(chosen: dict[str, Default], at: Situation, batch: int) -> dict[str, Default]:
    """Adam's rate by the root of the batch, where the run scales it linearly."""
    scaling = at.named.get("lr_scaling", chosen.get("lr_scaling", Default("linear", "")).value)
    if scaling != "linear" or not chosen["optimizer"].value.startswith("adam") or batch >= MOST_BATCH:
        return chosen
    lr, why = chosen["lr"]
    root = Default(
        float(f"{lr * math.sqrt(MOST_BATCH / batch):.2g}"), f"{why}; Adam's goes by the root of the batch"
    )
    return chosen | {"lr": root}


def _of_transformers(own: Mapping[str, Any]) -> dict[str, Default]:
    adam = own["optimizer"] in ("adam", "adamw")
    return {
        "optimizer": Default("adamw", "transformers do not train with SGD or LARS"),
        "lr": Default(
            min(own["lr"], 1e-3) if adam else 5e-4,
            "the method's own, at most 1e-3" if adam else "DINO's for 256 images a step",
        ),
        "weight_decay": Default(0.04, "DINO's at the start"),
        "final_weight_decay": Default(0.4, "DINO's at the end, along a cosine"),
        "exclude_1d_decay": Default(True, "biases and normalisations do not decay"),
        "schedule": Default("cosine", "half a cosine, by step"),
        "warmup_epochs": Default(-1.0, "a tenth of the run, at most 10 epochs"),
        "warmup_lr": Default(0.0, "transformers diverge without a slow start"),
        "final_lr": Default(1e-6, "DINO's"),
        "clip_grad": Default(3.0, "DINO's"),
        "clip_grad_of": Default("tensor", "DINO's"),
    }


def _options(at: Situation, batch: int, steps: int) -> dict[str, Default]:
    """A method's own options where the papers' are for many more images or steps."""
    config = METHODS[at.method].Config()
    found: dict[str, Default] = {}

    def lower(name: str, most: float, reason: str) -> None:
        if hasattr(config, name) and most < getattr(config, name):
            kind = type(getattr(config, name))
            found[f"options.{name}"] = Default(kind(most), reason)

    forgets = f"a moving average that forgets {HORIZONS} times within {steps:,} steps"
    lower("tau_base", round(max(1 - HORIZONS / steps, 0.9), 4), forgets)
    lower("correlation_momentum", round(max(1 - 2 * HORIZONS / steps, 0.9), 4), forgets)
    entries = 2 ** int(math.log2(max(at.images / 4, 16)))
    lower("num_prototypes", entries, f"fewer than the {at.images:,} images, so that all are used")
    lower("queue_size", max(at.images // 2 // batch, 1) * batch, f"half of the {at.images:,} images")
    lower("epoch_queue_starts", 5, "a short run's")
    for name, default in METHODS[at.method].option_defaults(batch, at.named.get("options", ())).items():
        found[f"options.{name}"] = Default(*default)
    return found


RATES: dict[str, dict[str, Any]] = {
    "sgd": {"lr": 0.05, "weight_decay": 5e-4},
    "lars": {"lr": 0.3, "weight_decay": 1e-4, "lars_eta": 0.02, "lars_clip": True, "lars_exclude_1d": True},
    "adam": {"lr": 1e-3, "weight_decay": 1e-4},
    "adamw": {"lr": 1e-3, "weight_decay": 1e-2},
}
"""Rate for 256 images a step and decay of an optimiser that is not the one that suits."""


def described(config: TrainConfig, images: int) -> str:
    """The settings of a run that matter first, in a line.

    Example:
        >>> described(TrainConfig(batch_size=64, backbone="resnet18", image_size=32), 1_800)
        'resnet18 at 32 pixels, 100 epochs of 28 steps of 64 images, sgd at 0.05 x 64/256, decay 0.0001'
    """
    step = config.batch_size * config.accumulate
    scaled = f" x {step}/256" if config.lr_scaling == "linear" else ""
    decay = f"decay {config.weight_decay:g}"
    if config.final_weight_decay >= 0:
        decay += f" to {config.final_weight_decay:g}"
    words = [
        f"{config.backbone} at {config.image_size} pixels",
        f"{config.epochs} epoch{'s' * (config.epochs > 1)} of {images // step} steps of {step} images",
        f"{config.optimizer} at {config.lr:g}{scaled}",
        decay,
    ]
    if tau := config.options.get("tau_base"):
        words.append(f"EMA {tau:g}")
    return ", ".join(words)
