"""Treatments that apply to a run: those that change one of its settings."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from fullrank.collapse.treatments import (
    PROOFS,
    TREATMENTS,
    Advice,
    Proof,
    Treatment,
    advice,
    changed_settings,
    ranked,
)
from fullrank.errors import UsageError
from fullrank.images.named import DATA
from fullrank.methods import METHODS
from fullrank.training.config import TrainConfig
from fullrank.training.contract import with_changes
from fullrank.training.defaults import RATES, default_views
from fullrank.training.recipes import starting_point

OWN_SIZE = 32  # pixels, where nobody says a size: of the images that come along


class Prescription(NamedTuple):
    """A treatment with the settings that it changes in a run."""

    treatment: Treatment
    changes: Mapping[str, Any]

    def applied_to(self, config: TrainConfig) -> TrainConfig:
        """The configuration with the changes; raises UsageError for what cannot be."""
        return with_changes(config, self.changes)

    def words(self, before: TrainConfig) -> str:
        """The changes in a line.

        Example:
            >>> found = Prescription(TREATMENTS["usual rate"], {"lr": 0.05})
            >>> found.words(TrainConfig(lr=0.5))
            'lr 0.5 → 0.05'
        """
        settings = flat_settings(before)
        return ", ".join(f"{key} {settings[key]} → {value}" for key, value in self.changes.items())


def flat_settings(config: TrainConfig) -> dict[str, Any]:
    """All settings of a run, `options.NAME` too, and whether the batch is compared."""
    values = config.as_dict()
    options = values.pop("options")
    compares = {"compares_batch": METHODS[config.method].compares_batch}
    return values | {f"options.{name}": value for name, value in options.items()} | compares


def usual_settings(config: TrainConfig) -> dict[str, Any]:
    """What is usual with the method and optimiser of a run, likewise.

    On an embedded data set what its recipe has is as usual as what the method has.

    Example:
        >>> usual = usual_settings(TrainConfig(method="simsiam", lr=5.0))
        >>> usual["weight_decay"], usual["options.stop_gradient"]
        (0.0005, True)
    """
    method = METHODS[config.method]
    size = config.image_size or (DATA[config.data].size if config.data in DATA else 0) or OWN_SIZE
    own = {f.name: f.default for f in fields(TrainConfig) if isinstance(f.default, int | float | str)}
    short = method.small_batch_defaults
    for chosen in (method.defaults(size), short):
        if chosen.get("optimizer", TrainConfig.optimizer) == config.optimizer:
            own |= chosen
    if own["optimizer"] != config.optimizer:
        own |= RATES[config.optimizer]
    own["views"] = "auto" if config.views == "auto" else default_views(config.method, size, config.data)
    own |= {f"options.{name}": value for name, value in method.Config().__dict__.items()}
    return own | _as_the_recipe_has_it(config, own)


def _as_the_recipe_has_it(config: TrainConfig, own: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the recipe for the data that the run has not from its method."""
    settings = flat_settings(config)
    found: dict[str, Any] = {}
    for recipe in starting_point(config.method, config.data, config.init)[1]:
        options = {f"options.{name}": value for name, value in recipe.get("options", {}).items()}
        if recipe.get("optimizer", TrainConfig.optimizer) == config.optimizer:
            found |= {
                name: value
                for name, value in {**recipe, **options}.items()
                if settings.get(name) != own.get(name)
            }
    return found


def prescriptions(
    config: TrainConfig, kinds: Collection[str], proofs: Mapping[str, Proof] = PROOFS
) -> list[Prescription]:
    """Treatments that change a setting of a run, the most promising first.

    A setting that is not what keeps the method from collapse is mended whatever the kind is; general
    treatments are those of the kind. See `ranked` for their order.

    Example:
        >>> config = TrainConfig(method="simsiam", options={"stop_gradient": False})
        >>> prescriptions(config, ["complete"])[0].treatment.name
        'stop-gradient'
    """
    settings, usual = flat_settings(config), usual_settings(config)
    answering = [t for t in TREATMENTS.values() if not t.general or set(kinds) & set(t.kinds)]
    found = []
    for treatment in ranked(answering, proofs):
        if changes := changed_settings(treatment, settings, usual):
            one = Prescription(treatment, changes)
            try:
                one.applied_to(config)
            except UsageError:  # with these other settings it cannot be
                continue
            found.append(one)
    return found


def advice_for(values: Mapping[str, Any], kinds: Collection[str], most: int = 5) -> list[Advice]:
    """What to try in a run with these settings, then what no setting does.

    Settings that cannot be read, as those of another version, have the advice of their kinds.
    """
    answering = [t for t in TREATMENTS.values() if set(kinds) & set(t.kinds)]
    try:
        applied = [found.treatment for found in prescriptions(TrainConfig.from_dict(values), kinds)]
    except (UsageError, TypeError, ValueError):
        applied = [t for t in ranked(answering) if t.changes]
    return [advice(t) for t in [*applied[:most], *(t for t in answering if not t.changes)]]
