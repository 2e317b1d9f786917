"""What cannot work is refused before images are opened; pages go into files and folders alike."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from fullrank import api
from fullrank.cli import main
from fullrank.cli.arguments import page_path
from fullrank.errors import UsageError
from fullrank.terminal import speaks
from fullrank.training import planning
from fullrank.training.run_dir import RunDir


@pytest.mark.parametrize("command", ["compare", "pick"])
def test_a_page_that_cannot_be_is_refused_before_anything_is_opened(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(api, command, lambda *_, **__: pytest.fail("it was begun"))
    assert main([command, "runs/a", "runs/b", "--out", "cmp.txt"]) == 2
    assert "does not end in .html" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "page"), [("", "c.html"), ("a/b.html", "a/b.html"), ("cmp", "cmp/index.html")]
)
def test_a_page_is_a_file_or_the_index_of_a_folder(out: str, page: str) -> None:
    assert page_path(out, "c.html") == Path(page)


def test_the_package_of_a_log_is_asked_for_before_images_are_opened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(planning, "plan_run", lambda *_: pytest.fail("images were opened"))
    assert main(["train", "simsiam", "--data", "shapes", "--log", "wandb"]) == 2
    assert "pip install 'fullrank[wandb]'" in capsys.readouterr().err


def test_a_folder_of_runs_is_told_from_a_run(tmp_path: Path) -> None:
    (run := tmp_path / "seed=0").mkdir()
    (run / "config.yaml").touch()
    with pytest.raises(UsageError, match=r"folder of runs: name one, as .*seed=0; `fullrank compare"):
        RunDir.open(tmp_path)


@pytest.mark.parametrize(
    "variables",
    [
        {"RANK": "1", "WORLD_SIZE": "2"},
        {"LOCAL_RANK": "1", "WORLD_SIZE": "2"},
        {"SLURM_PROCID": "3", "SLURM_NTASKS": "4"},
    ],
)
def test_of_several_processes_the_first_alone_speaks(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert not speaks()
    monkeypatch.setenv(next(iter(variables)), "0")
    assert speaks()


def test_an_unknown_lab_is_named_whatever_else_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lab", "nosuch", "--dry-run"]) == 2
    assert "unknown lab 'nosuch'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("audit timm:resnet81", "unknown timm model 'resnet81'; did you mean 'resnet18'?"),
        ("audit timm:resnet18 --data shapes --against timm:resnet81", "did you mean 'resnet18'?"),
        ("audit timm:resnet18 --data shapes --against nosuch", "unknown model 'nosuch'"),
        ("audit timm:resnet18 --data shapes --against no.npy", "no.npy"),
        ("pick timm:resnet18 torchvision:resnet81 --data shapes", "did you mean 'resnet18'?"),
        ("compare timm:resnet18 timm:nosuch --data shapes", "`fullrank list backbones` names all of them"),
        ("train simsiam --backbone resnet81", "did you mean 'resnet18'?"),
        ("train simsiam --init timm:resnet81", "did you mean 'resnet18'?"),
        ("train simsiam --log wandbb", "did you mean 'wandb'?"),
        ("train simsiam --views nosuch", "`fullrank list views` names all of them"),
        ("audit x.npy --metrics qqqqq", "`fullrank list metrics` names all of them"),
    ],
)
def test_an_unknown_name_is_one_line_before_images_are_opened(
    words: str, why: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in ("training.data", "features.subject", "selection.measuring", "report.compare.measures"):
        module = importlib.import_module(f"fullrank.{place}")
        monkeypatch.setattr(module, "open_data", lambda *_, **__: pytest.fail("images were opened"), False)
    assert main([*words.split(), *(["--untrained"] if "timm:resnet18" in words else [])]) == 2
    said = capsys.readouterr().err
    assert why in said and said.count("\n") == 1
