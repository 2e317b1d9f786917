"""Jobs that wait, in a pool that a test ends by a signal: `python ended_worker.py FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from fullrank.jobs.job import Job
from fullrank.jobs.pool import run_pool


def wait(job: Job) -> str:
    """Say who it is, and work for long; asked to end, that takes a moment."""
    place = Path(sys.argv[1])

    def end(number: int, _: object) -> None:
        (place / f"{job.name}.asked").touch()
        raise SystemExit(1)

    signal.signal(signal.SIGTERM, end)
    (place / f"{job.name}.draft").write_text(str(os.getpid()))
    (place / f"{job.name}.draft").rename(place / f"{job.name}.pid")
    time.sleep(600)
    return ""


def main() -> int:
    """Run two of three jobs at a time."""
    try:
        run_pool([Job(name) for name in "abc"], wait, 2, lambda job: Path(sys.argv[1], f"{job.name}.jsonl"))
    except KeyboardInterrupt as ended:
        print(f"ended by {ended}")
        return 7
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
