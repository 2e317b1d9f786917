"""Functions in forks of a process that has torch loaded: the seconds of its import are paid once."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module, util
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

_LOADED_ONCE = (
    "torch", "torch._dynamo", "numpy", "timm", "torchvision", "lightning_fabric", "sklearn.linear_model",
    "torchmetrics", "hypothesis", "safetensors.torch", "yaml", "rich", "PIL.Image",
)  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What a fork does, for how many seconds at most, and where its output goes."""

    name: str
    work: Callable[[], int]  # gives the exit status
    limit: float
    log: Path


def load_once() -> None:
    """Import what tests need and no mutant changes, and keep to one thread, so that forks are safe."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in _LOADED_ONCE:
        import_module(name)
    import_module("torch").set_num_threads(1)
    assert not any(name.split(".")[0] == "fullrank" for name in sys.modules), "a mutant would not be seen"


def run_all(tasks: Iterable[Task], width: int, done: Callable[[Task, int | None, float], None]) -> None:
    """Run tasks in `width` forks at a time; `done` gets the exit status, None where the time was up."""
    waiting, running = list(tasks)[::-1], dict[int, tuple[Task, float]]()
    while waiting or running:
        while waiting and len(running) < width:
            task = waiting.pop()
            running[_fork(task)] = task, time.monotonic()
        time.sleep(0.05)
        for process, (task, begin) in list(running.items()):
            ended, status = os.waitpid(process, os.WNOHANG)
            late = time.monotonic() - begin > task.limit
            if not ended and not late:
                continue
            _end_group(process)  # what a test left running, too
            if not ended:
                os.waitpid(process, 0)
            del running[process]
            done(task, os.waitstatus_to_exitcode(status) if ended else None, time.monotonic() - begin)


def _end_group(process: int) -> None:
    try:
        os.killpg(process, signal.SIGKILL)
    except ProcessLookupError:
        return


def _fork(task: Task) -> int:
    task.log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    process = os.fork()
    if process:
        return process
    status = 70
    try:
        os.setsid()
        output = os.open(task.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(output, 1)
        os.dup2(output, 2)
        status = task.work()
    except BaseException:  # a fork must never come back into the loop of its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


class Replaced(MetaPathFinder):
    """Finder that gives one module other source than its file has."""

    def __init__(self, module: str, path: Path, source: str) -> None:
        self.module, self.path, self.source = module, path, source

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != self.module:
            return None
        loader = _Loader(fullname, str(self.path))
        loader.source = self.source
        return util.spec_from_file_location(fullname, self.path, loader=loader)


class _Loader(SourceFileLoader):
    source = ""

    def get_code(self, fullname: str) -> CodeType:
        return compile(self.source, self.path, "exec")


class Selected:
    """Plugin of pytest: only these tests, in this order."""

    def __init__(self, tests: list[str]) -> None:
        self.order = {name: number for number, name in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.order), key=lambda i: self.order[i.nodeid])


def run_tests(root: Path, tests: list[str], replaced: Replaced | None) -> int:
    """Exit status of pytest over these tests, which stops at the first failure."""
    os.chdir(root)
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the ones of the tests are in their conftest.py
    if replaced is not None:
        sys.meta_path.insert(0, replaced)
    files = list(dict.fromkeys(test.split("::")[0] for test in tests))
    # pytest would read a source with doctests from its file itself, to rewrite assertions in it
    options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", "--assert=plain"]
    return int(pytest.main([*options, *files], plugins=[Selected(tests)]))
