"""A web server for pages of runs: on this machine alone, and of nothing else.

Pages are known by name, so no address leads to a file. A request must name this machine as its host: a site
that lets its own name point here (DNS rebinding) is refused.
"""

from __future__ import annotations

import errno
import json
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fullrank.errors import UsageError
from fullrank.live.pages import LivePages, Page

ADDRESS = "127.0.0.1"
HOSTS = frozenset({"127.0.0.1", "localhost", "[::1]"})
PORT = 8321
TRIES = 100  # ports after the one that was asked for
BEAT = 10.0  # seconds between two signs of life to a page
MOST_STREAMS = 64  # pages that are open at a time
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class PageServer(ThreadingHTTPServer):
    """Serve `LivePages` on 127.0.0.1.

    Args:
        pages: what is served.
        port: to begin with; the next free one is taken. 0: any.

    Raises:
        UsageError: no port is free, or there is no such port.
    """

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = sys.platform != "win32"  # where two servers could have one port

    def __init__(self, pages: LivePages, port: int = PORT) -> None:
        if not 0 <= port <= 65535:
            raise UsageError(f"--port is {port}: a port is a number from 0 (any free one) to 65535")
        self.pages, self.streams, self._lock = pages, 0, threading.Lock()
        last = min(port + TRIES, 65535) if port else 0
        for tried in range(port, last + 1):
            try:
                super().__init__((ADDRESS, tried), _Handler)
                return
            except OSError as error:
                self.server_close()
                if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                    raise
        raise UsageError(f"none of the ports {port} to {last} is free: take another --port, or 0 for any")

    @property
    def url(self) -> str:
        """Address of the first page."""
        return f"http://{ADDRESS}:{self.server_address[1]}/"

    @contextmanager
    def one_more_stream(self) -> Iterator[bool]:
        """Count a stream while it is open; False where there are too many already."""
        with self._lock:  # else two that come at once would both be the last
            if taken := self.streams < MOST_STREAMS:
                self.streams += 1
        try:
            yield taken
        finally:
            if taken:
                with self._lock:
                    self.streams -= 1

    def server_bind(self) -> None:
        """Bind without asking a name server for this machine's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(self.allow_reuse_address))
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = ADDRESS, int(self.server_address[1])

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that went away."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "fullrank", ""
    timeout = 30.0  # seconds that a request may take to come in

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the terminal for what happens to the runs."""

    def _answer(self, with_body: bool) -> None:
        if not _names_this_machine(self.headers.get_all("Host") or []):
            self._send(
                HTTPStatus.MISDIRECTED_REQUEST, "This server answers to 127.0.0.1 and localhost only.\n"
            )
            return
        place = self.path.partition("?")[0]
        pages = self.server.pages
        stream = place.startswith("/events/")
        name = pages.names[0] if place == "/" else place.removeprefix("/events" if stream else "").lstrip("/")
        if name not in pages.names or f"{'/events' * stream}/{name * (place != '/')}" != place:
            self._send(HTTPStatus.NOT_FOUND, "There is no such page: / has what there is.\n", with_body)
        elif stream:
            self._stream(name, with_body)
        else:
            text = pages.current(name).text
            self._send(HTTPStatus.OK, text, with_body, kind="text/html; charset=utf-8")

    def _send(
        self, status: HTTPStatus, text: str, with_body: bool = True, kind: str = "text/plain; charset=utf-8"
    ) -> None:
        content = text.encode()
        self.send_response(status)
        for key, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        if with_body:
            self.wfile.write(content)

    def _stream(self, name: str, with_body: bool) -> None:
        """Tell a page of every new version, until it is closed."""
        with self.server.one_more_stream() as taken:
            if taken:
                self._follow(name, with_body)
            else:
                self._send(HTTPStatus.SERVICE_UNAVAILABLE, "Too many pages are open.\n", with_body)

    def _follow(self, name: str, with_body: bool) -> None:
        self.send_response(HTTPStatus.OK)
        for key, value in {**HEADERS, "Content-Type": "text/event-stream"}.items():
            self.send_header(key, value)
        self.end_headers()
        if not with_body:
            return
        pages, page = self.server.pages, self.server.pages.current(name)
        self._tell(page)
        while not pages.stopped:
            before, page = page, pages.wait(name, page.version, BEAT)
            if page.version == before.version:
                self.wfile.write(b": still here\n\n")
            else:
                self._tell(page)

    def _tell(self, page: Page) -> None:
        news = json.dumps({"version": page.version, "phase": page.phase, "said": page.said})
        self.wfile.write(f"data: {news}\n\n".encode())


def _names_this_machine(hosts: list[str]) -> bool:
    """Whether a request has one Host, this machine; at any port, for tunnels."""
    if len(hosts) != 1:
        return False
    name, colon, port = hosts[0].strip().rpartition(":")
    if not colon or not port.isdigit():
        name, port = hosts[0].strip(), "0"
    return name.lower() in HOSTS and port.isascii()


def close(server: PageServer, patience: float = 0.0) -> None:
    """Stop serving; `patience` is for open pages to fetch their last version."""
    import time

    server.pages.stop()
    if patience and server.streams:
        time.sleep(patience)
    with suppress(OSError):
        server.shutdown()
        server.server_close()
