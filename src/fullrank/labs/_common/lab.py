"""What a lab is: its cells, and what their results come to."""

from __future__ import annotations

import json
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fullrank.errors import UsageError
from fullrank.images.named import DATA
from fullrank.labs._common.findings import Findings
from fullrank.labs._common.results import Results
from fullrank.methods import METHODS
from fullrank.registry import Registry
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.recipes import load_recipe

__all__ = ["LABS", "Job", "Lab", "Settings", "plan_cells"]

Settings = Mapping[str, Any]
LARGE = 224  # pixels of images whose size no name tells


@dataclass(frozen=True)
class Job:
    """One piece of a lab, run by itself and never twice: a training run, a computation, or both in turn.

    Attributes:
        arm: what is done; cells of one arm differ in their seed alone.
        seed: of everything random.
        train: settings of a training run, as keys of TrainConfig with `options`, over those of `recipe` (or
            of the defaults of `method`); empty: nothing is trained.
        measure: a function of a module, called with `arguments`, and with `run`, the run's directory, where
            something was trained; it returns what JSON holds.
        arguments: JSON-able.
        part: of the lab, where it has several.

    Example:
        >>> cell = Job("SimSiam", 1, {"recipe": "shapes/simsiam", "epochs": 3}, part="2x2")
        >>> cell.name, cell.folder, cell.config().epochs, cell.config().seed
        ('2x2: SimSiam, seed 1', '2x2-simsiam-seed-1', 3, 1)
    """

    arm: str
    seed: int
    train: Settings = field(default_factory=dict)
    measure: Callable[..., Settings] | None = None
    arguments: Settings = field(default_factory=dict)
    part: str = ""

    @property
    def name(self) -> str:
        """How the cell is called."""
        return f"{self.part + ': ' if self.part else ''}{self.arm}, seed {self.seed}"

    @property
    def folder(self) -> str:
        """The name of the cell's folder."""
        return slug(self.name)

    def plan(self) -> dict[str, Any]:
        """Everything that decides the result, as JSON holds it: a finished cell is known by it."""
        function = f"{self.measure.__module__}.{self.measure.__qualname__}" if self.measure else ""
        return dict(
            json.loads(
                json.dumps(
                    {
                        "part": self.part,
                        "arm": self.arm,
                        "seed": self.seed,
                        "train": self.config().as_dict() if self.train else {},
                        "measure": function,
                        "arguments": dict(self.arguments),
                    }
                )
            )
        )

    def config(self) -> TrainConfig:
        """The whole configuration of the training run: the method's defaults, the recipe, `train`, the seed.

        Raises:
            UsageError: settings that cannot be.
        """
        own = dict(self.train)
        recipe = load_recipe(own.pop("recipe")).settings if "recipe" in own else {}
        method = own.pop("method", recipe.get("method", TrainConfig.method))
        data = own.get("data", recipe.get("data", TrainConfig.data))
        known = DATA[data].size if data in DATA else 0
        size = own.get("image_size", recipe.get("image_size", 0)) or known or LARGE
        defaults = {key: value for key, value in METHODS[method].defaults(size).items() if key != "views"}
        return make_train_config(method, defaults, recipe, own, {"seed": self.seed})


class Lab(ABC):
    """An experiment of a paper: subclass it, fill in what follows, and register it.

    Attributes:
        title: a line.
        paper: whom to cite.
        says: what the paper claims, in a sentence or two.
        presets: settings by name, as JSON holds them: `laptop`, `paper`, and `tiny` for tests. A setting
            `data` is what `--data` overrides; `parts` are those done where none is asked for.
        parts: names of separate experiments within the lab, each with a line about it; none: there is one.
    """

    title: ClassVar[str]
    paper: ClassVar[str]
    says: ClassVar[str]
    presets: ClassVar[Mapping[str, Settings]]
    parts: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def cells(self, preset: Settings, part: str, seed: int) -> Iterable[Job]:
        """The cells of one part (empty where the lab has none) and one seed."""

    @abstractmethod
    def analyse(self, results: Results, preset: Settings) -> Findings:
        """What the finished cells come to; some may be missing."""


LABS: Registry[type[Lab]] = Registry("lab", group="fullrank.labs")


def plan_cells(lab: Lab, preset: Settings, parts: Sequence[str], seeds: Sequence[int]) -> list[Job]:
    """All cells, seed by seed, so that what is done first makes a whole page.

    Raises:
        UsageError: the names of two cells are too alike.
    """
    cells = [cell for seed in seeds for part in parts or ("",) for cell in lab.cells(preset, part, seed)]
    folders = [cell.folder for cell in cells]
    if len(set(folders)) < len(folders):
        twice = next(cell for cell in cells if folders.count(cell.folder) > 1)
        raise UsageError(f"two cells would lie in one folder, {twice.folder}: give their arms other names")
    return cells


def slug(name: str) -> str:
    """A name as a file may bear it.

    Example:
        >>> slug("2x2: no stop-gradient, seed 0")
        '2x2-no-stop-gradient-seed-0'
        >>> slug("online, S²")
        'online-s2'
    """
    plain = unicodedata.normalize("NFKC", name).lower()  # S² is s2, not s
    return re.sub(r"[^a-z0-9.]+", "-", plain).strip("-.")
