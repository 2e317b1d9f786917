"""Train, and go on with what was interrupted."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.coercion import as_name
from fullrank.errors import PAGE_PACKAGES, UsageError, require_packages

if TYPE_CHECKING:
    from fullrank.encoders.initial import Sources
    from fullrank.training.config import TrainConfig
    from fullrank.training.loop import Outcome
    from fullrank.training.records import Listener


def train(
    start: Path | str, *, out: Path | str = "", listeners: Sequence[Listener] = (), **settings: Any
) -> Outcome:
    """Train a method on unlabelled images and watch it for collapse.

    Args:
        start: a method, a recipe or its file. A method on images that come along starts from its recipe for
            these.
        out: the run directory; empty: a free name under `runs`.
        listeners: each is called with every record as it is written.
        settings: options of `fullrank train` with underscores; the method's own as `options={...}`.

    Raises:
        UsageError: whatever cannot work, before anything is written; names come with the nearest real one.
        NotFiniteError: a number stopped being finite.

    Example:
        >>> import tempfile
        >>> small = {"limit": 64, "batch_size": 32, "epochs": 1, "backbone": "resnet8-w16"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     outcome = train("simsiam", data="shapes", out=f"{folder}/run", **small)
        >>> outcome.reason, outcome.record.verdict["tap"]
        ('finished', 'projector')
    """
    from fullrank.encoders.initial import Sources, open_initial_weights
    from fullrank.training.planning import plan_run

    name = as_name(start, "train takes the name of a method or recipe, or a recipe's file")
    if not isinstance(start, str) and not name.endswith((".yaml", ".yml")):
        raise UsageError(f"{name} is a path, and not one of a recipe: give a method's name as text")
    if "data" in settings:
        settings["data"] = as_name(settings["data"], "data is a folder or a name")
    plan = plan_run(name, settings, open_initial_weights)
    return train_config(plan.config, out, listeners, Sources(plan.data, plan.initial), plan.named)


def train_config(
    config: TrainConfig,
    out: Path | str,
    listeners: Sequence[Listener] = (),
    sources: Sources | None = None,
    named: Collection[str] | None = None,
) -> Outcome:
    """Train by a whole configuration, and write the run's page; see `train`.

    `sources` are its images and initial weights where open; what is not `named` may change to fit memory.
    """
    from fullrank.encoders.initial import open_initial_weights
    from fullrank.networks.processes import world
    from fullrank.report.run.page import write_page
    from fullrank.training import run, run_dir

    require_packages(*PAGE_PACKAGES)
    data, initial = sources or (None, open_initial_weights(config))
    outcome = run.train(config, Path(out or run_dir.free_name(config)), listeners, data, initial, named)
    if world()[0] == 0:
        write_page(outcome.path)
    return outcome


def resume(
    run: Path | str, *, listeners: Sequence[Listener] = (), override: Collection[str] = (), **settings: Any
) -> Outcome:
    """Continue a run exactly from its newest sound checkpoint, unless it has ended.

    `settings` replace its own: epochs, devices, workers, log, and others where `override` names them.

    Example:
        >>> resume("runs/first", epochs=200).reason  # doctest: +SKIP
        'finished'
    """
    from fullrank.adaptation.loop import AdaptLoop
    from fullrank.adaptation.page import write_pages
    from fullrank.adaptation.result import is_adaptation
    from fullrank.encoders.initial import open_initial_weights
    from fullrank.networks.processes import world
    from fullrank.training import run as training

    require_packages(*PAGE_PACKAGES)
    path = Path(as_name(run, "a run directory is taken"))
    loop = AdaptLoop if is_adaptation(path) else None
    outcome = training.resume(path, listeners, open_initial_weights, settings, override, loop)
    if world()[0] == 0:
        write_pages(outcome.path)
    return outcome
