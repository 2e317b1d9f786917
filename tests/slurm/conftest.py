"""A SLURM for all tests of this folder; where there can be none, they are skipped with the reason."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from slurm.cluster import Cluster, missing, running_cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A controller and two nodes, as long as the tests last."""
    if why := missing():
        pytest.skip(f"no SLURM: {why}")
    pytest.importorskip("submitit")
    with running_cluster() as found:
        yield found


class LogIn:
    """A log-in node: a working directory, a home for the record of jobs, and the commands."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.environment = {
            **cluster.environment,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT / "src"),
            "XDG_STATE_HOME": str(folder / "home"),
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        """Start a command of fullrank and go on."""
        command = [sys.executable, "-m", "fullrank", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, cwd=self.folder, env=self.environment, stdout=pipe, stderr=pipe, text=True
        )

    def call(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Call a command of fullrank."""
        command = [sys.executable, "-m", "fullrank", *words]
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def submit(self, *words: str) -> str:
        """Submit a command, and return its job's number."""
        done = self.call(*words, "--json")
        assert done.returncode == 0, done.stderr
        return str(json.loads(done.stdout)["job"])

    def jobs(self, *words: str) -> dict[str, dict[str, Any]]:
        """What `fullrank jobs` tells, by the number of the job."""
        done = self.call("jobs", *words, "--json")
        assert done.returncode == 0, done.stderr
        return {row["job"]: row for row in json.loads(done.stdout)}

    def until(self, holds: Callable[[], bool], seconds: float = 400) -> None:
        """Wait; a job that went back into the queue starts after the life of a credential."""
        end = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < end, (self.cluster.states(), self.logs())
            time.sleep(0.2)

    def logs(self) -> str:
        """The ends of all that the jobs and SLURM's services printed."""
        logs = [f"{log}: {log.read_text()[-1500:]}" for log in self.folder.rglob("slurm/*.txt")]
        return "\n".join([*logs, self.cluster.logs(3000)])


@pytest.fixture
def log_in(cluster: Cluster, tmp_path: Path) -> LogIn:
    return LogIn(cluster, tmp_path)
