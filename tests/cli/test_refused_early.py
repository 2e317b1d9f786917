"""What cannot work is refused before images are opened; pages go into files and folders alike."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

from fullrank import api
from fullrank.cli import early, evaluate, main
from fullrank.cli.arguments import page_path
from fullrank.cli.early import FILES, refuse_early
from fullrank.coercion import coerce
from fullrank.collapse import CollapseMonitor, Moments, Panel
from fullrank.collapse.verdict import judge
from fullrank.encoders.checkpoints import CHECKPOINT_SUFFIXES
from fullrank.errors import UsageError
from fullrank.features.embeddings import EMBEDDING_SUFFIXES
from fullrank.terminal import speaks
from fullrank.training import planning
from fullrank.training.config import TrainConfig
from fullrank.training.run_dir import RunDir

judged: Any = judge  # also of what its types exclude
explained: Any = api.explain_loss
ROWS = np.random.default_rng(0).standard_normal((200, 6))


def panel() -> Panel:
    return Panel.from_moments("embedding", Moments.of(torch.from_numpy(ROWS)))


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
        ("audit features --metrics qqqqq", "`fullrank list metrics` names all of them"),
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


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("audit nosuch.npy", "nosuch.npy does not exist"),
        ("evaluate knn ./nosuch", "nosuch does not exist"),
        ("compare nosuch.npz", "nosuch.npz does not exist"),
        ("embed nosuch.pth --out F", "nosuch.pth does not exist"),
        ("pick nosuch", "nosuch does not exist; of encoders by name several are needed, and --data"),
        ("adapt runs/r1", "--data is missing: the folder of images to adapt to"),
        ("audit ~nosuchuser/x.npy", "no user is called nosuchuser"),
    ],
)
def test_what_is_not_there_is_refused_before_the_packages_are_imported(
    words: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail(f"{name} was imported"))
    assert main(words.split()) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


def test_every_ending_of_a_file_that_is_read_names_a_file() -> None:
    single = {"." + suffix.rpartition(".")[2] for suffix in (*EMBEDDING_SUFFIXES, *CHECKPOINT_SUFFIXES)}
    assert single <= set(FILES)


def test_every_probe_is_known_before_the_packages_are_imported() -> None:
    assert set(early.PROBES) == set(evaluate.PROBES)


@pytest.mark.parametrize("word", ["timm:resnet18", "s3://bucket/z.npy", "part-*.npy", "resnet18", "--help"])
def test_what_may_be_a_name_a_pattern_or_an_address_is_not_refused_early(word: str) -> None:
    refuse_early("audit", [word])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["audit", "-dash.npy"], "-dash.npy begins with a dash, as options do: name the file ./-dash.npy"),
        (["audit", "dash.npy"], "did you mean ./-dash.npy?"),
        (["explain", "loss", "abc", "--method", "simsiam"], "VALUE takes a number, not 'abc'"),
        (["audit", "./-dash.npy", "--sample", "99999999999999"], "not 99,999,999,999,999 (see"),
        (["audit", "images"], "`fullrank audit MODEL --data images`"),
    ],
)
def test_a_line_says_how_it_is_done(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("-dash.npy").touch()
    Path("images/cat").mkdir(parents=True)
    Path("images/cat/a.jpg").touch()
    assert main(words) == 2
    err = capsys.readouterr().err
    assert said in err and err.count("\n") == 1


@pytest.mark.parametrize("name", ["nosuch", "xyzzy", "foo"])
def test_nothing_is_meant_by_a_name_that_is_like_none(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        coerce(TrainConfig, {name: 1}, "key")
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "call",
    [
        lambda: judged(None),
        lambda: judged(np.eye(4)),
        lambda: judged(panel(), 5),
        lambda: judged(panel(), [1]),
        lambda: judged(panel(), (), 7),
        lambda: judged(panel(), (), {"nosuch": 1}),
        lambda: judged(panel(), (), {"level": "much"}),
        lambda: api.train("simsiam", data="shapes", options=5),
        lambda: explained("simsiam", float("nan")),
        lambda: explained(None, None),
        lambda: explained(0.1, None),
        lambda: explained(0.1, "simsiam", 5),
        lambda: CollapseMonitor().observe(np.array([["a"]])),
        lambda: api.audit(pandas.DataFrame({"z": [0.5, 1.0], "name": ["a", "b"]})),
    ],
)
def test_values_of_a_wrong_kind_are_one_line(call: Callable[[], Any]) -> None:
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_thresholds_may_be_numbers_by_name() -> None:
    assert judge(panel(), (), {"level": 5.0}).kind == "complete"


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.int64])
def test_rows_of_numpy_and_of_frames_are_judged_as_tensors_are(kind: type[Any]) -> None:
    rows = (9 * ROWS).astype(kind)
    verdicts = [api.audit(each).verdict for each in (rows, pandas.DataFrame(rows))]
    assert verdicts[0] == verdicts[1]
    monitors = [CollapseMonitor(), CollapseMonitor(), CollapseMonitor()]
    given: list[Any] = [rows, {"embedding": rows}, torch.from_numpy(rows)]
    for monitor, taps in zip(monitors, given, strict=True):
        assert monitor.step(taps)
        monitor.observe(taps)
    assert len({str(monitor.close().verdict) for monitor in monitors}) == 1
