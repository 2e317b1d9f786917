"""What is shown of a lab at work: a table of arms by seeds, or a line as a job ends."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fullrank.figures.style import BLUE, GREY, RED, duration, percent
from fullrank.jobs.job import Job
from fullrank.jobs.live import LiveJobs, Standing
from fullrank.report.run.summary import Summary

__all__ = ["job_line", "jobs_table"]


def jobs_table(live: LiveJobs[Summary], width: int = 80) -> RenderableType:
    """A row for each arm, a column for each seed, and how long the rest will take."""
    jobs = [found.job for found in live.standings.values()]
    seeds = sorted({job.seed or 0 for job in jobs})
    table = Table(box=None, padding=(0, 3, 0, 0), header_style=GREY, pad_edge=False)
    table.add_column("Arm", no_wrap=True)
    for seed in seeds:
        table.add_column(f"seed {seed}", no_wrap=True, min_width=22)
    rows: dict[tuple[str, str], dict[int, Job]] = {}
    for job in jobs:
        rows.setdefault((job.part, job.arm), {})[job.seed or 0] = job
    part = ""
    for (own, arm), by_seed in rows.items():
        if own != part:
            table.add_row(Text(own, GREY))
            part = own
        found = [_text(live.standings[by_seed[seed].name]) if seed in by_seed else "" for seed in seeds]
        table.add_row(Text(arm, "bold"), *found)
    left = "–" if live.seconds_left is None else duration(live.seconds_left)
    done = f"{live.ended} of {len(jobs)} jobs, {duration(live.seconds)}; about {left} left"
    return Group(table, Text(done, GREY))


def _text(found: Standing[Summary]) -> Text:
    summary = found.summary
    match found.state:
        case "failed":
            return Text("✗ failed", RED)
        case "waiting":
            return Text("·", GREY)
        case "running":
            trains = found.job.train
            place = f"epoch {summary.epoch}/{found.job.config().epochs}" if trains else "computing"
            return Text(f"▸ {place}", BLUE)
    style = summary.style
    return Text(f"{style.glyph} {job_line(found)}", style.colour if summary.epoch else GREY)


def job_line(found: Standing[Summary]) -> str:
    """What a job has come to, as "healthy, k-NN 61.0 %"."""
    summary = found.summary
    if found.state == "failed" or not summary.epoch:
        return "failed" if found.state == "failed" else "done"
    word = summary.style.word
    return f"{word}, k-NN {percent(summary.knn)}" if summary.knn is not None else word
