"""`import fullrank` is light, and what it offers does what the commands do."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
    functions = [name for name in fullrank.__all__ if name != "__version__"]
    assert all(getattr(fullrank, name) is getattr(api, name) for name in functions)
    assert dir(fullrank) == sorted(fullrank.__all__)


@pytest.mark.parametrize("name", ["limt", "dat"])
def test_an_unknown_option_names_the_nearest(name: str) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown option .* did you mean"):
        fullrank.audit(torch.zeros(3, 2), **{name: 1})


@pytest.mark.parametrize(
    ("options", "said"),
    [({"limit": -1}, "--limit"), ({"image_size": -2}, "--image-size must not be negative")],
)
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


X = torch.randn(120, 8, generator=torch.Generator().manual_seed(0))
CLASSES = [f"class {k % 3}" for k in range(120)]
LINEAR = torch.nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("function", "given", "options", "said"),
    [
        ("export", ("timm:resnet10t", "x", "out"), {}, "unknown format 'x'"),
        ("export", ("timm:resnet10t", None, "out"), {}, "unknown format 'None'"),
        ("export", (None, "torch", "out"), {}, "the name of an encoder"),
        ("audit", (X,), {"taps": "projector"}, "use tap"),
        ("audit", (X,), {"tap": "backbone,projector"}, "names several"),
        ("audit", (X,), {"key": "z"}, "a Tensor"),
        ("audit", (X,), {"metrics": 3}, "option metrics takes text, not 3"),
        ("audit", (X,), {"metrics": "level,rnkme"}, "unknown metric 'rnkme'"),
        ("audit", (X,), {"limit": "abc"}, "limit takes a whole number, not 'abc'"),
        ("audit", (X,), {"thresholds": {"levl": 0.1}}, "unknown threshold 'levl'; did you mean 'level'"),
        ("audit", (X,), {"thresholds": {"level": "low"}}, "threshold level takes a number"),
        ("audit", (X,), {"thresholds": 3}, "takes a mapping"),
        ("audit", (X,), {"labels": [1, 2]}, "120 labels"),
        ("audit", (None,), {}, "a matrix"),
        ("audit", (3,), {}, "a matrix"),
        ("audit", ("",), {}, "an empty text"),
        ("audit", ({"z": X},), {}, "not a dict$"),
        ("audit", (LINEAR,), {"data": "shapes"}, "not a network"),
        ("audit", ([[1.0, 2.0], [3.0]],), {}, "of one length"),
        ("train", (None,), {}, "not None"),
        ("train", (Path("simsiam"),), {}, "not one of a recipe"),
        ("train", ("simsiam",), {"data": X}, "not a Tensor$"),
        ("train", ("simsiam",), {"data": ""}, "an empty text"),
        ("train", ("simsiam",), {"epochs": X}, "not a Tensor$"),
        ("compare", ("a", "b"), {}, "in one list"),
        ("compare", (X, X), {}, "not a Tensor$"),
        ("compare", ([X, X],), {}, "not a Tensor$"),
        ("compare", (3,), {}, "not 3"),
        ("evaluate", (X, "knn"), {}, "a probe first"),
        ("evaluate", ("knn", X), {}, "without labels"),
        ("evaluate", ("knn", X), {"labels": CLASSES[:5]}, "5 labels for 120 rows"),
        ("evaluate", ("finetune", X), {"labels": CLASSES}, "needs an encoder"),
        ("evaluate", ("all", X), {"labels": CLASSES}, "needs a run"),
        ("evaluate", ("knn", X), {"batch_size": "x"}, "batch_size takes a whole number"),
        ("open_encoder", (None,), {}, "not None"),
        ("open_encoder", (3,), {}, "not 3"),
        ("open_encoder", (LINEAR,), {}, "not a network"),
        ("open_encoder", ("timm:resnet10t",), {"untraind": True}, "did you mean 'untrained'"),
        ("resume", (None,), {}, "a run directory"),
        ("create_method", (3,), {}, "the name of a method"),
        ("create_method", ("simsiam", None), {}, "a backbone is"),
        ("embed", ("timm:resnet10t", "out"), {"taps": 3}, "taps takes text, not 3"),
        ("embed", ("timm:resnet10t", "out"), {"format": "x"}, "unknown option format 'x'"),
        ("embed", ("nope", "out"), {}, "unknown model 'nope'; it does not exist"),
        ("embed", ("nope", "out", {"limit": 3}), {}, "options are EmbedOptions"),
    ],
)
def test_wrong_input_is_one_clear_line(
    function: str, given: tuple[Any, ...], options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said) as error:
        getattr(fullrank, function)(*given, **options)
    assert "tensor(" not in str(error.value)
    assert not list(Path.cwd().iterdir())


@pytest.mark.parametrize(
    "audited",
    [
        lambda: fullrank.audit(X.tolist()),
        lambda: fullrank.audit(X, labels=CLASSES, metrics="cdnv,level"),
        lambda: fullrank.audit(X, labels=np.array(CLASSES), metrics=["level", "cdnv"]),
        lambda: fullrank.audit(X, limit=None, sample=np.int64(64), thresholds={"level": 0.06}),
    ],
)
def test_usual_python_values_are_taken(audited: Callable[[], Any]) -> None:
    assert audited().verdict.kind == "healthy"


def test_a_matrix_is_evaluated_as_its_file_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "z.npz", z=X.numpy(), y=np.array(CLASSES))
    by_file = fullrank.evaluate("knn", tmp_path / "z.npz", ks=5)
    by_matrix = fullrank.evaluate("knn", X, labels=CLASSES, ks=(5,))
    assert by_file.results == by_matrix.results


def test_paths_and_numbers_of_numpy_are_taken_by_train(trained: tuple[Path, Called], tmp_path: Path) -> None:
    rows = fullrank.evaluate("all", trained[0])
    assert {"linear", "knn", "cluster"} == set(rows[-1].results)
    few = {"limit": np.int64(64), "batch_size": 32, "epochs": 1, "backbone": "resnet8-w16"}
    assert fullrank.train("simsiam", data=Path("shapes"), out=tmp_path / "run", **few).reason == "finished"
