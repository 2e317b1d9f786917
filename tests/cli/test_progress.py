"""Work of more than two seconds shows on a terminal how far it is; pipes get a line every half minute."""

from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from cli.helpers import save_images
from fullrank.images.opening import open_data
from fullrank.progress import PlainProgress, ProgressLine, listening


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr("fullrank.progress.time.monotonic", lambda: now[0])
    return now


def test_short_work_shows_nothing_and_long_work_its_time_left(clock: list[float]) -> None:
    line = ProgressLine(screen := io.StringIO())
    for second in range(4):
        clock[0] = 100.0 + second
        line("decoding images", 10 * second, 100)
    shown = [text.removeprefix(ProgressLine.CLEAR) for text in screen.getvalue().split("\r")[1:]]
    assert [text.removeprefix("\x1b[2K") for text in shown] == [
        "decoding images  20 of 100, 0:08 left",
        "decoding images  30 of 100, 0:07 left",
    ]
    line("embedding", 1, 100)  # another task has its own two seconds
    assert "embedding" not in screen.getvalue()
    line.close()
    assert screen.getvalue().endswith(ProgressLine.CLEAR)


def test_a_pipe_gets_a_line_about_long_work_every_half_minute(clock: list[float]) -> None:
    lines = PlainProgress(log := io.StringIO())
    for second in range(0, 70, 10):
        clock[0] = 100.0 + second
        lines("decoding images", second, 100)
    assert log.getvalue() == (
        "decoding images  30 of 100, 1:10 left\ndecoding images  60 of 100, 0:40 left\n"
    )


def test_an_unknown_total_counts_up(clock: list[float]) -> None:
    line = ProgressLine(screen := io.StringIO(), patience=0)
    line("listing files", 12_000, 0)
    assert screen.getvalue() == f"{ProgressLine.CLEAR}listing files  12,000"


def test_opening_images_reports_listing_headers_and_decoding(tmp_path: Path) -> None:
    save_images(tmp_path / "photos", 600)
    seen: list[tuple[str, int, int]] = []
    with listening(lambda *progress: seen.append(progress)):
        open_data(str(tmp_path / "photos"))
    assert {task for task, _, _ in seen} == {"listing files", "reading headers", "decoding images"}
    assert ("decoding images", 540, 540) in seen
    assert any(0 < done < total for task, done, total in seen if task == "decoding images")


CODE = """
import sys, time
from fullrank.cli.arguments import showing_progress
from fullrank.progress import report_progress
from fullrank import progress
progress.ProgressLine.__init__.__defaults__ = (0.0,)
with showing_progress(quiet="--quiet" in sys.argv):
    report_progress("decoding images", 1, 2)
"""


@pytest.mark.parametrize(("quiet", "shown"), [((), True), (("--quiet",), False)])
def test_the_line_is_for_terminals(quiet: tuple[str, ...], shown: bool) -> None:
    ours, theirs = pty.openpty()
    done = subprocess.run([sys.executable, "-c", CODE, *quiet], stderr=theirs, stdout=subprocess.PIPE)
    os.close(theirs)
    try:
        screen = os.read(ours, 4096).decode()
    except OSError:  # nothing was ever written
        screen = ""
    os.close(ours)
    assert done.returncode == 0 and done.stdout == b""
    assert ("decoding images  1 of 2" in screen) is shown
    piped = subprocess.run([sys.executable, "-c", CODE], capture_output=True)
    assert (piped.stdout, piped.stderr) == (b"", b"")
