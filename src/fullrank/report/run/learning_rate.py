"""Whether the learning rate is the likely cause of a run that failed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fullrank.report.run.summary import Summary

USUAL = {"sgd": 0.05, "lars": 0.3, "adam": 1e-3, "adamw": 1e-3}  # for 256 images, of other optimisers
BY_CHANCE = 0.03  # of accuracy, on some hundred images
TOO_HIGH, RISING = 3.0, 1.5  # times the usual rate; with a loss that ended higher than it began


def rate_note(config: Mapping[str, Any], summary: Summary) -> str:
    """What to say of the rate of a run that collapsed or got worse than untrained.

    Empty where the run did not fail, or its rate is about what its method, or the recipe tried on its images,
    starts with.

    Example:
        >>> summary = Summary("run", knn_untrained=0.4, knn=0.2)
        >>> rate_note({"method": "simsiam", "optimizer": "sgd", "lr": 2.0, "image_size": 32}, summary)[:71]
        'the learning rate is the likely cause: 2 is 40 times the 0.05 that sims'
        >>> rate_note({"method": "simsiam", "optimizer": "sgd", "lr": 0.05, "image_size": 32}, summary)
        ''
    """
    before, now = summary.knn_untrained, summary.knn
    worse = before is not None and now is not None and now < before - by_chance(before, now, summary)
    if not (summary.judgement.collapsed or worse) or "lr" not in config:
        return ""
    usual = max(_usual_rate(config), _chosen_rate(config, summary))
    ratio = float(config["lr"]) / usual if usual else 0.0
    rose = len(summary.losses) > 1 and summary.losses[-1] > summary.losses[0]
    if ratio < (RISING if rose else TOO_HIGH):
        return ""
    return (
        f"the learning rate is the likely cause: {config['lr']:g} is {ratio:.2g} times the {usual:g} that "
        f"{config.get('method')} starts with; try --lr {usual:g}, or a warm-up (--warmup-epochs)"
    )


def by_chance(one: float, other: float, summary: Summary) -> float:
    """Difference of two accuracies of k-NN that may be chance.

    `BY_CHANCE`, or two standard errors where that is more.

    Example:
        >>> round(by_chance(0.5, 0.4, Summary("run", knn_of={"queries": 99})), 3)
        0.141
    """
    queries = summary.knn_of.get("queries")
    error = ((one * (1 - one) + other * (1 - other)) / queries) ** 0.5 if queries else 0.0
    return max(BY_CHANCE, 2 * error)


def _usual_rate(config: Mapping[str, Any]) -> float:
    """The rate of the recipe for these images, or the method's own, scaled alike."""
    from fullrank.methods import METHODS
    from fullrank.training.config import TrainConfig
    from fullrank.training.recipes import starting_point

    method, data = str(config.get("method")), str(config.get("data", ""))
    if method not in METHODS:
        return 0.0
    plain = {"optimizer": TrainConfig.optimizer, "lr": TrainConfig.lr, "lr_scaling": TrainConfig.lr_scaling}
    start = {**plain, **METHODS[method].defaults(int(config.get("image_size") or 224))}
    for layer in starting_point(method, data)[1]:
        start |= layer
    optimizer, scaling = config.get("optimizer", start["optimizer"]), config.get("lr_scaling", "linear")
    usual = float(start["lr"]) if optimizer == start["optimizer"] else USUAL.get(str(optimizer), 0.0)
    if start["lr_scaling"] == scaling:
        return usual
    scale = int(config.get("batch_size", 256)) * int(config.get("accumulate", 1)) / 256
    return usual * scale if scaling == "none" else usual / scale


def _chosen_rate(config: Mapping[str, Any], summary: Summary) -> float:
    """The rate that is chosen for such images where nobody names one."""
    from fullrank.methods import METHODS
    from fullrank.training.defaults import Situation, default_settings

    method, named = str(config.get("method")), {}
    if method not in METHODS:
        return 0.0
    for key in ("batch_size", "accumulate", "epochs", "lr_scaling"):
        if key in config:
            named[key] = config[key]
    batches = int(config.get("accumulate", 1)) * (summary.step // summary.epoch if summary.epoch else 16)
    images = batches * int(config.get("batch_size", 256))
    size, backbone = int(config.get("image_size") or 224), str(config.get("backbone", "auto"))
    optimizer, rates = config.get("optimizer"), [0.0]
    ways: list[dict[str, Any]] = [{}] if summary.epoch else []  # chosen with the rate, for so many steps
    for asked in [*ways, {"optimizer": optimizer} if optimizer else {}]:
        at = Situation(method, images, size, backbone, str(config.get("data", "")), named | asked)
        chosen = default_settings(at)
        own = chosen["optimizer"].value if "optimizer" in chosen else optimizer
        if "lr" in chosen and optimizer in (None, own):
            rates.append(float(chosen["lr"].value))
    return max(rates)
