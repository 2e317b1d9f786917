"""Pages of watched runs in memory, made anew where records changed."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from fullrank.errors import FullrankError, first_line, printable
from fullrank.live.watched import Phase, Signature, WatchedRun
from fullrank.untrusted.paths import did_you_mean

if TYPE_CHECKING:
    from fullrank.report.compare.arms import Arm
    from fullrank.report.render import LiveBar

POLL = 0.5  # seconds between two looks at the files' times
SHARE = 10.0  # times the processor time of the last making: the shortest pause before the next
LONGEST = 20.0  # seconds that this may make a reader wait
SAID: Mapping[Phase, str] = {
    "waiting": "Waiting: nothing is there yet",
    "running": "Live: the run goes on",
    "ended": "The run has ended",
    "quiet": "No process writes into the run: `fullrank resume` continues it",
}
OVERVIEW = "all"


@dataclass(frozen=True)
class Page:
    """A page as it was made last.

    Attributes:
        version: unlike that of any other page, of this server or another.
        text: HTML.
        phase, said: what it says of its runs.
    """

    version: str = ""
    text: str = ""
    phase: Phase = "waiting"
    said: str = ""


@dataclass
class _State:
    """What a page was made of, when, and how long that took."""

    page: Page
    signature: tuple[Signature, ...] = ()
    made: float = 0.0
    took: float = 0.0
    wanted: float = field(default=-1e9)


class LivePages:
    """Pages of runs, and of all of them side by side where there are several.

    A page is made when somebody has it open, its runs have changed, and `every` seconds and ten times what
    the last one took have passed. `wait` returns as soon as there is something new.

    Args:
        runs: in the order in which they are shown.
        every: seconds between two makings of a page, at least.
        on_status: is called with a line when a run begins or ends.
    """

    def __init__(
        self, runs: Sequence[WatchedRun], every: float = 2.0, on_status: Callable[[str], None] = print
    ) -> None:
        self.runs, self.every, self.on_status = list(runs), every, on_status
        shown = [OVERVIEW] * (len(self.runs) > 1) + [str(k) for k in range(len(self.runs))]
        self._states = {name: _State(Page()) for name in shown}
        self._phases: dict[str, Phase] = {}
        self._awaited: set[str] = set()
        self._mark = secrets.token_hex(4)
        self._count = 0
        self._changed = threading.Condition()
        self._making = threading.Lock()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    @property
    def names(self) -> list[str]:
        """Names of the pages; the first is the one that is shown first."""
        return list(self._states)

    @property
    def stopped(self) -> bool:
        """Whether the pages grow no more."""
        return self._stopping.is_set()

    def start(self) -> None:
        """Follow the runs in a thread."""
        threading.Thread(target=_import_renderers, daemon=True).start()  # while the browser opens
        self._thread.start()

    def stop(self) -> None:
        """Make open pages for the last time and wake whoever waits."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(30)
        for name, state in self._states.items():
            if self._is_open(state):
                self._refresh(name, at_once=True)
        with self._changed:
            self._changed.notify_all()

    def current(self, name: str) -> Page:
        """The newest page, made for the first time where it must be.

        Raises:
            KeyError: there is no page of that name.
        """
        state = self._states[name]
        state.wanted = time.monotonic()
        if not state.page.text:
            self._refresh(name, at_once=True)
        return state.page

    def wait(self, name: str, version: str, seconds: float) -> Page:
        """The page as soon as its version is another one, or as it is after some seconds."""
        state = self._states[name]
        with self._changed:
            state.wanted = time.monotonic()
            self._changed.wait_for(lambda: state.page.version != version or self.stopped, seconds)
            state.wanted = time.monotonic()
        return state.page

    def _follow(self) -> None:
        while not self._stopping.wait(POLL):
            for run in self.runs:
                self._report(run)
            for name, state in self._states.items():
                if self._is_open(state):
                    self._refresh(name)

    @staticmethod
    def _is_open(state: _State) -> bool:
        return time.monotonic() - state.wanted < 60.0

    def _report(self, run: WatchedRun) -> None:
        phase, before = run.phase, self._phases.get(run.name)
        self._phases[run.name] = phase
        if phase == before:
            return
        if phase == "waiting":
            self.on_status(f"{run.name} is not there yet: waiting for it{did_you_mean(run.path)}")
            self._awaited.add(run.name)
        elif phase == "running" and before is not None:
            self.on_status(f"{run.name} {'has begun' if run.name in self._awaited else 'goes on'}")
            self._awaited.discard(run.name)
        elif phase == "ended":
            self.on_status(f"{run.name} has ended: its page stays")
        elif phase == "quiet" and run.name not in self._awaited:
            self.on_status(f"{run.name} is written by no process: `fullrank resume` continues it")

    def _shown(self, name: str) -> list[WatchedRun]:
        return self.runs if name == OVERVIEW else [self.runs[int(name)]]

    def _refresh(self, name: str, at_once: bool = False) -> None:
        """Make a page anew where its runs have changed and it is time."""
        with self._making:
            state, runs = self._states[name], self._shown(name)
            pause = max(self.every, min(SHARE * state.took, LONGEST))
            if state.page.text and not at_once and time.monotonic() - state.made < pause:
                return
            signature = tuple(run.signature for run in runs)
            phase = phase_of([run.phase for run in runs])
            if state.page.text and (signature, phase) == (state.signature, state.page.phase):
                return
            self._count += 1
            version, said = f"{self._mark}-{self._count}", said_of(phase, len(runs))
            _import_renderers()  # which takes seconds the first time, and is not the page's
            begun = time.thread_time()
            text = self._text(name, version, phase, said)
            state.signature, state.made = signature, time.monotonic()
            state.took = time.thread_time() - begun
            with self._changed:
                state.page = Page(version, text, phase, said)
                self._changed.notify_all()

    def _text(self, name: str, version: str, phase: Phase, said: str) -> str:
        from fullrank.report.render import LiveBar

        bar = LiveBar(name, version, phase, said, self._links(name))
        runs = [run for run in self._shown(name) if run.is_there]
        try:
            if not runs:
                return waiting_page(self._shown(name), bar)
            return self._overview(runs, bar) if name == OVERVIEW else run_page(runs[0], bar)
        except (FullrankError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
            return problem_page(printable(first_line(error)), bar)  # of a file that is being written, say

    def _links(self, here: str) -> list[tuple[str, str, bool]]:
        words = {
            name: "side by side" if name == OVERVIEW else self.runs[int(name)].name for name in self.names
        }
        first = self.names[0]
        return [("/" if n == first else f"/{n}", words[n], n == here) for n in self.names]

    def _overview(self, runs: Sequence[WatchedRun], bar: LiveBar) -> str:
        from fullrank.report.compare.arms import Comparison, named_arms
        from fullrank.report.compare.page import page_of
        from fullrank.report.compare.subjects import run_subject

        places = {run.path: f"/{index}" for index, run in enumerate(self.runs)}
        arms = named_arms([[run_subject(run.path)] for run in runs], [run.name for run in runs])
        waiting = [run.name for run in self.runs if run not in runs]
        notes = [note for arm in arms for subject in arm.subjects for note in subject.notes]
        notes += [f"{name} is not there yet" for name in waiting]

        def href(arm: Arm) -> str:
            return places.get(arm.runs[0].path, "")

        title = f"{len(self.runs)} runs side by side"
        return page_of(Comparison(arms, notes=notes), title, "As they were logged.", href, bar)


def _import_renderers() -> None:
    import fullrank.report.compare.page
    import fullrank.report.run.page  # noqa: F401


def run_page(run: WatchedRun, bar: LiveBar) -> str:
    """The page of one run."""
    from fullrank.report.run.page import page_of
    from fullrank.report.run.reading import read_run

    return page_of(read_run(run.path), bar)


def waiting_page(runs: Sequence[WatchedRun], bar: LiveBar) -> str:
    """The page of runs of which none is there."""
    from fullrank.report.render import render

    title = f"Waiting for {'a run' if len(runs) == 1 else f'{len(runs)} runs'}"
    lines = [f"{run.path} is not there yet. This page shows it as soon as it is." for run in runs]
    return render("waiting.html.j2", live=bar, title=title, lines=lines)


def problem_page(why: str, bar: LiveBar) -> str:
    """The page of a run that cannot be read."""
    from fullrank.report.render import render

    lines = [f"{why}.", "It is tried again when a file of the run changes."]
    return render("waiting.html.j2", live=bar, title="This cannot be shown", lines=lines)


def phase_of(phases: Sequence[Phase]) -> Phase:
    """Phase of several runs together.

    Example:
        >>> phase_of(["ended", "running"]), phase_of(["waiting", "ended"]), phase_of(["ended", "quiet"])
        ('running', 'waiting', 'quiet')
    """
    order: tuple[Phase, ...] = ("running", "waiting", "quiet", "ended")
    return next(phase for phase in order if phase in phases)


def said_of(phase: Phase, count: int) -> str:
    """What a page says of the phase of its run or runs.

    Example:
        >>> said_of("ended", 1), said_of("ended", 3)
        ('The run has ended', 'All 3 runs have ended')
    """
    if count == 1:
        return SAID[phase]
    several: Mapping[Phase, str] = {
        "waiting": "Waiting: not all runs are there yet",
        "running": "Live: runs go on",
        "ended": f"All {count} runs have ended",
        "quiet": "No process writes into some of the runs: `fullrank resume` continues one",
    }
    return several[phase]
