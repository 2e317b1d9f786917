"""Start of a run, and its resumption from the newest sound checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from fullrank.errors import DataError, UnknownNameError, UsageError, printable
from fullrank.images.fingerprints import difference
from fullrank.images.sources import Data
from fullrank.training.agreement import check_same_run
from fullrank.training.checkpoint_files import LoadedCheckpoint
from fullrank.training.config import TrainConfig
from fullrank.training.contract import (
    check_contract,
    check_length,
    check_processes,
    check_same,
    check_shares,
    with_changes,
)
from fullrank.training.epoch_end import check_panels
from fullrank.training.fitting import fitted, naming_remedies
from fullrank.training.launch import launch_fabric
from fullrank.training.lifeline import failing_together
from fullrank.training.loop import Loop, Outcome, Until
from fullrank.training.lost_records import lost_records
from fullrank.training.networks import InitialWeights, OpenInitial
from fullrank.training.record_files import last_step
from fullrank.training.records import Listener
from fullrank.training.run_dir import RunDir
from fullrank.training.setup import Setup, prepare, setup

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MakeLoop: TypeAlias = Callable[[Setup, RunDir, Sequence[Listener]], Loop]
CHANGES_THE_RUN = ("batch_size", "image_size")  # what a run that goes on keeps, whatever memory there is


def train(
    config: TrainConfig,
    out: Path,
    listeners: Sequence[Listener] = (),
    data: Data | None = None,
    initial: InitialWeights | None = None,
    named: Collection[str] | None = None,
    make_loop: MakeLoop | None = None,
    until: Until = 0,
) -> Outcome:
    """Train from the start into a new run directory.

    Args:
        config: of the run.
        out: the run directory.
        listeners: each is called with every record as it is written.
        data: what `config` names, where it is open already.
        initial: the weights that it names, likewise.
        named: the settings that were asked for; the others may change so that the run fits into memory. None:
            all of them.
        make_loop: of set-up, run directory and listeners; None: `Loop`.
        until: epochs after which it pauses, for `resume` to go on by the same schedule; 0: at its end.

    Raises:
        UsageError: anything about the input that cannot work, before anything is written.
        FullrankError: the loss stopped being finite, or memory ran out.
    """
    RunDir.check_free(out)
    fabric = launch_fabric(config)
    with failing_together(fabric, out):
        check_panels(config, fabric.world_size)
        check_same_run(out)
        with naming_remedies(config):
            config, data = prepare(config, fabric, data, initial, named)
        config, data = fitted(config, data, fabric, named)
        with naming_remedies(config):
            s = setup(config, data, fabric, initial)
            run = RunDir.create(out, s.config) if fabric.is_global_zero else RunDir(out)
            fabric.barrier()
            with run.written_alone(fabric):
                loop = (make_loop or Loop)(s, run, listeners)
                loop.until = until
                return loop.run()


def resume(
    path: Path,
    listeners: Sequence[Listener] = (),
    open_initial: OpenInitial = lambda _: None,
    changes: Mapping[str, Any] | None = None,
    override: Collection[str] = (),
    make_loop: MakeLoop | None = None,
    until: Until = 0,
) -> Outcome:
    """Continue a run exactly from its newest sound checkpoint, unless it has ended.

    Args:
        path: the run directory.
        listeners: each is called with every record as it is written.
        open_initial: opens the weights that the run started from, where it has no checkpoint.
        changes: settings to go on with in place of those in `config.yaml`.
        override: settings that may differ from what the checkpoint was trained with, besides `FREE`.
        make_loop: of set-up, run directory and listeners; None: `Loop`.
        until: epochs after which it pauses again; 0: at its end.

    Raises:
        UsageError: there is no run, its data is not where it was, its settings changed, or its records are
            those of another.
        BusyError: another process writes into the run.
        DamagedCheckpointError: there are checkpoints, and none is sound.
    """
    run = RunDir.open(path)
    config = with_changes(run.config(), changes or {})
    fabric = launch_fabric(config)
    with failing_together(fabric, path), run.written_alone(fabric):
        check_panels(config, fabric.world_size)
        found = run.checkpoints.newest()
        check_same_run(path, found)
        if found is None:
            _see_that_nothing_was_trained(run)
        else:
            check_contract(config, found.state.get("config"), str(path), override)
            check_length(config, found.state.get("progress"), str(path))
            check_shares(config.batch_size, fabric.world_size, str(path))
        with naming_remedies(config):
            config, data = _prepared(config, fabric, path, changes or {})
        notes = [*_accepted(found, data, override), *_lost(found, run, fabric)]
        data = replace(data, notes=notes)  # its own were shown at the start
        config, data = fitted(config, data, fabric, CHANGES_THE_RUN)
        with naming_remedies(config):
            s = setup(config, data, fabric, None if found else open_initial(config))
            if found is not None:
                before = found.state.get("processes")
                check_processes(config, s.method, before, fabric.world_size, str(path), override)
            loop = (make_loop or Loop)(s, run, listeners)
            loop.until = until
            loop.restore(found)
            if fabric.is_global_zero and not loop.state.ended and s.config != run.config():
                run.write_config(s.config)
            return loop.run()


def _accepted(found: LoadedCheckpoint | None, data: Data, override: Collection[str]) -> list[str]:
    """A note on other images that `override` accepts: they are not compared."""
    if found is None or "data" not in override:
        return []
    before = found.state.pop("data", None)
    changed = difference(before, data.fingerprint) if isinstance(before, Mapping) else ""
    return [f"goes on with other images than before: {printable(changed)}"] if before and changed else []


def _lost(found: LoadedCheckpoint | None, run: RunDir, fabric: Fabric) -> list[str]:
    """A note on records that are gone, from the process that writes them."""
    lost = lost_records(run.metrics_path, found.state) if found and fabric.is_global_zero else ""
    return [lost] if lost else []


def _prepared(
    config: TrainConfig, fabric: Fabric, path: Path, named: Collection[str]
) -> tuple[TrainConfig, Data]:
    try:
        return prepare(config, fabric, named=named)
    except (UnknownNameError, DataError) as error:
        raise UsageError(
            f"the images of {path} cannot be opened ({error}); where they lie elsewhere now, "
            f"`fullrank resume {path} --override data=FOLDER` goes on with them"
        ) from error


def may_continue(config: TrainConfig, out: Path, named: Collection[str] | None) -> bool:
    """Whether `out` is a run of these settings, which can go on.

    Raises:
        UsageError: it is one of others.
    """
    if not (out / "config.yaml").is_file():
        return False
    check_same(config, RunDir.open(out).config(), str(out), named)
    return True


def _see_that_nothing_was_trained(run: RunDir) -> None:
    if steps := last_step(run.metrics_path):
        raise UsageError(
            f"{run.path} has records of {steps:,} steps and no checkpoint: it cannot go on, and starting "
            f"again would wipe them; train into another --out, or move {run.metrics_path.name} away"
        )
