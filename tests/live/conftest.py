"""Runs that grow, and a server of their pages in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import pytest

from fullrank.live.pages import LivePages
from fullrank.live.server import PageServer, close
from fullrank.live.watched import watched_runs
from report.conftest import make_run

Serve = Callable[..., PageServer]


class GrowingRun:
    """A run of which more and more records are there."""

    def __init__(self, path: Path, epochs: int = 4) -> None:
        made = make_run(path.with_name(f".{path.name}.whole"), "healthy", epochs=epochs)
        self.lines = (made / "metrics.jsonl").read_text().splitlines(keepends=True)
        self.path, self._whole, self.count = path, made, 0

    def begin(self) -> None:
        """The directory is there, and no record yet."""
        self._whole.joinpath("metrics.jsonl").unlink()
        self._whole.rename(self.path)

    def grow(self, epochs: int = 1) -> None:
        """The records of further epochs are there."""
        for _ in range(epochs):
            while '"event": "epoch"' not in self._write():
                pass

    def end(self) -> None:
        """All records are there, with the closing one."""
        while self.count < len(self.lines):
            self._write()

    def _write(self) -> str:
        line = self.lines[self.count]
        with (self.path / "metrics.jsonl").open("a") as file:
            file.write(line)
        self.count += 1
        return line


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serves runs until the end of the test."""
    servers: list[PageServer] = []

    def start(runs: Sequence[Path], said: list[str] | None = None, every: float = 0.0) -> PageServer:
        on_status = (said if said is not None else []).append
        server = PageServer(LivePages(watched_runs(list(map(str, runs))), every, on_status), 0)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        server.pages.start()
        return server

    yield start
    for server in servers:
        close(server)


def ask(server: PageServer, path: str = "/", verb: str = "GET", **headers: str) -> HTTPResponse:
    """The answer to a request, its body unread."""
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=60)
    connection.putrequest(verb, path, skip_host="Host" in headers, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    return connection.getresponse()


def text_of(server: PageServer, path: str = "/") -> str:
    """A page that is served."""
    answer = ask(server, path)
    assert answer.status == 200
    return answer.read().decode()
