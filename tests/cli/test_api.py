"""`import fullrank` is light, and what it offers does what the commands do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fullrank
from cli.helpers import Called, call
from fullrank import api
from fullrank.errors import UnknownNameError, UsageError
from fullrank.options import EvaluateOptions, SubjectOptions


def test_importing_the_package_loads_nothing_heavy() -> None:
    code = "import sys, fullrank, fullrank.api; sys.exit(bool({'torch', 'numpy', 'tyro'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_every_name_of_the_package_is_there() -> None:
    assert {name for name in fullrank.__all__ if name != "__version__"} == set(api.__all__)
    assert all(getattr(fullrank, name) is getattr(api, name) for name in api.__all__)
    assert set(fullrank.__all__) <= set(dir(fullrank))


@pytest.mark.parametrize("name", ["limt", "dat"])
def test_an_unknown_option_names_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown option .* did you mean"):
        fullrank.audit(torch.zeros(3, 2), **{name: 1})


@pytest.mark.parametrize(("options", "said"), [({"limit": -1}, "--limit"), ({"image_size": -2}, "pixels")])
def test_options_are_checked_in_python_as_on_the_command_line(options: dict[str, int], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        SubjectOptions(**options)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="batch size 0"):
        EvaluateOptions(batch_size=0)


def test_a_run_is_evaluated_and_compared_as_the_commands_do(
    trained: tuple[Path, Called], tmp_path: Path
) -> None:
    run = trained[0]
    result = fullrank.evaluate("knn", run, ks=(1.0, 5.0))
    assert call("evaluate", "knn", str(run), "--ks", "1,5", "--out", str(tmp_path), "--json").code == 0
    assert f'"top1": {result.results["top1"]}' in (tmp_path / "knn.json").read_text()
    comparison = fullrank.compare([run], out=tmp_path / "page.html", measure=False)
    assert len(comparison.arms) == 1 and (tmp_path / "page.html").is_file()
