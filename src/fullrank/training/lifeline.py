"""A line from every process to the first: who fails or dies ends all.

Collectives find out about a dead process late, by their timeout, or never where nobody waits in one. Here
every process holds a connection to the first one. The kernel closes it however a process ends; who fails says
so before. The first process passes it on, and each of them ends: with an error in the main thread where that
gets to raise one, and without it a few seconds later.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import secrets
import selectors
import socket
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from fullrank.errors import FullrankError, first_line
from fullrank.terminal import say
from fullrank.training.meeting import Failure as Failure
from fullrank.training.meeting import Meeting, Peer
from fullrank.training.signals import StoppedError

GRACE = 5.0  # seconds in which the main thread may end by itself, once another process has failed
NEWS = 3.0  # seconds in which an error of a collective waits for news of the process that caused it
CONNECTING = 25.0  # seconds
MOST_BYTES = 1 << 16  # of a message
TIMED_OUT = re.compile("timed? ?out", re.IGNORECASE)  # of gloo and NCCL
UNANSWERED = f"it has not answered for {CONNECTING:g} s since all had met"
LONGEST = 2000  # characters of an error that is passed on
met = threading.Event()  # set once the processes of a run are connected
_open: weakref.WeakSet[socket.socket] = weakref.WeakSet()


class RankFailedError(FullrankError):
    """Another process of the run failed or died; the message names it. Exit code 1."""


@contextmanager
def failing_together(fabric: Fabric, run: Path) -> Iterator[None]:
    """End all processes of a run where one of them fails; all of them call it.

    Args:
        fabric: as it was launched.
        run: the run directory, for the message.

    Raises:
        RankFailedError: another process failed or died, in place of the error that this caused here.
    """
    if fabric.world_size == 1:
        yield
        return
    lifeline = Lifeline(fabric, run)
    try:
        yield
    except (StoppedError, KeyboardInterrupt, SystemExit):
        lifeline.close()  # as all were asked to, each in its time
        raise
    except FullrankError as error:
        error.said_elsewhere = lifeline.fail(" ".join(str(error).split()))
        raise
    except BaseException as error:
        if failure := lifeline.failure_within(NEWS) or lifeline.silence(error):
            raise RankFailedError(lifeline.sentence(failure)) from error
        lifeline.fail(_line(error))
        if has_timed_out(error):
            waited = f"a collective took longer than --timeout-minutes {lifeline.longest:g}"
            raise FullrankError(f"{waited}, and all processes answer: one of them is slow") from error
        raise
    lifeline.close()


_numbers = itertools.count()  # of lifelines: processes may make several runs, all of them the same


class Lifeline:
    """Connections of a run's processes to the first, and a thread that listens.

    Args:
        fabric: whose processes all make one at the same time.
        run: the run directory.
    """

    def __init__(self, fabric: Fabric, run: Path) -> None:
        self.run = run
        self.world, rank = fabric.world_size, fabric.global_rank
        self.own = Peer(rank, os.getpid(), socket.gethostname())
        self.failure: Failure | None = None
        self._name = f"lifeline/{next(_numbers)}"
        self._known, self._over = threading.Event(), threading.Event()
        self._lines: dict[socket.socket, Peer] = {}
        self._buffers: dict[socket.socket, bytes] = {}
        self._done: set[int] = set()
        self._answered: set[int] = set()
        self.longest = fabric.strategy.longest.total_seconds() / 60  # type: ignore[attr-defined]
        self._lock = threading.Lock()
        meeting: Meeting = fabric.strategy.meeting  # type: ignore[attr-defined]  # of `launch_fabric`
        if rank == 0:
            host = os.environ.get("MASTER_ADDR", "127.0.0.1") if _spans_machines(fabric) else "127.0.0.1"
            self._accept(_listener(fabric), host, meeting)
        else:
            self._connect(meeting)
        met.set()
        self._thread = threading.Thread(target=self._listen, name="lifeline", daemon=True)
        self._thread.start()

    def sentence(self, failure: Failure) -> str:
        """What is said of a failure of another process."""
        line = f"{failure.line(self.world)}; rank {self.own.rank} ends with it"
        begun = (self.run / "config.yaml").is_file()
        return line + (f"; `fullrank resume {self.run}` goes on" if begun else "")

    def failure_within(self, seconds: float) -> Failure | None:
        """The failure of another process, waited for so long."""
        self._known.wait(seconds)
        return self.failure

    def silence(self, error: BaseException) -> Failure | None:
        """Find who does not answer, where a collective waited in vain; tell the others."""
        if not has_timed_out(error):
            return None
        self._answered.clear()
        self._send({"ping": self.own.rank})
        end = time.monotonic() + NEWS
        while (absent := self._ranks() - self._answered) and time.monotonic() < end:
            time.sleep(0.1)
        if not absent or self.failure:
            return self.failure_within(2 * NEWS if self.own.rank else 0)  # the first asks all others
        peer = next(peer for peer in self._lines.values() if peer.rank == min(absent))
        self.failure = Failure(peer, f"it has not answered within --timeout-minutes {self.longest:g}")
        self._send({"failed": asdict(self.failure)})
        self.close()
        return self.failure

    def fail(self, error: str) -> bool:
        """Tell the others that this process failed, and why; whether the first did alike."""
        error = error[:LONGEST]
        self._send({"failed": asdict(Failure(self.own, error))})
        first = self.failure_within(NEWS) if self.own.rank else None
        self.close()
        return first is not None and first.peer.rank == 0 and first.error == error

    def close(self) -> None:
        """Leave: what happens to the others from now on does not matter here."""
        self._send({"done": self.own.rank})
        self._over.set()

    def _accept(self, listener: socket.socket, host: str, meeting: Meeting) -> None:
        """Take the connections of all others, who know the token; then let them go on.

        Raises:
            RankFailedError: one does not connect.
        """
        token, end = secrets.token_hex(16), time.monotonic() + CONNECTING
        meeting.store.set(self._name, json.dumps((host, listener.getsockname()[1], token)))
        with listener:
            while absent := {peer.rank for peer in meeting.peers} - self._ranks() - {0}:
                listener.settimeout(max(0.1, end - time.monotonic()))
                try:
                    line, _ = listener.accept()
                except TimeoutError as error:
                    failure = Failure(meeting.peers[min(absent)], UNANSWERED)
                    self._send({"failed": asdict(failure)})
                    raise RankFailedError(self.sentence(failure)) from error
                line.settimeout(CONNECTING)
                with suppress(OSError, ValueError, LookupError, TypeError):
                    hello = json.loads(_read_line(line))
                    if secrets.compare_digest(str(hello["token"]), token):
                        self._add(line, Peer(**hello["peer"]))
                        continue
                line.close()
        self._send({"all": self.world})

    def _connect(self, meeting: Meeting) -> None:
        """Connect to the first process, and wait until all have.

        Raises:
            RankFailedError: that has ended, or knows of another one that has.
        """
        failure = Failure(meeting.peers[0])
        try:
            meeting.store.wait([self._name], timedelta(seconds=CONNECTING))
            host, port, token = json.loads(meeting.store.get(self._name))
            line = socket.create_connection((host, port), timeout=CONNECTING)
            line.sendall(_encoded({"token": token, "peer": asdict(self.own)}))
            self._add(line, meeting.peers[0])
            line.settimeout(2 * CONNECTING)  # as the first waits for the others
            said = json.loads(_read_line(line) or b"{}")
        except (OSError, RuntimeError) as error:
            raise RankFailedError(self.sentence(failure)) from error
        if "all" not in said:
            if "failed" in said:
                failure = Failure(Peer(**said["failed"]["peer"]), said["failed"]["error"])
            raise RankFailedError(self.sentence(failure))

    def _ranks(self) -> set[int]:
        return {peer.rank for peer in self._lines.values()}

    def _add(self, line: socket.socket, peer: Peer) -> None:
        line.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
            if hasattr(socket, name):  # a machine without power closes nothing: found after 20 seconds
                line.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        self._lines[line], self._buffers[line] = peer, b""
        _open.add(line)

    def _listen(self) -> None:
        """Wait for news until this process leaves; end it where it does not end by itself."""
        with selectors.DefaultSelector() as waiting:
            for line in self._lines:
                line.setblocking(False)
                waiting.register(line, selectors.EVENT_READ)
            while not self._over.is_set() and self.failure is None and waiting.get_map():
                for key, _ in waiting.select(0.5):
                    if not self._take(key.fileobj):
                        waiting.unregister(key.fileobj)
        if self.failure is None:
            self._over.wait()
        elif not self._over.wait(GRACE):
            if sys.stderr.isatty():
                sys.stderr.write("\x1b[?25h")  # the cursor, which a live table hides
            say(f"fullrank: {self.sentence(self.failure)}", sys.stderr)
            os._exit(1)
        for line in self._lines:
            line.close()

    def _take(self, line: Any) -> bool:
        """Take in what came from a process; False where there will be no more."""
        peer = self._lines[line]
        try:
            came = line.recv(MOST_BYTES)
        except BlockingIOError:
            return True
        except OSError:
            came = b""
        if not came:
            if peer.rank not in self._done:
                self._failed(Failure(peer))
            return False
        *messages, self._buffers[line] = (self._buffers[line] + came).split(b"\n")
        for message in map(json.loads, messages):
            if "done" in message:
                self._done.add(message["done"])
            elif "ping" in message:
                with suppress(OSError):
                    line.sendall(_encoded({"here": self.own.rank}))
            elif "here" in message:
                self._answered.add(message["here"])
            else:
                failed = message["failed"]
                self._failed(Failure(Peer(**failed["peer"]), failed["error"]))
        return True

    def _failed(self, failure: Failure) -> None:
        """Keep the first failure, and pass it on."""
        if self.failure is None and failure.peer.rank != self.own.rank:
            self.failure = failure
            if self.own.rank == 0:
                self._send({"failed": asdict(failure)})
            self._known.set()

    def _send(self, message: dict[str, Any]) -> None:
        with self._lock:
            for line in self._lines:
                with suppress(OSError):
                    line.sendall(_encoded(message))


def has_timed_out(error: BaseException) -> bool:
    """Whether a collective has waited in vain.

    Example:
        >>> has_timed_out(RuntimeError("[gloo/unbound_buffer.cc:78] Timed out waiting 18000ms for send"))
        True
    """
    return isinstance(error, RuntimeError) and bool(TIMED_OUT.search(str(error)))


def _line(error: BaseException) -> str:
    """Type and first line of an error; of one in a worker, what PyTorch passes on.

    Example:
        >>> _line(ValueError("Caught ValueError in DataLoader worker process 0.\\nValueError: no"))
        'ValueError: no, in a process that decodes'
        >>> _line(MemoryError()), _line(KeyError("knn"))
        ('MemoryError: more was asked for than there is', "KeyError: 'knn'")
    """
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and "worker process" in lines[0]:
        return f"{lines[-1][:LONGEST]}, in a process that decodes"
    if isinstance(error, MemoryError) and not lines:
        return f"{type(error).__name__}: more was asked for than there is"
    return f"{type(error).__name__}: {first_line(error, LONGEST)}"


def _encoded(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def _read_line(line: socket.socket) -> bytes:
    """Read up to the end of a line, byte by byte: what follows is for the thread."""
    read = bytearray()
    while len(read) < MOST_BYTES and (byte := line.recv(1)) not in (b"", b"\n"):
        read += byte
    return bytes(read)


def _spans_machines(fabric: Fabric) -> bool:
    return bool(fabric.world_size > getattr(fabric.strategy, "num_processes", fabric.world_size))


def _listener(fabric: Fabric) -> socket.socket:
    return socket.create_server(
        ("" if _spans_machines(fabric) else "127.0.0.1", 0), backlog=fabric.world_size
    )


def _close_in_child() -> None:
    """Close what a forked process inherits, which would keep a line open."""
    for line in list(_open):
        line.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
