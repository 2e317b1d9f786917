"""Wait for jobs of SLURM, and tell what they do as it happens."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from fullrank.errors import FullrankError
from fullrank.jobs.job import Job, Notify
from fullrank.jobs.queue import JobState, Queued, job_state, last_message, read_queue
from fullrank.jobs.submissions import Submission
from fullrank.training.record_files import follow

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 15.0  # seconds between two questions to the controller, who has others
PATIENCE = 600.0  # seconds that the controller may be silent
LATE_FILES = 3  # answers in a row before a job that left no exit code counts as lost or failed


class Watched:
    """A job that is waited for, and how much of its records was read."""

    def __init__(self, submission: Submission, task: str, job: Job) -> None:
        self.submission, self.task, self.job = submission, task, job
        self.log = Path(submission.tasks[task].run, "metrics.jsonl") if submission.tasks[task].run else None
        self.position = self.log.stat().st_size if self.log and self.log.exists() else 0
        self.state, self.missing = "", 0

    def take(self, found: JobState, notify: Notify) -> str | None:
        """Notify of what is new; return what failed of a job that has ended.

        Returns:
            None while it has not ended; empty where nothing failed.
        """
        if self.log is not None:
            self.position = follow(self.log, self.position, partial(notify, self.job, "running"))
        unsure = found.state == "lost" or (found.state == "failed" and not found.why.startswith("exit code"))
        self.missing = self.missing + 1 if unsure else 0
        if not found.has_ended or 0 < self.missing < LATE_FILES:
            if found.state == "running" and self.state != "running":
                notify(self.job, "running", None)
            self.state = found.state
            return None
        why = "" if found.state == "done" else self._why(found)
        notify(self.job, "failed" if why else "done", why or None)
        return why

    def _why(self, found: JobState) -> str:
        log = self.submission.log(self.task)
        said = last_message(log) if found.state == "failed" and found.why.startswith("exit code") else ""
        return f"{said or found.why} (job {self.task}, all of it in {log})"


def wait_for(
    watched: Sequence[Watched],
    notify: Notify,
    fine: Sequence[int] = (0,),
    ask: Callable[[], Mapping[str, Queued]] = read_queue,
    sleep: Callable[[float], None] = time.sleep,
) -> dict[str, str]:
    """Wait until all jobs have ended; return failures as {name: message}.

    Args:
        watched: the jobs.
        notify: called with every change and every record of their runs.
        fine: exit codes that are no failure.
        ask: the queue as it is.
        sleep: between two questions.

    Raises:
        FullrankError: the controller has not answered for ten minutes; the jobs go on.
    """
    left, failed, pause, silent = list(watched), dict[str, str](), FIRST_PAUSE, 0.0
    while left:
        try:
            queue, silent = ask(), 0.0
        except FullrankError as error:
            if silent > PATIENCE:
                raise FullrankError(f"{error}; the jobs go on: `fullrank jobs` shows them") from error
            silent += pause
        else:
            for one in list(left):
                why = one.take(job_state(one.submission, one.task, queue, fine), notify)
                if why is not None:
                    left.remove(one)
                    failed |= {one.job.name: why} if why else {}
        if left:
            sleep(pause)
            pause = min(LONGEST_PAUSE, 1.3 * pause)
    return failed
