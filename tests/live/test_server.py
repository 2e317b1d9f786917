"""What is served of watched runs: their pages as they grow, to this machine, and nothing else."""

from __future__ import annotations

import json
import socket
import string
import threading
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fullrank.errors import UsageError
from fullrank.live.pages import LivePages
from fullrank.live.server import MOST_STREAMS, PageServer
from fullrank.live.watched import WatchedRun, watched_runs
from fullrank.lock import sole_writer
from live.conftest import GrowingRun, Serve, ask, text_of
from report.conftest import make_run


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_run_that_is_not_there_yet_is_waited_for_and_followed_to_its_end(
    serve: Serve, tmp_path: Path
) -> None:
    run, said = GrowingRun(tmp_path / "first"), list[str]()
    server = serve([run.path], said)
    assert "is not there yet" in text_of(server)
    while not said:
        time.sleep(0.05)
    version = server.pages.current("0").version
    run.begin()
    begun = server.pages.wait("0", version, 20)
    assert begun.version != version and "simsiam on shapes" in begun.text
    with sole_writer(run.path):
        run.grow(2)
        grown = server.pages.wait("0", begun.version, 20)
        while "after 1 of 4 epochs" not in grown.text:
            grown = server.pages.wait("0", grown.version, 20)
        assert "Live: the run goes on" in grown.text and "No closing record" not in grown.text
        run.end()
    page = grown
    deadline = time.monotonic() + 30
    while page.phase != "ended" and time.monotonic() < deadline:
        page = server.pages.wait("0", page.version, 5)
    assert "The run has ended" in page.text and "Finished after 4 of 4 epochs" in page.text
    while not said[-1].endswith("its page stays") and time.monotonic() < deadline:
        time.sleep(0.1)
    # until its lock is there a run looks for an instant like one that nobody writes
    assert [line for line in said if "written by no process" not in line] == [
        "first is not there yet: waiting for it",
        "first has begun",
        "first has ended: its page stays",
    ]


def test_a_run_that_was_killed_is_said_to_be_written_by_nobody(serve: Serve, tmp_path: Path) -> None:
    run = make_run(tmp_path / "killed", epochs=2, ended=False)
    assert "No process writes into the run" in text_of(serve([run]))


def test_a_page_is_made_anew_only_where_records_changed(serve: Serve, tmp_path: Path) -> None:
    server = serve([make_run(tmp_path / "run", epochs=2)])
    page = server.pages.current("0")
    assert server.pages.wait("0", page.version, 1.5) is page


def test_a_page_is_made_anew_no_more_often_than_asked(tmp_path: Path) -> None:
    run = GrowingRun(tmp_path / "run")
    run.begin()
    pages = LivePages(watched_runs([str(run.path)]), every=3600)
    version = pages.current("0").version
    run.grow(1)
    pages._refresh("0")
    assert pages.current("0").version == version
    pages.every = 0.0
    pages._states["0"].took = 0.0
    pages._refresh("0")
    assert pages.current("0").version != version


def test_nothing_is_written_into_a_run(serve: Serve, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", epochs=2, ended=False)
    before = contents(run)
    text_of(serve([run]))
    assert contents(run) == before


def test_several_runs_are_side_by_side_each_with_its_page(serve: Serve, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, name, epochs=2) for name in ("healthy", "complete")]
    server = serve([*runs, tmp_path / "later"])
    page = text_of(server)
    assert "3 runs side by side" in page and "later is not there yet" in page
    assert 'href="/0"' in page and 'href="/1"' in page and "report.html" not in page.split("<footer>")[0]
    assert "Run directory: complete" in text_of(server, "/1") and "Waiting for a run" in text_of(server, "/2")


def test_runs_whose_folders_have_one_name_are_told_apart(serve: Serve, tmp_path: Path) -> None:
    runs = [make_run(tmp_path / arm / "run", epochs=1) for arm in ("a", "b")]
    page = text_of(serve(runs))
    assert all(str(run) in page for run in runs)


def test_a_folder_of_runs_stands_for_all_of_them(tmp_path: Path) -> None:
    for name in ("b", "a"):
        make_run(tmp_path / "sweep" / name, epochs=1)
    assert [run.name for run in watched_runs([str(tmp_path / "sweep")])] == ["a", "b"]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:99", "[::1]:8321", "localhost:8321"])
def test_this_machine_is_answered_under_its_names(serve: Serve, tmp_path: Path, host: str) -> None:
    assert ask(serve([tmp_path / "run"]), Host=host).status == 200


@pytest.mark.parametrize(
    "host",
    [
        *("example.org", "example.org:8321", "127.0.0.1.example.org", "localhost.example.org", "", ":8321"),
        *("127.0.0.1@example.org", "192.168.0.1", "0.0.0.0", "::1", "localhost:x", "127.0.0.1:80:80"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/events/0"])
def test_a_foreign_name_that_points_here_is_refused(
    serve: Serve, tmp_path: Path, host: str, path: str
) -> None:
    answer = ask(serve([make_run(tmp_path / "run", epochs=1)]), path, Host=host)
    assert answer.status == 421 and b"simsiam" not in answer.read()


def test_a_request_with_two_hosts_or_none_is_refused(serve: Serve, tmp_path: Path) -> None:
    server = serve([tmp_path / "run"])
    for head in ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nHost: localhost\r\nHost: example.org\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
            connection.sendall(head.encode())
            assert b" 421 " in connection.recv(100)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/metrics.jsonl",
            "/../metrics.jsonl",
            "/0/../../etc/passwd",
            "/%2e%2e/",
            "/0/",
            "/1",
            "/-1",
            "/00",
        ),
        *("/events", "/events/", "/events/1", "/events/0/", "/checkpoints", "/all", "/0/config.yaml", "/. "),
        *("/\u00b2", "/events/../0", "http://127.0.0.1/0", "/0%00", "/0#0", "*"),
    ],
)
def test_no_address_leads_to_anything_but_the_pages(serve: Serve, tmp_path: Path, path: str) -> None:
    server = serve([make_run(tmp_path / "run", epochs=1)])
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        assert connection.recv(12).endswith((b" 404", b" 400"))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(string.printable.replace("\n", "").replace("\r", "") + "äß\u202e", max_size=60))
def test_whatever_is_asked_for_gets_a_page_or_a_refusal(tmp_path: Path, asked: str) -> None:
    import threading

    server = PageServer(LivePages([WatchedRun(tmp_path / "run", "run")]), 0)
    try:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with socket.create_connection(("127.0.0.1", server.server_port), timeout=30) as connection:
            connection.sendall(f"GET /{asked} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
            connection.shutdown(socket.SHUT_WR)
            answer = connection.makefile("rb").read()
        thread.join(30)
    finally:
        server.server_close()
    status = answer.split(b" ")[1] if answer.startswith(b"HTTP") else b"400"
    assert status in (b"200", b"404", b"400", b"505", b"414") or b"Error code: 40" in answer


@pytest.mark.parametrize("verb", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"])
def test_a_page_is_only_read(serve: Serve, tmp_path: Path, verb: str) -> None:
    assert ask(serve([tmp_path / "run"]), verb=verb).status == 501


def test_a_page_loads_nothing_and_is_framed_by_nobody(serve: Serve, tmp_path: Path) -> None:
    answer = ask(serve([make_run(tmp_path / "run", epochs=1)]), verb="HEAD")
    policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff" and answer.read() == b""


def test_a_page_is_told_of_every_new_version(serve: Serve, tmp_path: Path) -> None:
    run = GrowingRun(tmp_path / "run")
    run.begin()
    stream = ask(serve([run.path]), "/events/0")
    assert stream.headers["Content-Type"] == "text/event-stream"
    news = []
    for _ in range(2):
        run.grow(1)
        while not (line := stream.readline()).startswith(b"data: "):
            assert line
        news.append(json.loads(line.removeprefix(b"data: ")))
    assert news[0]["version"] != news[1]["version"] and news[1]["phase"] == "quiet"


def test_a_page_too_many_is_refused(serve: Serve, tmp_path: Path) -> None:
    server = serve([tmp_path / "run"])
    server.streams = MOST_STREAMS
    assert ask(server, "/events/0").status == 503


def test_of_pages_that_open_at_once_none_is_one_too_many(tmp_path: Path) -> None:
    server, together = PageServer(LivePages([]), 0), threading.Barrier(MOST_STREAMS + 20)
    taken: list[bool] = []

    def open_one() -> None:
        together.wait()
        with server.one_more_stream() as one:
            taken.append(one)
            together.wait()

    threads = [threading.Thread(target=open_one) for _ in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    server.server_close()
    assert taken.count(True) == MOST_STREAMS and taken.count(False) == 20 and server.streams == 0


def test_a_run_whose_files_are_nonsense_says_so_on_its_page(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes(b"\xff\x00: [")
    (tmp_path / "run" / "metrics.jsonl").write_bytes(b"\x00\xff\n{\n" * 10)
    page = text_of(serve([tmp_path / "run"]))
    assert "onfig.yaml is left out" in page and "damaged line" in page


def test_the_next_free_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = PageServer(LivePages([]), port)
        found = server.server_port
        server.server_close()
    assert port < found <= port + 100


@pytest.mark.parametrize("port", [-1, 65536, 10**9])
def test_what_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match="a port is a number from 0"):
        PageServer(LivePages([]), port)
