"""Recipes: settings of runs, with their source and what they aim at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from fullrank.coercion import load_yaml
from fullrank.errors import UnknownNameError, UsageError
from fullrank.training.config import TrainConfig
from fullrank.untrusted.parsing import read_text

FOLLOW_WEIGHTS = ("backbone", "stem", "image_size")


@dataclass(frozen=True)
class Recipe:
    """Published or tried setting, as YAML in the package.

    `name` is `<data set>/<method>`, with a suffix where there are several; `aims_at` is the result that it
    should give, and by whom it was reported; `settings` are keys of TrainConfig, `options` among them.
    """

    name: str
    about: str
    source: str
    aims_at: str
    settings: Mapping[str, Any]


@lru_cache(maxsize=1)
def _recipe_files() -> dict[str, Path]:
    folder = Path(__file__).parents[1] / "recipes"
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in folder.rglob("*.yaml")}


def recipe_names() -> list[str]:
    """Names of the recipes in the package.

    Example:
        >>> "cifar10/simsiam" in recipe_names()
        True
    """
    return sorted(_recipe_files())


def load_recipe(name: str) -> Recipe:
    """Load a recipe by its name, or from a YAML file of the user's own.

    Raises:
        UnknownNameError: no such recipe, or a key in it that does not exist.
        UsageError: the file is no mapping.
    """
    files = _recipe_files()
    if name.endswith((".yaml", ".yml")):
        if not Path(name).is_file():
            raise UsageError(f"no recipe file {name}; `fullrank list recipes` names those in the package")
        text = read_text(Path(name))
    elif name in files:
        text = files[name].read_text()
    else:
        raise UnknownNameError("recipe", name, files)
    try:
        values = load_yaml(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{name} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict) or "method" not in values:
        raise UsageError(f"{name} must be a mapping with a `method`")
    about = {key: str(values.pop(key, "")) for key in ("about", "source", "aims_at")}
    TrainConfig.from_dict(values)
    return Recipe(name, **about, settings=values)


def starting_point(start: str, data: str, init: str = "") -> tuple[str, list[Mapping[str, Any]], str]:
    """The method, the first settings and the recipe that a name stands for.

    A method on an embedded data set starts from the recipe that was tried on it, where there is one:
    published settings are for larger images and hundreds of epochs. Its backbone and image size stand back
    where the run starts from weights, `init`.
    """
    from fullrank.methods import METHODS

    name = start
    if start in METHODS:
        name = f"{data}/{start}"
        if not name.startswith(("shapes/", "digits/")) or name not in recipe_names():
            return start, [], start
    if "/" in name or name.endswith((".yaml", ".yml")):
        settings = load_recipe(name).settings
        method = str(settings["method"])
        if init and name != start:
            settings = {key: value for key, value in settings.items() if key not in FOLLOW_WEIGHTS}
        return method, [settings], name
    if start in METHODS.broken:
        raise UsageError(METHODS.broken[start])
    raise UnknownNameError("method or recipe", start, [*METHODS, *recipe_names()])
