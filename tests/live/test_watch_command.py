"""`fullrank watch` and `train --live`, as processes of their own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from cli.helpers import SMALL, call, refused
from fullrank.live.beside import LivePage
from report.conftest import make_run


def started(*words: str, **environment: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fullrank", *words]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=os.environ | environment)


def test_ctrl_c_ends_watching_in_one_line(tmp_path: Path) -> None:
    process = started("watch", str(make_run(tmp_path / "run", epochs=1)), "--port", "0")
    assert process.stdout is not None
    first = process.stdout.readline()
    assert re.fullmatch(
        r"watching run at http://127\.0\.0\.1:\d+/ \(Ctrl-C ends this, not the run\)\n", first
    )
    assert process.stdout.readline() == "run has ended: its page stays\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "watching has ended\n", "")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "watch needs a run"),
        (("runs/a", "runs/../runs/a"), "is named twice"),
        (("photo.png",), "photo.png is a file: watch takes run directories"),
        (("photos",), "photos holds no run"),
        (("runs/a", "--port", "99999"), "--port is at most 65,535"),
        (("runs/a", "--every", "-1"), "a number of seconds, 0 or more"),
        (("runs/a", "--every", "nan"), "a number of seconds, 0 or more"),
    ],
)
def test_what_cannot_be_watched_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("photo.png").touch()
    Path("photos").mkdir()
    Path("photos/1.png").touch()
    assert says in refused("watch", *words)


@pytest.mark.acceptance
def test_train_live_serves_its_page_and_opens_the_browser(tmp_path: Path) -> None:
    opened = tmp_path / "opened"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    browser.chmod(0o755)
    words = ("train", "simsiam", "--data", "shapes", *SMALL, "--epochs", "20", "--out", str(tmp_path / "run"))
    process = started(*words, "--live", BROWSER=f"{browser} %s", OMP_NUM_THREADS="1")
    assert process.stdout is not None
    line = next(line for line in process.stdout if line.startswith("live"))
    url = line.split()[1]
    with urlopen(url) as answer:
        page = answer.read().decode()
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert "Live: the run goes on" in page and "finished after 20 epochs" in out
    assert opened.read_text().strip() == url
    with pytest.raises(OSError, match=r"refused|reset"):  # its server went with it
        urlopen(url)


def test_a_page_that_cannot_be_served_never_fails_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    called = call("train", "simsiam", "--data", "shapes", *SMALL, "--epochs", "1", "--out", "run", "--live")
    assert called.code == 0 and "no live page: " in called.out and Path("run/report.html").is_file()


@pytest.mark.slow
def test_the_server_beside_a_run_ends_with_what_started_it(tmp_path: Path) -> None:
    page = LivePage(make_run(tmp_path / "run", epochs=1), port=0, browser=False)
    with urlopen(page.url) as answer:
        assert answer.status == 200
    page.close()
    with pytest.raises(OSError, match=r"refused|reset"):
        urlopen(page.url)
