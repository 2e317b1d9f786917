"""Cure a collapsed run: which change of settings keeps it from collapsing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from fullrank.api._options import chosen_options
from fullrank.coercion import as_name
from fullrank.cures.options import CureOptions
from fullrank.errors import PAGE_PACKAGES, require_packages

if TYPE_CHECKING:
    from fullrank.cures.onset import Diagnosis
    from fullrank.cures.plan import CurePlan
    from fullrank.cures.result import Cure


def cure(
    run: Path | str,
    options: CureOptions | None = None,
    *,
    out: Path | str = "",
    mode: str = "quiet",
    **changes: Any,
) -> Cure | Diagnosis:
    """Find out which treatment keeps a collapsed run from collapsing.

    The run is branched before its collapse, or trained again from its start, into an untreated arm and one
    for each of the most promising treatments, over seeds. A cure that was interrupted goes on.

    Args:
        run: the directory of a run that is not being trained.
        options: see `CureOptions`; single ones can be given by name, as `seeds=2`.
        out: where arms, table and page go; empty: `cure` in the run's directory.
        mode: "live", "plain" or "quiet".

    Returns:
        What each arm was worth; the diagnosis alone where there is nothing to cure, and nothing is written.

    Raises:
        UsageError: no run, one that no treatment changes, or a folder that holds something else.
        BusyError: the run is being trained, or this cure is being done.

    Example:
        >>> import tempfile
        >>> from fullrank import train
        >>> small = {"limit": 64, "batch_size": 32, "epochs": 1, "backbone": "resnet8-w16"}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = train("simclr", data="shapes", out=f"{folder}/run", **small).path
        ...     found = cure(run, seeds=1, most=1, epochs=1)
        >>> "healthy" in str(found) or found.untreated.name
        True
    """
    plan = plan_of(run, options, out=out, **changes)
    from fullrank.cures.cure import run_cure
    from fullrank.cures.onset import Diagnosis

    if isinstance(plan, Diagnosis):
        return plan
    return run_cure(plan, chosen_options(CureOptions, options, changes), mode)


def plan_of(
    run: Path | str, options: CureOptions | None = None, *, out: Path | str = "", **changes: Any
) -> CurePlan | Diagnosis:
    """What `cure` would do, with its cost; nothing is written."""
    from fullrank.cures.cure import make_plan

    require_packages(*PAGE_PACKAGES)
    chosen = chosen_options(CureOptions, options, changes)
    path = Path(as_name(run, "a run directory is taken"))
    return make_plan(path, chosen, Path(out) if out else None)
