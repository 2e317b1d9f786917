"""`fullrank evaluate`: what it prints and writes, from runs and files, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fullrank.cli import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "first"
    words = "--data shapes --limit 256 --epochs 2 --batch-size 64 --backbone resnet8-w16 --keep-every 1"
    assert main(["train", "simsiam", *words.split(), "--out", str(out), "--json"]) == 0
    return out


def evaluated(words: list[str], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["evaluate", *words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(["evaluate", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


@pytest.mark.parametrize("probe", ["linear", "knn", "cluster"])
def test_from_the_run_and_from_what_embed_wrote_the_results_agree(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], probe: str
) -> None:
    assert main(["embed", str(run), "--out", str(tmp_path / "features")]) == 0
    stored = evaluated([probe, str(tmp_path / "features")], capsys)
    direct = evaluated([probe, str(run), "--out", str(tmp_path / "direct")], capsys)
    assert stored["results"] == direct["results"]
    assert (stored["n_train"], stored["n_test"], stored["d"]) == (256, 256, 64)


def test_a_result_lies_beside_the_run_with_what_would_repeat_it(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(["knn", str(run), "--ks", "1,5"], capsys)
    written = json.loads((run / "evaluations/knn.json").read_text())
    assert written == {key: value for key, value in found.items() if key != "written"}
    assert written["settings"]["ks"] == [1, 5]
    assert written["results"]["k"] in (1, 5)


def test_a_layer_and_a_methods_own_tap_may_be_evaluated(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    widths = {
        tap: evaluated(["knn", str(run), "--tap", tap], capsys)["d"] for tap in ("blocks.1", "projector")
    }
    assert widths == {"blocks.1": 32, "projector": 128}


def test_a_papers_protocol_trains_on_the_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(["linear", str(run), "--protocol", "simsiam", "--epochs", "2"], capsys)
    assert found["protocol"] == "simsiam"
    assert len(found["results"]["curve"]["top1"]) == 2
    assert (run / "evaluations/linear-simsiam.json").is_file()


def test_fine_tuning_tells_every_share_of_the_labels(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = evaluated(["finetune", str(run), "--shares", "10,100", "--epochs", "1"], capsys)
    images = {share: row["images"] for share, row in found["results"]["by_share"].items()}
    assert images["1"] == 256
    assert 10 <= images["0.1"] <= 40


def test_all_makes_a_row_for_every_encoder_that_was_kept(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = evaluated(["all", str(run)], capsys)
    assert [row["epoch"] for row in found["rows"]] == [0, 1, 2]
    assert [row["loss"] is None for row in found["rows"]] == [True, False, False]
    assert all({"linear", "knn", "cluster"} <= set(row) for row in found["rows"])
    last = evaluated(["knn", str(run)], capsys)["results"]["top1"]
    assert found["rows"][-1]["knn"]["top1"] == last


def test_the_screen_shows_the_numbers_and_where_they_are(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["evaluate", "cluster", str(run)]) == 0
    out = capsys.readouterr().out
    assert "NMI" in out
    assert str(run / "evaluations/cluster.json") in out


def test_files_of_anybody_with_labels_are_probed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    np.save(tmp_path / "z.npy", np.eye(3, 8)[labels] * 9 + generator.normal(size=(300, 8)))
    np.save(tmp_path / "y.npy", labels)
    words = [str(tmp_path / "z.npy"), "--labels", str(tmp_path / "y.npy"), "--out", str(tmp_path / "out")]
    accuracies = [evaluated([probe, *words], capsys)["results"]["top1"] for probe in ("linear", "knn")]
    assert min(accuracies) > 0.95
    assert evaluated(["cluster", *words], capsys)["results"]["accuracy"] > 0.95


@pytest.mark.parametrize("probe", ["linear", "knn", "cluster", "finetune", "all"])
def test_unlabelled_data_is_refused_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], probe: str
) -> None:
    from PIL import Image

    for i in range(24):
        Image.new("RGB", (32, 32), (10 * i, 0, 0)).save(tmp_path / f"{i}.png")
    assert "labels" in refused([probe, str(run), "--data", str(tmp_path)], capsys)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lineal", "x"], "did you mean 'linear'"),
        (["linear", "RUN", "--protocol", "solow"], "did you mean 'solo'"),
        (["linear", "RUN", "--epochs", "3"], "belongs to a --protocol"),
        (["knn", "RUN", "--ks", "1,two"], "--ks takes numbers"),
        (["knn", "RUN", "--ks", "0.5"], "whole"),
        (["cluster", "RUN", "--by", "codes", "--clusters", "3"], "--clusters is for kmeans"),
        (["finetune", "RUN", "--shares", "200"], "share of labels"),
        (["finetune", "RUN", "--tap", "projector"], "leave --tap out"),
        (["knn", "RUN", "--tap", "projektor"], "projektor"),
        (["knn", "nothing.npy"], "nothing.npy"),
    ],
)
def test_bad_usage_is_one_line(
    run: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    assert said in refused([str(run) if word == "RUN" else word for word in words], capsys)


def test_help_names_every_probe(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "--help"]) == 0
    shown = capsys.readouterr().out
    assert [probe for probe in ("linear", "knn", "cluster", "finetune", "all") if probe not in shown] == []
