"""What `fullrank train` prints, and to whom: people, scripts, loggers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.helpers import SMALL, Called, call, records
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


def test_a_line_an_epoch_where_there_is_no_terminal(trained: tuple[Path, Called]) -> None:
    lines = trained[1].out.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("epoch")] == ["0/2", "1/2", "2/2"]


def test_plain_lines_have_no_escape_codes(trained: tuple[Path, Called]) -> None:
    assert trained[1].out and "\x1b" not in trained[1].out


def test_the_last_lines_tell_verdict_and_page(trained: tuple[Path, Called]) -> None:
    *_, verdict, page = trained[1].out.splitlines()
    assert verdict.startswith("verdict: ")
    assert page.split() == ["page", str(trained[0] / "report.html")]


def test_quiet_prints_nothing() -> None:
    assert call("train", "simsiam", *SMALL, "--epochs", "1", "--quiet", "--out", "run") == Called(0, "", "")


def test_json_is_one_object_on_stdout_and_nothing_else() -> None:
    called = call("train", "simsiam", *SMALL, "--epochs", "1", "--json", "--out", "run")
    found = json.loads(called.out)
    assert called.err == "" and called.out.count("\n") == 1
    assert {"run", "page", "verdict", "loss", "level", "rank", "knn"} <= found.keys()


def test_json_tells_what_the_last_epoch_record_holds() -> None:
    found = json.loads(call("train", "simsiam", *SMALL, "--epochs", "1", "--json", "--out", "run").out)
    last = [row for row in records(Path("run")) if row["event"] == "epoch"][-1]
    assert (found["loss"], found["knn"]) == (last["loss"], last["knn"]["top1"])
    assert found["verdict"] == last["verdict"]


def test_resume_json_of_an_ended_run_is_what_train_said() -> None:
    first = json.loads(call("train", "simsiam", *SMALL, "--epochs", "1", "--json", "--out", "run").out)
    again = json.loads(call("resume", "run", "--json").out)
    assert {**again, "seconds": 0} == {**first, "seconds": 0}


def test_a_collapse_that_was_to_stop_the_run_exits_with_3(stopped: tuple[Path, Called]) -> None:
    assert stopped[1].code == 3


def test_a_run_stopped_for_collapse_says_so(stopped: tuple[Path, Called]) -> None:
    assert "stopped because it collapsed" in stopped[1].out


def test_a_run_stopped_for_collapse_ends_before_its_last_epoch(stopped: tuple[Path, Called]) -> None:
    end = records(stopped[0])[-1]
    assert end["reason"] == "collapsed" and end["epoch"] < 4


def test_a_run_stopped_for_collapse_has_its_page(stopped: tuple[Path, Called]) -> None:
    assert (stopped[0] / "report.html").stat().st_size > 1000


def test_resuming_a_run_stopped_for_collapse_exits_with_3_again(stopped: tuple[Path, Called]) -> None:
    assert call("resume", str(stopped[0])).code == 3


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


def test_the_methods_defaults_hold_where_nobody_says_otherwise() -> None:
    Path("images").mkdir()
    for i in range(80):
        pixels = np.random.default_rng(i).integers(0, 255, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"images/{i}.png")
    words = ("--data", "images", "--epochs", "1", "--quiet", "--image-size", "16", "--out", "run")
    assert call("train", "byol", *SMALL, *words).code == 0
    config = RunDir.open(Path("run")).config()
    assert (config.optimizer, config.lr) == ("lars", 1.0)


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


@pytest.fixture
def unlabelled(here: Path) -> Path:
    """A flat folder of images, as they come from a camera."""
    (here / "flat").mkdir()
    rng = np.random.default_rng(0)
    for i in range(80):
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(here / "flat" / f"{i}.png")
    return here / "flat"


def test_unlabelled_images_train_without_knn(unlabelled: Path) -> None:
    words = ("--data", str(unlabelled), "--batch-size", "32", "--quiet", "--out", "run")
    assert call("train", "simsiam", *SMALL, *words).code == 0
    assert all(row["knn"] is None for row in records(Path("run")) if row["event"] == "epoch")


def test_unlabelled_images_are_told_once_to_give_no_knn(unlabelled: Path) -> None:
    words = ("--data", str(unlabelled), "--batch-size", "32", "--out", "run")
    assert call("train", "simsiam", *SMALL, *words).out.count("no k-NN: the images have no labels") == 1
