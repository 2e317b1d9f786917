"""The server of a page beside a training, in a process that does not slow it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from queue import Empty, Queue

PORT = 8321
PATIENCE = 20.0  # seconds for the other process to say where it serves
LAST_FETCH = 2.0  # seconds that open pages have for the last version


class LivePage:
    """Page of a run that is served until `close`, or until this process ends.

    Nothing of it can fail a training: where it does not start, `url` is empty and `problem` says why.

    Args:
        run: the run directory.
        port: to begin with.
        browser: whether to open one.
    """

    def __init__(self, run: Path, port: int = PORT, browser: bool = True) -> None:
        self.url, self.problem = "", ""
        self._process: subprocess.Popen[str] | None = None
        command = [sys.executable, "-m", "fullrank.live.beside", str(run), str(port), str(int(browser))]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        source = str(Path(__file__).parents[2])
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, (source, os.environ.get("PYTHONPATH", ""))))
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,  # its end is our end
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the training, which says when it has ended
            )
        except OSError as error:
            self.problem = str(error)
            return
        self.url = self._first_line(self._process)
        if not self.url.startswith("http"):
            self.problem = self.url or "its process did not start"
            self.url = ""

    @staticmethod
    def _first_line(process: subprocess.Popen[str]) -> str:
        lines: Queue[str] = Queue()
        output = process.stdout
        assert output is not None
        threading.Thread(target=lambda: lines.put(output.readline()), daemon=True).start()
        try:
            return lines.get(timeout=PATIENCE).strip()
        except Empty:
            return ""

    def close(self) -> None:
        """Let open pages have the last version, and end the server."""
        process = self._process
        if process is None:
            return
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.close()
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def open_browser(url: str) -> bool:
    """Open a page in a browser; False where there is no screen or it fails."""
    import webbrowser

    # one that runs in the terminal would take it over
    screen = {"DISPLAY", "WAYLAND_DISPLAY", "BROWSER"} & os.environ.keys()
    if sys.platform.startswith("linux") and not screen:
        return False
    try:
        return webbrowser.open(url)
    except Exception:  # whatever a browser does, the run goes on
        return False


def main() -> None:
    """Serve the page of a run until standard input ends."""
    from fullrank.live.pages import LivePages
    from fullrank.live.server import PageServer, close
    from fullrank.live.watched import WatchedRun

    run, port, browser = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"
    with suppress(OSError, AttributeError):
        os.nice(5)
    try:
        server = PageServer(LivePages([WatchedRun(run, run.name)], on_status=lambda _: None), port)
    except (OSError, ValueError) as error:
        print(" ".join(str(error).split()), flush=True)
        return
    print(server.url, flush=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    server.pages.start()
    if browser:
        open_browser(server.url)
    sys.stdin.read()
    close(server, LAST_FETCH)


if __name__ == "__main__":
    main()
