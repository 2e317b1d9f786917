"""A job: one training run, computation or command among many."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, Union

if TYPE_CHECKING:
    from fullrank.training.config import TrainConfig
    from fullrank.training.records import RunRecord

Settings = Mapping[str, Any]
LARGE = 224  # pixels of images of unknown size


@dataclass(frozen=True)
class Job:
    """One piece of work, never repeated: a training run, a function call, or both.

    Attributes:
        arm: what is done; jobs of one arm differ in their seed alone.
        seed: of everything random; None where the arm's name says it all.
        train: settings of a training run, as keys of TrainConfig with `options`, over those of `recipe` (or
            of the defaults of `method`); empty: nothing is trained.
        measure: a function of a module, called with `arguments`, and with `run`, the run's directory, where
            something was trained; it returns what JSON holds.
        arguments: JSON-able.
        part: of a lab, where it has several.
        until: epochs after which training pauses, its schedule being that of the whole; 0: at its end.

    Example:
        >>> job = Job("SimSiam", 1, {"recipe": "shapes/simsiam", "epochs": 3}, part="2x2")
        >>> job.name, job.folder, job.config().epochs, job.config().seed
        ('2x2: SimSiam, seed 1', '2x2-simsiam-seed-1', 3, 1)
    """

    arm: str
    seed: int | None = None
    train: Settings = field(default_factory=dict)
    measure: Callable[..., Any] | None = None
    arguments: Settings = field(default_factory=dict)
    part: str = ""
    until: int = 0

    @property
    def name(self) -> str:
        """Unique among the jobs that run together."""
        seed = "" if self.seed is None else f", seed {self.seed}"
        return f"{self.part + ': ' if self.part else ''}{self.arm}{seed}"

    @property
    def folder(self) -> str:
        """Name of the job's folder."""
        return slug(self.name)

    def plan(self) -> dict[str, Any]:
        """All that determines the result, as JSON; it identifies a finished job."""
        function = f"{self.measure.__module__}.{self.measure.__qualname__}" if self.measure else ""
        plan = {
            "part": self.part,
            "arm": self.arm,
            "seed": self.seed,
            "train": self.config().as_dict() if self.train else {},
            "measure": function,
            "arguments": dict(self.arguments),
        }
        plan |= {"until": self.until} if self.until else {}
        return dict(json.loads(json.dumps(plan)))

    def config(self) -> TrainConfig:
        """Training configuration: method defaults, the recipe, `train`, then the seed.

        Raises:
            UsageError: settings that cannot be.
        """
        from fullrank.images.named import DATA  # the lists of labs do without these
        from fullrank.methods import METHODS
        from fullrank.training.config import TrainConfig, make_train_config
        from fullrank.training.recipes import load_recipe

        own = dict(self.train)
        recipe = load_recipe(own.pop("recipe")).settings if "recipe" in own else {}
        method = own.pop("method", recipe.get("method", TrainConfig.method))
        data = own.get("data", recipe.get("data", TrainConfig.data))
        known = DATA[data].size if data in DATA else 0
        size = own.get("image_size", recipe.get("image_size", 0)) or known or LARGE
        defaults = {key: value for key, value in METHODS[method].defaults(size).items() if key != "views"}
        # curves have a point an epoch, whatever machine it is
        return make_train_config(method, {"watch_every": 1, **defaults}, recipe, own, {"seed": self.seed})


Notify: TypeAlias = Callable[[Job, str, Union["RunRecord", str, None]], None]
"""Called with a job, its state, and a record of its run (`running`), nothing (`done`) or why (`failed`)."""


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
