"""Who writes an option, a method or a metric by another of its names is told the one that it has here."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

import fullrank
from cli.helpers import refused
from fullrank import options
from fullrank.cli import COMMANDS
from fullrank.cli.train_help import COMMAND_TEXTS
from fullrank.collapse.metrics import METRICS
from fullrank.errors import UnknownNameError, UsageError
from fullrank.images.named import DATA
from fullrank.methods import METHODS
from fullrank.synonyms import OTHER_NAMES, meant
from fullrank.training.config import TrainConfig

OPTIONS = {f.name for f in dataclasses.fields(TrainConfig)} | set(COMMAND_TEXTS)
OWN = {f.name for method in METHODS.values() for f in dataclasses.fields(method.Config)}
COMMON = {
    f.name
    for kind in vars(options).values()
    if isinstance(kind, type) and dataclasses.is_dataclass(kind)
    for f in dataclasses.fields(kind)
} | {"figures"}


def test_every_name_that_is_offered_exists() -> None:
    real = OPTIONS | OWN | COMMON | set(METRICS) | set(METHODS) | set(DATA) | set(COMMANDS)
    assert set(OTHER_NAMES) - real == set()


def test_no_name_is_listed_twice_for_the_same_thing() -> None:
    for real, others in OTHER_NAMES.items():
        assert max(Counter(others).values()) == 1 and real not in others, real
        assert all(re.fullmatch(r"[a-z0-9_]+", other) for other in others), real


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        *(("--learning-rate=0.1", "--lr"), ("--learning_rate", "--lr"), ("--bs", "--batch-size")),
        *(("--batchsize", "--batch-size"), ("--num-workers", "--workers"), ("--wd", "--weight-decay")),
        *(
            ("--arch", "--backbone"),
            ("--model", "--backbone"),
            ("--dataset", "--data"),
            ("--gpus", "--devices"),
        ),
        *(("--max-epochs", "--epochs"), ("--tau", "--options.tau-base"), ("--ema", "--options.tau-base")),
        *(("--options.tau", "--options.tau-base"), ("--options.lr", "--lr"), ("--proj-hidden-dim", None)),
        *(
            ("--pretrained", "--init"),
            ("--output-dir", "--out"),
            ("--gradient-accumulation-steps", "--accumulate"),
        ),
        *(("--epohcs", "--epochs"), ("--img-size", "--image-size"), ("--report-to", "--log")),
    ],
)
def test_the_command_line_offers_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str, offered: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    line = refused("train", "byol", typed, "1")
    assert f"; did you mean {offered or '--options.proj-hidden-dim'}?" in line


@pytest.mark.parametrize(
    ("method", "offered"),
    [
        *(("simclr", "--options.temperature"), ("dino", "--options.student-temperature")),
        *(("cplearn", "--options.temperature"), ("teacher_student", "--options.student-temperature")),
    ],
)
def test_a_temperature_is_that_of_the_method(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, offered: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"did you mean {offered}?" in refused("train", method, "--temperature", "1")


def test_python_offers_its_own_name() -> None:
    calls: dict[str, Any] = {
        "'lr'": lambda: fullrank.train("byol", learning_rate=0.1),
        "'options.tau_base'": lambda: fullrank.train("byol", tau=0.9),
        "'tau_base'": lambda: fullrank.train("byol", options={"tau": 0.9}),
        "'rankme_unit'": lambda: fullrank.audit(torch.randn(64, 8), metrics="rankmee"),
        "'batch_size'": lambda: fullrank.evaluate("knn", "nowhere", bs=2),
    }
    for offered, call in calls.items():
        with pytest.raises(UsageError, match=f"did you mean {offered}"):
            call()


def test_a_recipe_offers_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for text, offered in (("learning_rate: 0.1", "lr"), ("options: {tau: 0.9}", "tau_base")):
        Path("mine.yaml").write_text(f"method: byol\n{text}\n")
        assert f"did you mean '{offered}'" in refused("train", "mine.yaml")


@pytest.mark.parametrize(
    ("words", "offered"),
    [(("fit",), "train"), (("eval",), "evaluate"), (("train", "moco"), "mocov3"), (("ls",), "list")],
)
def test_commands_and_methods_are_found_by_other_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], offered: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert f"did you mean '{offered}'?" in refused(*words)


def test_letters_decide_where_nobody_knows_the_name() -> None:
    assert "did you mean 'cifar'?" in str(UnknownNameError("stem", "cifr", ["cifar", "auto"]))
    assert meant("anything else", ["lr", "epochs"]) == ""
