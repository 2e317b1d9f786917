"""One folder of a lab: its extendable plan, runs of missing jobs, a live table."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from fullrank.atomic import write_atomically
from fullrank.errors import DataError, FullrankError, UnknownNameError, UsageError
from fullrank.figures.style import BLUE, GREY, RED, duration, percent
from fullrank.jobs.job import Job, Notify, Settings
from fullrank.jobs.live import LiveJobs, Standing
from fullrank.jobs.once import folder_of, result_of, run_once
from fullrank.labs._common.lab import LABS, Lab, plan_jobs
from fullrank.labs._common.page import write_lab
from fullrank.labs._common.results import Results, finished
from fullrank.lock import sole_writer
from fullrank.report.run.summary import Summary
from fullrank.report.verdicts import in_short
from fullrank.untrusted.parsing import parse_json, read_text

RunJobs: TypeAlias = Callable[[Sequence[Job], Notify], dict[str, str]]
"""Runs jobs and notifies of what they do; returns failures as {name: message}."""


@dataclass(frozen=True)
class Plan:
    """What a folder of a lab holds, or is to hold.

    Attributes:
        lab: the experiment.
        values: `lab` (its name), `preset` (its name), `settings` (the preset's), `parts` and `seeds`.
        jobs: all of them.
        wanted: those that are asked for now.
    """

    lab: Lab
    values: Settings
    jobs: Sequence[Job]
    wanted: Sequence[Job]


def make_plan(
    name: str,
    out: Path,
    preset: str = "",
    parts: Sequence[str] = (),
    seeds: Sequence[int] = (),
    data: str = "",
) -> Plan:
    """Plan of a folder; empty arguments default to the folder's, then the preset's.

    Raises:
        UsageError: no such lab, preset or part; or the folder holds something else.
    """
    lab, before = LABS[name](), _read(out)
    preset = preset or before.get("preset", "laptop")
    if preset not in lab.presets:
        raise UnknownNameError("preset", preset, lab.presets)
    settings = dict(lab.presets[preset])
    if data and "data" not in settings:
        raise UsageError(f"the lab {name} needs no data: leave --data out")
    if data := data or before.get("settings", {}).get("data"):
        settings["data"] = data
    settings = json.loads(json.dumps(settings))
    if before and (before["lab"], before["preset"], before["settings"]) != (name, preset, settings):
        raise UsageError(
            f"{out} holds the lab {before['lab']} with the preset {before['preset']} and its settings of "
            f"then: take another --out"
        )
    for part in parts:
        if part not in lab.parts:
            raise UnknownNameError(f"part of {name}", part, lab.parts)
    parts = list(parts) or list(before.get("parts", settings.get("parts", lab.parts)))
    seeds = list(seeds) or list(before.get("seeds", [0, 1, 2]))
    known = {
        key: list(dict.fromkeys([*before.get(key, []), *now]))
        for key, now in (("parts", parts), ("seeds", seeds))
    }
    if not (wanted := plan_jobs(lab, settings, parts, seeds)):
        raise UsageError(f"lab {name} has no jobs for preset {preset}")
    every = plan_jobs(lab, settings, known["parts"], sorted(known["seeds"]))
    return Plan(lab, {"lab": name, "preset": preset, "settings": settings, **known}, every, wanted)


def _read(out: Path) -> dict[str, Any]:
    path = out / "plan.json"
    if out.exists() and not path.exists() and not (out.is_dir() and _is_untouched(out)):
        raise UsageError(f"{out} exists already and holds no lab: take another --out")
    if not path.exists():
        return {}
    try:
        found = parse_json(read_text(path).replace("study_every", "diagnostics_every"), str(path))
    except DataError as error:
        raise UsageError(f"{path} is damaged: take another --out") from error
    if not isinstance(found, dict) or not {"lab", "preset", "settings"} <= found.keys():
        raise UsageError(f"{path} is damaged: take another --out")
    return found


def _is_untouched(folder: Path) -> bool:
    """Whether a folder holds no more than what a lab killed at its start leaves."""
    return all(path.name.startswith(".") for path in folder.iterdir())


def run_lab(
    plan: Plan,
    out: Path,
    at_once: int = 0,
    report_only: bool = False,
    figures: bool = True,
    mode: str = "quiet",
    run_jobs: RunJobs | None = None,
) -> tuple[dict[str, Any], dict[str, str]]:
    """Run requested jobs without a result; write `lab.json`, page and figures.

    `at_once` jobs at a time, 0: one for each core, and one on a GPU; `mode` is "live", "plain" or "quiet";
    `run_jobs` runs those without a result elsewhere than in processes of this machine.
    Returns what `lab.json` holds, and what failed: a job's name to one line.

    Raises:
        FullrankError: no job is finished.
        BusyError: another process runs this lab in `out`.
    """
    if report_only and not (out / "plan.json").exists():
        raise UsageError(f"{out} holds no lab: leave --report-only out to run it")
    failed: dict[str, str] = {}
    if not report_only:
        with sole_writer(out):
            write_atomically(out / "plan.json", json.dumps(plan.values, indent=2).encode())
            with LiveJobs(plan.wanted, Summary, jobs_table, job_line, mode) as live:
                if run_jobs is None:
                    failed = run_once(plan.wanted, out, at_once, live)
                else:
                    failed = run_jobs(unfinished(plan, out, live), live)
    found = {job.name: finished(job, out) for job in plan.jobs}
    done = [result for result in found.values() if result is not None]
    every = (plan_jobs(plan.lab, preset, list(plan.lab.parts), [0]) for preset in plan.lab.presets.values())
    results = Results(done, {job.arm for jobs in (plan.jobs, *every) for job in jobs})
    if not results:
        why = next(iter(failed.items()), None)
        raise FullrankError(f"no job of {out} is finished" + (f"; {why[0]}: {why[1]}" if why else ""))
    missing = {name: failed.get(name, "not run yet") for name, result in found.items() if result is None}
    written = write_lab(plan.values["lab"], plan.lab, plan.values, results, missing, out, figures)
    return written, failed


def unfinished(plan: Plan, out: Path, notify: Notify) -> list[Job]:
    """Requested jobs without a result; the others are notified of as done."""
    ready = [job for job in plan.wanted if result_of(job, out)]
    for job in ready:
        notify(job, "done", None)
    return [job for job in plan.wanted if job not in ready]


def run_one(plan: Plan, out: Path, folder: str) -> str:
    """Run one job of a plan, by its folder's name; return what failed, or nothing.

    Raises:
        UnknownNameError: the plan has no such job.
        BusyError: another process runs it.
    """
    jobs = {job.folder: job for job in plan.jobs}
    if folder not in jobs:
        raise UnknownNameError(f"job of {out}", folder, jobs)
    with sole_writer(folder_of(jobs[folder], out)):
        return next(iter(run_once([jobs[folder]], out, 1).values()), "")


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
    word = in_short(summary.judgement)
    return f"{word}, k-NN {percent(summary.knn)}" if summary.knn is not None else word
