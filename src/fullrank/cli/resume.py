"""`fullrank resume RUN`: continue a run from its newest sound checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fullrank import api
from fullrank.cli.arguments import parse
from fullrank.cli.train import follow
from fullrank.terminal import say, speaks


@dataclass(frozen=True)
class Resume:
    """Continue a run from its newest sound checkpoint, as if never interrupted.

    How long and where a run goes on may change. Another setting, here or in config.yaml, changes what is
    trained, and is refused unless --override names it.

    Example: fullrank resume runs/first

    Example: fullrank resume runs/first --epochs 200 --override lr=0.01

    Attributes:
        run: the run directory.
        epochs: passes over the training images in all; 0: as before.
        devices: devices that train; -1: as before, 0: all of them.
        num_nodes: machines; 0: as before.
        strategy: ddp or fsdp; empty: as before.
        timeout_minutes: that processes wait for one another at most; 0: as before.
        workers: processes that decode images; -2: as before, -1: one a core.
        log: further logs in place of those before.
        override: settings that may change: KEY takes what config.yaml has now, KEY=VALUE this value; the
            method's own are options.NAME.
        quiet: print nothing but errors.
        json: print one object at the end: run, verdict, loss, level, rank, knn, linear.
        live: serve the page on 127.0.0.1 while it grows, and open it in a browser.
    """

    run: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    epochs: int = 0
    devices: int = -1
    num_nodes: int = 0
    strategy: Literal["", "ddp", "fsdp"] = ""
    timeout_minutes: float = 0.0
    workers: int = -2
    log: tuple[str, ...] = ()
    override: Annotated[tuple[str, ...], tyro.conf.arg(metavar="KEY[=VALUE]")] = ()
    quiet: bool = False
    json: bool = False
    live: bool = False


def run(words: Sequence[str]) -> int:
    """Continue a run."""
    args = parse(Resume, words, "fullrank resume")
    from fullrank.training.contract import with_changes
    from fullrank.training.run_dir import RunDir

    path, changes = Path(args.run), changes_of(args)
    logs = with_changes(RunDir.open(path).config(), changes).log
    override = {word.partition("=")[0].replace("-", "_") for word in args.override}
    code = follow(
        lambda listeners: api.resume(path, listeners=listeners, override=override, **changes),
        path,
        logs,
        args,
    )
    if not (args.json or args.quiet or not speaks()):
        _say_adaptation(path)
    return code


def _say_adaptation(path: Path) -> None:
    """How the adaptation in a run directory ended, if it is one."""
    from fullrank.adaptation.result import is_adaptation, read_result
    from fullrank.adaptation.sentence import result_lines

    if is_adaptation(path) and (found := read_result(path)) is not None:
        for line in result_lines(found):
            say(line)


def changes_of(args: Resume) -> dict[str, Any]:
    """The settings that a command line changes.

    Example:
        >>> changes_of(Resume("runs/first", epochs=9, override=("lr=0.1", "seed")))
        {'epochs': 9, 'lr': '0.1'}
    """
    as_before = Resume("")
    names = ("epochs", "devices", "num_nodes", "strategy", "timeout_minutes", "workers", "log")
    given = {name: getattr(args, name) for name in names if getattr(args, name) != getattr(as_before, name)}
    for word in args.override:
        key, equals, value = word.partition("=")
        if equals:
            given[key.replace("-", "_")] = value
    return given
