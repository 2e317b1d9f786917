"""On a real SLURM: runs survive signals, time limits and requeues; jobs are shown and cancelled."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from cli.helpers import WIDTHS, records
from slurm.conftest import LogIn

pytestmark = pytest.mark.slow

SMALL = (
    *("--limit", "96", "--backbone", "resnet8-w16", "--batch-size", "16", "--accelerator", "cpu"),
    *("--level-every", "1", "--watch-every", "1", *WIDTHS),
)
LONG = (*SMALL, "--epochs", "12")
ENDLESS = (*SMALL, "--epochs", "5000")


def epochs(run: Path) -> list[dict[str, Any]]:
    """The records of epochs that are there."""
    if not (run / "metrics.jsonl").exists():
        return []
    lines = [line for line in (run / "metrics.jsonl").read_text().splitlines() if line.endswith("}")]
    return [record for record in map(json.loads, lines) if record["event"] == "epoch"]


def has_trained(run: Path) -> bool:
    return len(epochs(run)) > 1


def test_a_sweep_whose_runs_are_stopped_in_the_middle_ends_with_the_metrics_of_an_uninterrupted_one(
    log_in: LogIn,
) -> None:
    words = ("sweep", "simsiam", "--over", "lr=0.05,0.1", "--seeds", "2", *LONG)
    names = [f"lr={lr},seed={seed}" for lr in ("0.05", "0.1") for seed in (0, 1)]
    whole = log_in.call(*words, "--out", "whole", "--jobs", "2")
    assert whole.returncode == 0, whole.stderr
    watching = log_in.start(*words, "--out", "grid", "--slurm-time", "30")
    signalled = set[str]()

    def has_signalled_all() -> bool:
        for index, name in enumerate(names):
            run = log_in.folder / "grid" / name
            if name not in signalled and has_trained(run):
                (number,) = {job.split("_")[0] for job in log_in.cluster.states()}
                log_in.cluster.ask("scancel", "--signal=TERM", f"{number}_{index}")
                signalled.add(name)
        return len(signalled) == len(names)

    log_in.until(has_signalled_all)
    log_in.until(lambda: watching.poll() is not None)
    out, error = watching.communicate()
    assert watching.returncode == 0, (out, error, log_in.logs())
    assert "4/4" in out and "compare.html" in out
    logs = [log.read_text() for log in sorted((log_in.folder / "grid" / "slurm").glob("*.txt"))]
    assert len(logs) == 4
    assert all("by SIGTERM" in log and "goes back into the queue" in log for log in logs), logs
    for name in names:
        ours, theirs = (records(log_in.folder / out / name) for out in ("grid", "whole"))
        assert ours == theirs and ours[-1]["event"] == "end"


def test_a_run_that_hits_its_time_limit_checkpoints_and_is_requeued(log_in: LogIn) -> None:
    last = 160  # so many that an idle machine is not done with them before it is signalled
    words = (*SMALL, "--epochs", str(last), "--out", "runs/first", "--slurm-time", "60")
    job = log_in.submit("train", "simsiam", *words)
    run, log = log_in.folder / "runs" / "first", log_in.folder / "runs" / "slurm" / f"{job}.txt"
    log_in.until(lambda: has_trained(run))
    elapsed = log_in.cluster.ask("squeue", "--noheader", f"--jobs={job}", "--format=%M")
    limit = int(elapsed.strip().split(":")[-2]) + 2  # minutes: it is signalled two before the end
    log_in.cluster.ask("scontrol", "update", f"JobId={job}", f"TimeLimit={limit}")
    log_in.until(lambda: "goes back into the queue" in log.read_text())
    assert "by SIGUSR1" in log.read_text()
    log_in.until(lambda: log_in.cluster.states().get(job) == "PENDING")
    log_in.cluster.ask("scontrol", "update", f"JobId={job}", "TimeLimit=60")
    log_in.until(lambda: job not in log_in.cluster.states(), seconds=1200)
    assert [record["epoch"] for record in epochs(run)] == list(range(last + 1))
    assert log_in.jobs(job)[job]["state"] == "done"


def test_jobs_are_shown_and_cancelled(log_in: LogIn) -> None:
    first = log_in.submit("train", "simsiam", *ENDLESS, "--out", "runs/first", "--slurm-cpus-per-task", "2")
    held = log_in.submit("train", "byol", *ENDLESS, "--out", "runs/second", "--slurm-hold")
    run = log_in.folder / "runs" / "first"
    log_in.until(lambda: has_trained(run))
    rows = log_in.jobs()
    assert rows[first]["state"] == "running" and rows[first]["node"] in ("node1", "node2")
    assert rows[first]["epochs"] == 5000 and rows[first]["epoch"] >= 1
    assert rows[held]["state"] == "waiting" and rows[held]["why"] == "JobHeldUser"
    table = log_in.call("jobs").stdout.splitlines()
    assert len(table) == 3 and "running" in table[1] and "JobHeldUser" in table[2]
    again = log_in.call("train", "simsiam", *ENDLESS, "--out", "runs/first", "--slurm")
    assert again.returncode == 2 and f"is job {first} already, which is running" in again.stderr
    cancelled = log_in.call("jobs", "--cancel", first, "runs/second")
    assert cancelled.returncode == 0 and f"cancelled {first}" in cancelled.stdout
    log_in.until(lambda: not log_in.cluster.states())
    assert {row["state"] for row in log_in.jobs().values()} == {"cancelled"}
    resumed = log_in.call("resume", "runs/first", "--epochs", str(len(epochs(run)) + 1), "--quiet")
    assert resumed.returncode == 0, resumed.stderr
    nothing = log_in.call("jobs", "--cancel", first)
    assert nothing.returncode == 2 and "nothing to cancel" in nothing.stderr


def test_one_run_over_two_nodes_is_one_training_of_two_processes(log_in: LogIn) -> None:
    words = ("train", "simsiam", *SMALL, "--epochs", "1")
    job = log_in.submit(*words, "--out", "runs/two", "--slurm-nodes=2", "--slurm-ntasks-per-node", "1")
    log_in.until(lambda: job not in log_in.cluster.states())
    log = (log_in.folder / "runs" / "slurm" / f"{job}.txt").read_text()
    assert log_in.jobs(job)[job]["state"] == "done", log
    assert log_in.call(*words, "--out", "runs/one", "--quiet").returncode == 0
    losses = {}
    for name in ("one", "two"):
        found = [record for record in records(log_in.folder / "runs" / name) if record["event"] == "step"]
        assert [record["step"] for record in found] == list(range(1, 7))
        losses[name] = [record["loss"] for record in found]
    assert losses["two"] == pytest.approx(losses["one"], abs=2e-3)


def test_embedding_and_evaluation_are_jobs_too(log_in: LogIn) -> None:
    assert log_in.call("train", "simsiam", *SMALL, "--epochs", "1", "--out", "run", "--quiet").returncode == 0
    assert log_in.call("embed", "run", "--out", "alone").returncode == 0
    two = ("--slurm-nodes=2", "--slurm-ntasks-per-node=1")
    embedded = log_in.submit("embed", "run", "--out", "features", *two)
    evaluated = log_in.submit("evaluate", "knn", "run", "--slurm-time=10")
    log_in.until(lambda: not log_in.cluster.states())
    assert {row["state"] for row in log_in.jobs().values()} == {"done"}, log_in.logs()
    assert {embedded, evaluated} == log_in.jobs().keys()
    for alone in (log_in.folder / "alone").glob("*.safetensors"):
        features, expected = (load_file(path) for path in (log_in.folder / "features" / alone.name, alone))
        assert features.keys() == expected.keys()
        assert all(torch.allclose(features[name], expected[name], atol=1e-5) for name in expected)
    assert list((log_in.folder / "alone").glob("*.safetensors"))
    assert (log_in.folder / "run" / "evaluations" / "knn.json").is_file()


def test_what_sbatch_refuses_is_said_in_its_own_words(log_in: LogIn) -> None:
    refused = log_in.call("train", "simsiam", *SMALL, "--slurm-partition", "nowhere")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert "sbatch refuses the job: " in refused.stderr and "invalid partition" in refused.stderr.lower()
    assert not log_in.jobs() and not list(log_in.folder.rglob("*.sh"))


def test_a_job_that_fails_says_why(log_in: LogIn) -> None:
    job = log_in.submit("train", "simsiam", *SMALL, "--data", "no-such-folder", "--slurm")
    waited = log_in.call("jobs", job, "--watch")
    assert waited.returncode == 1
    assert f"{job} failed: " in waited.stdout and "no-such-folder" in waited.stdout


def test_a_job_whose_process_is_killed_is_reported(log_in: LogIn) -> None:
    job = log_in.submit("train", "simsiam", *ENDLESS, "--out", "runs/first", "--slurm")
    log_in.until(lambda: has_trained(log_in.folder / "runs" / "first"))
    owner = json.loads((log_in.folder / "runs" / "first" / ".owner.json").read_text())
    os.kill(owner["process"], signal.SIGKILL)  # as the kernel does where memory runs out
    log_in.until(lambda: job not in log_in.cluster.states())
    row = log_in.jobs(job)[job]
    assert row["state"] == "failed" and "137" in row["why"]


def test_a_lab_is_an_array_that_is_waited_for_and_has_its_page(log_in: LogIn) -> None:
    words = ("--preset", "tiny", "--parts", "augmentation", "--seeds", "0", "--out", "toys")
    running = log_in.start("lab", "contrastive-toys", *words, "--slurm-time", "30")
    log_in.until(lambda: running.poll() is not None)
    out, error = running.communicate()
    assert running.returncode == 0, (out, error, log_in.logs())
    assert (log_in.folder / "toys" / "report.html").is_file()
    rows = log_in.jobs()
    results = list((log_in.folder / "toys" / "cells").glob("*/result.json"))
    assert {row["state"] for row in rows.values()} == {"done"} and len(results) == len(rows) > 1
