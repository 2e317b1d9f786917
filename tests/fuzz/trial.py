"""One input after another through a reader: what became of each is counted."""

from __future__ import annotations

import contextlib
import io
import random
import re
import shutil
import signal
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fullrank.errors import FullrankError
from fuzz.targets import Answer, Target, write_files

HANG_SECONDS = 5.0
MEMORY_BYTES = 2 << 30


class Hang(BaseException):
    """Reading took too long."""


@dataclass
class Trial:
    """A reader and what its inputs led to.

    An input is two bytes that say which file of which whole folder is replaced, and the content of that file.

    Attributes:
        folder: where the files are written.
        kept: where inputs are kept that led to something new.
    """

    target: Target
    folder: Path
    kept: Path
    counts: Counter[str] = field(default_factory=Counter)
    faults: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.places = [(k, name) for k, files in enumerate(self.target.whole()) for name in sorted(files)]
        self.answers: dict[int, Answer] = {}
        self.known: set[str] = set()
        self.kept.mkdir(parents=True, exist_ok=True)
        for k, files in enumerate(self.target.whole()):
            self._write(files)
            self.answers[k] = self.target.read(self.folder)

    def seeds(self) -> list[bytes]:
        """The whole files as inputs, and what was kept before."""
        whole = [
            number.to_bytes(2, "little") + self.target.whole()[k][name]
            for number, (k, name) in enumerate(self.places)
        ]
        return whole + [path.read_bytes() for path in sorted(self.kept.glob("*.bin"))]

    def one(self, data: bytes) -> bool:
        """Read one input; whether it led to something that none before did."""
        k, name = self.places[int.from_bytes(data[:2], "little") % len(self.places)]
        self._write({**self.target.whole()[k], name: data[2:]})
        start, before = time.perf_counter(), _peak(reset=True)
        outcome = self._outcome(k, data[2:] == self.target.whole()[k][name])
        if time.perf_counter() - start > HANG_SECONDS:
            outcome = "hang"
        if _peak() - before > MEMORY_BYTES:
            self.counts["memory over 2 GB"] += 1
            self._fault("memory over 2 GB", data)
        self.counts["inputs"] += 1
        self.counts[outcome.partition(":")[0]] += 1
        if outcome in self.known:
            return False
        self.known.add(outcome)
        self._keep(data)
        return True

    def _outcome(self, k: int, is_whole: bool) -> str:
        try:
            with _quiet(), _limited():
                answer = self.target.read(self.folder)
        except FullrankError as error:
            text = str(error)
            if "\n" in text or len(text) > 1000:
                self._fault(f"no single line: {text[:80]!r}", b"")
                return "tracebacks: no single line"
            return "refused: " + re.sub(r"\d+|'[^']*'|/\S+", "#", text)[:90]
        except Hang:
            self._fault("hang", b"")
            return "hang"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            place = traceback.extract_tb(error.__traceback__)[-1]
            said = f"{type(error).__name__} at {Path(place.filename).name}:{place.lineno}"
            self.faults.setdefault(said, traceback.format_exc())
            return f"tracebacks: {said}"
        return self._judged(self.answers[k], answer, is_whole)

    def _judged(self, whole: Answer, answer: Answer, is_whole: bool) -> str:
        if is_whole or answer == whole:
            return "as before"
        if set(answer.notes) - set(whole.notes):
            return "changed and said so"
        return "silent in spite of a checksum" if self.target.checked else "other values, no checksum"

    def _write(self, files: dict[str, bytes]) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        write_files(self.folder, files)

    def _keep(self, data: bytes) -> None:
        name = f"{random.Random(data).getrandbits(64):016x}.bin"
        (self.kept / name).write_bytes(data)

    def _fault(self, what: str, data: bytes) -> None:
        if what not in self.faults:
            self.faults[what] = what
            if data:
                self._keep(data)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    def stop(*_: object) -> None:
        raise Hang

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _peak(reset: bool = False) -> int:
    """The largest resident memory of this process since it was reset, in bytes."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
