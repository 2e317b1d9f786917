"""`fullrank watch RUN...`: serve pages of runs that grow, on this machine alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import PAGE_PACKAGES, UsageError, require_packages
from fullrank.terminal import say


@dataclass(frozen=True)
class Watch:
    """Serve the page of a run while it grows, on 127.0.0.1; several runs side by side.

    The page follows the run by itself. A run that is not there yet is waited for; a folder of runs stands for
    all of them. Nothing is written into a run, and nothing but these pages is served.

    Example: fullrank watch runs/first

    Example: fullrank watch runs/a runs/b --port 9000 --open

    Attributes:
        runs: run directories.
        port: where to serve; the next free one if it is taken, any free one if 0.
        open: open a browser, too.
        every: seconds between two versions of a page, at least.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN [RUN ...]")]
    port: int = 8321
    open: bool = False
    every: float = 2.0

    def __post_init__(self) -> None:
        if not self.runs:
            raise UsageError("watch needs a run: fullrank watch runs/first")
        if not (math.isfinite(self.every) and self.every >= 0):
            raise UsageError(f"--every is {self.every}: a number of seconds, 0 or more")


def run(words: Sequence[str]) -> int:
    """Serve until Ctrl-C."""
    args = parse(Watch, words, "fullrank watch")
    require_packages(*PAGE_PACKAGES)
    from fullrank.live.beside import open_browser
    from fullrank.live.pages import LivePages
    from fullrank.live.server import PageServer, close
    from fullrank.live.watched import watched_runs

    runs = watched_runs(args.runs)
    server = PageServer(LivePages(runs, args.every, say), args.port)
    names = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    if args.port not in (0, server.server_port):
        say(f"port {args.port} is taken: {server.server_port} is the next free one")
    say(f"watching {names} at {server.url} (Ctrl-C ends this, not the run)")
    serving = threading.Thread(target=server.serve_forever, daemon=True)
    try:
        serving.start()
        server.pages.start()
        if args.open and not open_browser(server.url):
            say("no browser could be opened: the address is above")
        threading.Event().wait()
    except KeyboardInterrupt:
        say("watching has ended")
    finally:
        close(server)
    return 0
