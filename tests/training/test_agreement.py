"""Processes that would train on other images or with other settings all refuse to start, in one line."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from cli.helpers import WIDTHS
from fullrank.cli import main
from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.images.fingerprints import fingerprint_of_choice
from fullrank.images.shapes import shapes
from fullrank.images.sources import Data
from fullrank.training.agreement import OF_A_MACHINE, check_alike, check_same_run, understood
from fullrank.training.checkpoint_files import LoadedCheckpoint
from fullrank.training.config import TrainConfig
from fullrank.training.data import open_run_data
from fullrank.training.networks import InitialWeights

CONFIG = TrainConfig(limit=60, image_size=16, backbone="resnet8-w16", views="simsiam", lr=0.1)
Start = tuple[TrainConfig, Data, InitialWeights | None, Sequence[str]]


class Gathered(Peers):
    """Processes of which each is known to say so and so."""

    def __init__(self, starts: Sequence[Start]) -> None:
        super().__init__(alone=True)
        prints = [fingerprint_of_choice(data) for _, data, *_ in starts]
        first = [
            understood(config, data, images, initial, named)
            for (config, data, initial, named), images in zip(starts, prints, strict=True)
        ]
        self.rounds: list[list[Any]] = [list(first), list(prints)]

    @property
    def size(self) -> int:
        return len(self.rounds[0])

    def tell(self, words: Any) -> list[Any]:
        found = self.rounds.pop(0) if len(self.rounds) > 1 else self.rounds[0]
        assert words in found
        return found


def refusals(*starts: Start) -> list[str]:
    """What each process says; nothing of one that goes on."""
    said = []
    for config, data, initial, named in starts:
        try:
            check_alike(config, data, initial, named, Gathered(starts))
            said.append("")
        except UsageError as error:
            said.append(str(error))
    return said


@pytest.fixture(scope="module")
def images() -> Data:
    return open_run_data(CONFIG)


def initial(value: float) -> InitialWeights:
    return InitialWeights("a checkpoint", {"conv1.weight": torch.full((2, 3), value)})


SETTINGS: dict[str, Any] = {
    "epochs": 7, "lr": 0.2, "seed": 4, "limit": 59, "method": "byol", "views": "cifar", "order": "cumulative",
    "optimizer": "adamw", "weight_decay": 0.5, "batch_size": 64, "accumulate": 2, "image_size": 32,
    "strategy": "fsdp", "precision": "bf16", "sync_bn": "none", "nesterov": True, "backbone": "resnet18",
    "freeze": "stem", "mean": (0.5, 0.5, 0.5), "on_nan": "skip", "keep_every": 2, "watch_every": 2,
    "checkpoint_every": 5, "timeout_minutes": 1.0,
}  # fmt: skip


@pytest.mark.parametrize("key", [key for key in SETTINGS if key not in OF_A_MACHINE])
def test_a_setting_that_one_process_has_of_its_own_is_named_by_all(key: str, images: Data) -> None:
    other = replace(CONFIG, **{key: SETTINGS[key]})
    said = refusals((CONFIG, images, None, ()), (CONFIG, images, None, ()), (other, images, None, ()))
    assert len(set(said)) == 1
    flag = key if key == "method" else f"--{key.replace('_', '-')}"
    assert said[0].startswith(f"rank 2 was started with {flag} ") and "start all processes with" in said[0]


@pytest.mark.parametrize("key", ["out", "init", "workers", "devices", "timeout_minutes", "data", "download"])
def test_processes_may_differ_in_where_things_lie_and_in_their_machines(key: str, images: Data) -> None:
    others: dict[str, Any] = {"workers": 3, "devices": 2, "timeout_minutes": 9.0, "download": True}
    other = replace(CONFIG, **{key: others.get(key, "/scratch/elsewhere")})
    weights = initial(1.0)
    assert refusals((CONFIG, images, weights, ()), (other, images, weights, ())) == ["", ""]


def test_a_setting_that_somebody_typed_is_named_before_what_follows_from_it(images: Data) -> None:
    other = replace(CONFIG, batch_size=64, backbone="resnet18", lr=0.3)
    said = refusals((CONFIG, images, None, ()), (other, images, None, ("backbone",)))
    assert said[0].startswith("rank 1 was started with --backbone resnet18, rank 0 with resnet8-w16")


def test_options_of_a_method_are_compared(images: Data) -> None:
    other = replace(CONFIG, options={"proj_hidden_dim": 64})
    said = refusals((CONFIG, images, None, ()), (other, images, None, ()))
    assert said[0].startswith("rank 1 was started with --options.proj-hidden-dim 64, rank 0 with ")


def test_other_initial_weights_are_told_apart_by_their_numbers(images: Data) -> None:
    said = refusals((CONFIG, images, initial(1.0), ()), (CONFIG, images, initial(2.0), ()))
    assert said[0].startswith("rank 1 starts from other weights than rank 0")


def photos(folder: Path, sizes: Sequence[int] = (16,)) -> None:
    for i, (image, label) in enumerate(zip(*shapes(120, 0, 16), strict=True)):
        path = folder / f"class-{label}" / f"{i:04}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        side = sizes[i % len(sizes)]
        Image.fromarray(image.transpose(1, 2, 0)).resize((side, side)).save(path)


def removed(folder: Path) -> None:
    sorted(folder.rglob("*.bmp"))[3].unlink()


def turned(folder: Path) -> None:
    """Every image upside down: as many bytes as before, by the same names."""
    for path in folder.rglob("*.bmp"):
        Image.open(path).transpose(Image.Transpose.FLIP_TOP_BOTTOM).save(path)


def renamed(folder: Path) -> None:
    path = sorted(folder.rglob("*.bmp"))[3]
    path.rename(path.with_name("another.bmp"))


def of_another_class(folder: Path) -> None:
    path = sorted(folder.rglob("*.bmp"))[0]
    path.rename(sorted(folder.iterdir())[-1] / path.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (removed, "images, rank 0 has"),
        (turned, "has other images than rank 0"),
        (renamed, "has other images than rank 0"),
        (of_another_class, "has other images than rank 0"),
    ],
)
def test_other_images_are_named_wherever_they_lie(
    change: Callable[[Path], None], words: str, tmp_path: Path
) -> None:
    photos(tmp_path / "here")
    shutil.copytree(tmp_path / "here", tmp_path / "there")
    starts: list[Start] = []
    for where in ("here", "there"):
        config = replace(CONFIG, data=str(tmp_path / where), limit=0)
        starts.append((config, open_run_data(config), None, ("data",)))
    assert refusals(*starts) == ["", ""]
    change(tmp_path / "there")
    starts[1] = (starts[1][0], open_run_data(starts[1][0]), None, ("data",))
    said = refusals(*starts)
    assert said[0] == said[1] and said[0].startswith("rank 1 has ") and words in said[0]
    assert f"--data {tmp_path / 'there'}, not {tmp_path / 'here'}" in said[0]


def test_a_choice_of_images_that_are_decoded_later_is_compared(tmp_path: Path) -> None:
    photos(tmp_path, (16, 24))
    config = replace(CONFIG, data=str(tmp_path), limit=50)
    data = open_run_data(config)
    other = replace(data, train=data.train.subset(torch.arange(50).flip(0).numpy()))
    said = refusals((config, data, None, ()), (config, other, None, ()))
    assert "has other images than rank 0 (train: choice of images" in said[0]


class Answered(Peers):
    """Two processes, the first of which says what the other one hears."""

    def __init__(self, first: Any) -> None:
        super().__init__(alone=True)
        self.first = first

    @property
    def size(self) -> int:
        return 2

    def tell(self, words: Any) -> list[Any]:
        return [self.first or words, words]


def checkpoint(run: Path, step: int, seconds: float) -> LoadedCheckpoint:
    return LoadedCheckpoint({"progress": {"step": step, "seconds": {"total": seconds}}}, run / "last.pt")


@pytest.mark.parametrize(
    ("out", "found", "said"),
    [
        ("runs/b", None, "rank 1 starts b, rank 0 starts a: start all processes"),
        ("runs/a", ("a", 4, 1.0), r"rank 1 goes on with a from step 4 \(checkpoint \w{8}\), rank 0 starts a"),
        ("elsewhere/a", None, ""),
    ],
)
def test_processes_that_write_into_other_runs_are_refused(
    out: str, found: tuple[str, int, float] | None, said: str
) -> None:
    with pytest.raises(UsageError, match=said) if said else nullcontext():
        check_same_run(
            Path(out), found and checkpoint(Path(found[0]), *found[1:]), Answered({"run": "starts a"})
        )


@pytest.mark.parametrize(("step", "seconds", "same"), [(4, 1.0, True), (5, 1.0, False), (4, 1.5, False)])
def test_processes_go_on_from_one_checkpoint(step: int, seconds: float, same: bool) -> None:
    heard = Answered(None)
    check_same_run(Path("a"), checkpoint(Path("a"), 4, 1.0), heard)  # so does it speak for itself
    heard.first = heard_by_others(checkpoint(Path("a"), 4, 1.0))
    with nullcontext() if same else pytest.raises(UsageError, match="rank 1 goes on with a from step"):
        check_same_run(Path("a"), checkpoint(Path("a"), step, seconds), heard)


def heard_by_others(found: LoadedCheckpoint) -> Any:
    said: list[Any] = []

    class Listening(Answered):
        def tell(self, words: Any) -> list[Any]:
            said.append(words)
            return [words, words]

    check_same_run(Path("a"), found, Listening(None))
    return said[0]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


TRAIN = ["train", "simsiam", "--backbone", "resnet8-w16", "--batch-size", "48", "--limit", "96", *WIDTHS]
TRAIN += ["--epochs", "1", "--accelerator", "cpu", "--quiet"]


def started_by_hand(*words: Sequence[str]) -> tuple[list[int], list[str]]:
    """Exit codes and errors of processes with such words."""
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "WORLD_SIZE": str(len(words))}
    common["MASTER_PORT"] = str(free_port())
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "fullrank", *each],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, each in enumerate(words)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in started]
    finally:
        for process in started:
            process.kill()
    return [process.returncode for process in started], errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("own", "said"),
    [
        ((), ""),
        (("--limit", "95"), "rank 1 was started with --limit 95, rank 0 with 96: start all processes"),
        (("--lr", "0.02"), "rank 1 was started with --lr 0.02, rank 0 with "),
        (("--out", "other"), "rank 1 starts other, rank 0 starts run: start all processes"),
    ],
)
def test_processes_started_by_hand_with_other_words_all_end_with_code_2(
    own: Sequence[str], said: str, tmp_path: Path
) -> None:
    words = [*TRAIN, "--out", str(tmp_path / "run")]
    codes, errors = started_by_hand(words, [*words, *own])
    assert codes == ([2, 2] if said else [0, 0])
    assert said in errors[0] and not errors[1]
    assert (tmp_path / "run").exists() != bool(said)


@pytest.mark.slow
def test_processes_that_go_on_with_other_runs_all_end_with_code_2(tmp_path: Path) -> None:
    for seed, run in enumerate(("one", "two")):
        assert main([*TRAIN, "--seed", str(seed), "--out", str(tmp_path / run)]) == 0
    words = [["resume", str(tmp_path / run), "--epochs", "2", "--quiet"] for run in ("one", "two")]
    codes, errors = started_by_hand(*words)
    assert codes == [2, 2]
    assert "rank 1 goes on with two from step 2 (checkpoint " in errors[0] and not errors[1]
