"""Small convolutions on several threads wait for each other on a busy machine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from one_thread import one_thread

__all__ = ["one_thread"]


@pytest.fixture(scope="session")
def processes() -> Callable[[Path, list[list[str]]], None]:
    """Run a worker file side by side, once for each list of words."""

    def run(worker: Path, calls: list[list[str]]) -> None:
        env = os.environ | {"PYTHONPATH": f"{worker.parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
        started = [
            subprocess.Popen(
                [sys.executable, str(worker), *words], stderr=subprocess.PIPE, text=True, env=env
            )
            for words in calls
        ]
        try:
            for process in started:
                errors = process.communicate(timeout=900)[1]
                assert process.returncode == 0, errors
        finally:
            for process in started:
                process.kill()

    return run
