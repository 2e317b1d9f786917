"""What cannot work is said in one line on stderr, with exit code 2, and nothing is written."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from cli.helpers import SMALL, Called, call, refused, save_images


def images(folder: Path, good: int, bad: int) -> Path:
    save_images(folder, good)
    for i in range(bad):
        (folder / f"bad{i}.jpg").write_text("this is no image")
    return folder


TRAIN = ("train", "simsiam", *SMALL)


def test_a_file_in_the_place_of_a_run_is_called_a_file(here: Path) -> None:
    (here / "page.png").write_bytes(b"x")
    line = refused(*TRAIN, "--out", "page.png")
    assert "--out page.png is a file, and a run is a directory" in line and "resume" not in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("trian",), "unknown command 'trian'; did you mean 'train'?"),
        (("list", "method"), "unknown list 'method'; did you mean 'methods'?"),
        (("list",), "WHAT is missing: methods, data, views, backbones, recipes, labs or metrics"),
        (("train", "simsam"), "unknown method or recipe 'simsam'; did you mean 'simsiam'?"),
        (("train", "shapes/simsam"), "unknown recipe 'shapes/simsam'; did you mean 'shapes/simsiam'?"),
        (("train", "none.yaml"), "no recipe file none.yaml; `fullrank list recipes`"),
        (("train", "--epochs", "2"), "name a method or a recipe before --epochs"),
        ((*TRAIN, "--freeze", ","), "--freeze ',' names nothing"),
        ((*TRAIN, "--limit", "1"), "one training image makes no batch: train on two or more"),
        ((*TRAIN, "--profile", "-1"), "--profile must not be negative, not -1"),
        ((*TRAIN, "--lora", "100000"), "--lora 100,000 is above"),
        (("audit", "shapes", "--fail-on", ""), "--fail-on names no kind of verdict"),
        (("audit", "shapes", "--fail-on=,"), "--fail-on names no kind of verdict"),
        ((*TRAIN, "--epoch", "2"), "unknown option --epoch; did you mean --epochs?"),
        ((*TRAIN, "--options.predictors", "mlp"), "did you mean --options.predictor?"),
        ((*TRAIN, "more"), "unexpected word 'more'"),
        (
            (*TRAIN, "--foo", "3", "--epoch=2", "--options.predictors", "mlp"),
            "3 unknown options: --foo, --epoch (did you mean --epochs?), --options.predictors (did you mean",
        ),
        (
            ("evaluate", "knn", "--metrci", "l2", "--bar"),
            "--metrci (did you mean --metric?), --bar",
        ),
        (("evaluate", "knn"), "WHAT is missing"),
        (("export", "run"), "--to and --out are missing"),
        ((*TRAIN, "--data", "shape"), "unknown data set 'shape'; did you mean 'shapes'?"),
        ((*TRAIN, "--backbone", "resnet8-w1x"), "'resnet8-w1x'; did you mean 'resnet8-w16'?"),
        ((*TRAIN, "--views", "simsia"), "unknown views preset 'simsia'; did you mean 'simsiam'?"),
        ((*TRAIN, "--optimizer", "sdg"), "unknown --optimizer 'sdg'; did you mean 'sgd'?"),
        ((*TRAIN, "--options.predictor", "nonne"), "did you mean 'none'?"),
        ((*TRAIN, "--epochs", "two"), "--epochs takes a whole number, not 'two'"),
        ((*TRAIN, "--lr", "fast"), "--lr takes a number, not 'fast'"),
        ((*TRAIN, "--betas", "a", "b"), "--betas does not take 'a', 'b'"),
        ((*TRAIN, "--betas", "0.9"), "--betas needs 2 values"),
        ((*TRAIN, "--epochs"), "--epochs needs a value"),
        ((*TRAIN, "--epochs", "0"), "--epochs must be at least 1, not 0"),
        ((*TRAIN, "--lr", "-1"), "--lr must not be negative"),
        ((*TRAIN, "--options.proj-layers", "0"), "proj-layers must be positive"),
        ((*TRAIN, "--batch-size", "512"), "larger than the 256 training images; use --batch-size 256"),
        ((*TRAIN, "--precision", "fp16", "--accelerator", "cpu"), "fp16 needs a GPU; on the CPU use"),
        (
            (*TRAIN, "--backbone", "vit_tiny_patch16_224", "--image-size", "32", "--stem", "cifar"),
            "vit_tiny_patch16_224 has none: drop --stem",
        ),
        ((*TRAIN, "--data", "cifar10"), "cifar10 is not under"),
        ((*TRAIN, "--data", "./nowhere"), "there is no folder nowhere"),
        (("resume", "nowhere"), "nowhere is no run directory: there is nothing of that name"),
        ((*TRAIN, "--data", "nowhere"), "and there is no folder /"),
        ((*TRAIN, "--data", "~nobody-here/x"), "no user is called nobody-here"),
        (("resume",), "RUN is missing: the run directory"),
        (("explain", "loss", "0.5"), "--method is missing: a name of `fullrank list methods`"),
        (("report", "nowhere"), "no such run directory: nowhere"),
        (("demo", "--epochs", "-1"), "must not be negative"),
    ],
    ids=lambda value: " ".join(w for w in value if w not in SMALL) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_that_says_what_would_be_right(words: tuple[str, ...], said: str) -> None:
    assert said in refused(*words)


def test_data_that_is_not_there_is_not_fetched_and_a_mistake_is_said_before_it_is_looked_for() -> None:
    assert "add --download, or pass a folder: --data DIR" in refused(*TRAIN, "--data", "cifar10")
    assert "--epochs" in refused(*TRAIN, "--data", "cifar10", "--epochs", "0")


def test_more_corrupt_images_than_tolerated_are_named(here: Path) -> None:
    images(here / "mixed", good=20, bad=1)
    line = refused(*TRAIN, "--data", "mixed", "--batch-size", "8")
    assert "1 of 21 images cannot be decoded" in line and "bad0.jpg" in line
    images(here / "corrupt", good=0, bad=20)
    line = refused(*TRAIN, "--data", "corrupt", "--max-corrupt", "0.25")
    assert "20 of 20 images cannot be decoded" in line and "0.25" in line


def test_few_corrupt_images_do_not_keep_a_run_from_starting(here: Path) -> None:
    images(here / "mixed", good=39, bad=1)
    words = ("--data", "mixed", "--batch-size", "8", "--epochs", "1", "--max-corrupt", "0.05", "--out", "run")
    assert call(*TRAIN, *words, "--quiet").code == 0


def test_an_empty_folder_says_what_was_expected(here: Path) -> None:
    (here / "empty").mkdir()
    line = refused(*TRAIN, "--data", "empty")
    assert "no images under" in line and ".jpg" in line


def test_a_run_directory_that_exists_is_left_alone(here: Path) -> None:
    (here / "run").mkdir()
    (here / "run" / "mine.txt").write_text("mine")
    assert "take another --out, or continue it with `fullrank resume run`" in refused(*TRAIN, "--out", "run")


def test_a_folder_that_is_no_run_is_not_resumed_and_gets_no_page(here: Path) -> None:
    (here / "run").mkdir()
    assert "run is no run directory" in refused("resume", "run")
    assert "not a run directory" in refused("report", "run")


def test_a_logger_that_is_not_installed_is_said_before_the_run_starts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert "--log wandb needs its package: pip install 'fullrank[wandb]'" in refused(*TRAIN, "--log", "wandb")


def test_a_config_with_an_unknown_key_is_not_resumed(trained: tuple[Path, Called], here: Path) -> None:
    shutil.copytree(trained[0], here / "run")
    with (here / "run" / "config.yaml").open("a") as file:
        file.write("epoch: 3\n")
    assert "run/config.yaml: unknown key 'epoch'; did you mean 'epochs'?" in refused("resume", "run")


def test_a_file_in_the_place_of_a_folder_is_one_line_and_exit_code_2(here: Path) -> None:
    (here / "file").write_text("")
    called = call(*TRAIN, "--out", "file/run")
    assert called.code == 2 and called.err.count("\n") == 1 and "file/run" in called.err


def test_batches_of_one_image_are_refused_before_anything_is_written(here: Path) -> None:
    words = ("--limit", "8", "--backbone", "resnet8-w8", "--epochs", "1", "--batch-size", "1", "--out", "run")
    line = refused("train", "simsiam", "--data", "shapes", *words)
    assert "take --batch-size 2 or more" in line


@pytest.mark.parametrize("size", ["5000", "2000000000"])
def test_images_of_a_size_that_no_machine_holds_are_refused(size: str, here: Path) -> None:
    line = refused("train", "simsiam", "--data", "shapes", "--image-size", size)
    assert "lies between 0 (the data's own) and 4,096 pixels" in line


def _commands_of_runs(path: str) -> list[tuple[str, ...]]:
    exported = ("export", path, "--to", "torch", "--out", "new")
    more = ("train", "simsiam", "--data", path), ("embed", path, "--out", "new"), ("compare", path, path)
    asked = [(name, path) for name in ("audit", "resume", "cure", "report", "pick")]
    return [*asked, ("evaluate", "knn", path), exported, *more, ("adapt", path, "--data", "shapes")]


@pytest.mark.parametrize(("typed", "meant"), [("runs/frist", "runs/first"), ("run/frist", "runs/first")])
def test_a_path_that_is_misspelt_is_answered_with_the_one_that_exists(
    typed: str, meant: str, here: Path
) -> None:
    (here / meant).mkdir(parents=True)
    for words in _commands_of_runs(typed):
        assert f"did you mean {meant}?" in refused(*words), words
