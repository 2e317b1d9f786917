"""What `fullrank train` prints, and to whom: people, scripts, loggers."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.helpers import SMALL, Called, answered, call, records, save_images
from fullrank.images.opening import open_data
from fullrank.images.skipped import read_skipped
from fullrank.training.run_dir import RunDir

COLLAPSING = (
    *("train", "simsiam", *SMALL, "--options.no-stop-gradient", "--options.no-output-bn"),
    *("--limit", "1024", "--batch-size", "32", "--lr", "2", "--patience", "1", "--epochs", "4"),
)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Called]:
    """A run that was to stop on collapse, and did."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    return run, call(*COLLAPSING, "--on-collapse", "stop", "--out", str(run))


def test_plain_lines_where_there_is_no_terminal(trained: tuple[Path, Called]) -> None:
    lines = trained[1].out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["0/2", "1/2", "2/2"]
    assert "\x1b" not in trained[1].out
    *_, verdict, page = lines
    assert verdict.startswith("verdict: ")
    assert page.split() == ["page", str(trained[0] / "report.html")]


def test_quiet_prints_nothing() -> None:
    assert call("train", "simsiam", *SMALL, "--epochs", "1", "--quiet", "--out", "run") == Called(0, "", "")


def test_json_is_one_object_of_the_last_epoch_that_resume_says_again() -> None:
    found = answered("train", "simsiam", *SMALL, "--epochs", "1", "--out", "run")
    assert {"run", "page", "verdict", "loss", "level", "rank", "knn"} <= found.keys()
    last = [row for row in records(Path("run")) if row["event"] == "epoch"][-1]
    assert (found["loss"], found["knn"]) == (last["loss"], last["knn"]["top1"])
    assert found["verdict"] == last["verdict"]
    assert {**answered("resume", "run"), "seconds": 0} == {**found, "seconds": 0}


def test_a_collapse_that_was_to_stop_the_run_exits_with_3_also_on_resuming(
    stopped: tuple[Path, Called],
) -> None:
    run, called = stopped
    assert called.code == 3 and "stopped because it collapsed" in called.out
    end = records(run)[-1]
    assert end["reason"] == "collapsed" and end["epoch"] < 4
    assert (run / "report.html").stat().st_size > 1000
    assert call("resume", str(run)).code == 3


def test_a_collapse_exits_with_0_where_only_a_warning_was_asked_for() -> None:
    called = call(*COLLAPSING, "--epochs", "1", "--on-collapse", "warn", "--out", "run")
    assert "verdict: dimensional" in called.out
    assert called.code == 0


def test_options_after_a_recipe_win_over_it() -> None:
    words = ("--limit", "128", "--epochs", "1", "--warmup-epochs", "0", "--lr", "0.125", "--quiet")
    assert call("train", "shapes/simsiam", *words, "--out", "run").code == 0
    config = RunDir.open(Path("run")).config()
    assert (config.lr, config.epochs) == (0.125, 1)
    assert (config.batch_size, config.options["proj_output_dim"]) == (128, 128), "the recipe's"


def test_options_of_the_method_reach_it() -> None:
    words = ("--epochs", "1", "--options.predictor", "none", "--options.proj-output-dim", "24", "--quiet")
    assert call("train", "simsiam", *SMALL, *words, "--out", "run").code == 0
    panels = records(Path("run"))[-2]["panels"]
    assert panels["projector"]["d"] == 24 and "predictor" not in panels


def test_what_suits_the_images_holds_where_nobody_says_otherwise() -> None:
    save_images("images", 80)
    words = ("--data", "images", "--epochs", "1", "--quiet", "--image-size", "16", "--out", "run")
    assert call("train", "byol", *SMALL, *words).code == 0
    config = RunDir.open(Path("run")).config()
    assert (config.optimizer, config.lr, config.stem) == ("sgd", 0.2, "cifar")


def test_a_method_on_an_embedded_set_starts_from_the_recipe_that_was_tried_on_it() -> None:
    called = call("train", "byol", *SMALL, "--epochs", "1", "--warmup-epochs", "0", "--out", "run")
    assert "settings of the recipe shapes/byol" in called.out
    config = RunDir.open(Path("run")).config()
    assert (config.optimizer, config.lr) == ("sgd", 0.2)


def test_without_out_runs_get_names_of_their_own() -> None:
    for _ in range(2):
        assert call("train", "simsiam", *SMALL, "--epochs", "1", "--quiet").code == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["simsiam-shapes", "simsiam-shapes-2"]


def test_tensorboard_gets_a_file() -> None:
    pytest.importorskip("tensorboard")
    words = ("--epochs", "1", "--quiet", "--log", "tensorboard", "--out", "run")
    assert call("train", "simsiam", *SMALL, *words).code == 0
    assert list(Path("run", "tensorboard").glob("events.*"))


def test_unlabelled_images_train_without_knn_which_is_told_once() -> None:
    words = ("--data", str(save_images("flat", 80)), "--batch-size", "32", "--out", "run")
    called = call("train", "simsiam", *SMALL, *words)
    assert called.code == 0 and called.out.count("no k-NN: the images have no labels") == 1
    assert all(row["knn"] is None for row in records(Path("run")) if row["event"] == "epoch")


def spoiled(folder: Path) -> list[str]:
    """A folder of images and three files that are not read: the names of these."""
    save_images(folder, 80)
    (folder / "raw\x1b[2J.nef").touch()
    (folder / "empty.png").touch()
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    Image.fromarray(noise).save(folder / "cut.png")
    (folder / "cut.png").write_bytes((folder / "cut.png").read_bytes()[:100])  # its header can be read
    return ["raw\\x1b[2J.nef", "empty.png", "cut.png"]


def test_all_that_is_not_read_is_listed_in_the_run_directory_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names = spoiled(Path("flat"))
    on_demand = functools.partial(open_data, memory_limit_bytes=0)
    monkeypatch.setattr("fullrank.training.data.open_data", on_demand)
    words = ("--data", "flat", "--image-size", "16", "--batch-size", "32", "--max-corrupt", "0.1")
    called = call("train", "simsiam", *SMALL, *words, "--workers", "0", "--limit", "0", "--out", "run")
    assert called.code == 0, called.err
    assert "\x1b" not in called.out
    listed = read_skipped(Path("run"))
    assert sorted(Path(where).name for where in listed) == sorted(names) and all(listed.values())
    assert f"skipped 3 files in all, listed in {Path('run/skipped.txt')}" in called.out
    assert call("resume", "run").code == 0
    assert Path("run/skipped.txt").read_text().count("\n") == 3


def test_a_folder_too_small_for_a_verdict_says_so_before_it_is_trained_on(here: Path) -> None:
    save_images("few", 40)
    words = ("--backbone", "resnet8-w8", "--image-size", "16", "--epochs", "1", "--out", "run")
    called = call("train", "simsiam", "--data", "few", *words)
    assert called.code == 0
    assert "4 images are watched, and a verdict needs 32" in called.out


def test_a_run_that_was_resumed_ends_with_the_comparison_with_its_untrained_network(
    trained: tuple[Path, Called], here: Path
) -> None:
    run = Path(shutil.copytree(trained[0], here / "longer"))
    lines = call("resume", str(run), "--epochs", "3").out.splitlines()
    before = next(line for line in trained[1].out.splitlines() if line.startswith("k-NN "))
    after = next(line for line in lines if line.startswith("k-NN "))
    assert after.partition("; ")[2] == before.partition("; ")[2] != ""
