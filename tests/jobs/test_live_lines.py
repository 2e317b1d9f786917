"""Plain lines about jobs: a line as each begins and ends, and how long the others take."""

from __future__ import annotations

import pytest

from fullrank.jobs.job import Job
from fullrank.jobs.live import LiveJobs


class Records(list[object]):
    """A summary that keeps all records."""

    take = list.append


def _printed(capsys: pytest.CaptureFixture[str]) -> list[str]:
    jobs = [Job("a"), Job("b")]
    with LiveJobs(jobs, lambda _: Records(), lambda *_: "", lambda found: found.state, "plain") as live:
        for job in jobs:
            live(job, "running", None)
            live(job, "running", None)
            live(job, "done", None)
    return capsys.readouterr().out.splitlines()


def test_each_job_has_a_line_as_it_begins_and_one_as_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    assert [line.split(";")[0] for line in _printed(capsys)] == [
        "begins  a",
        "1/2  a  done",
        "begins  b",
        "2/2  b  done",
    ]


def test_only_a_job_that_leaves_others_waiting_says_how_long_they_take(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert ["left" in line for line in _printed(capsys)] == [False, True, False, False]
