"""`fullrank evaluate`: what it prints and writes, from runs and files, and what it refuses in one line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.helpers import answered, call, refused, save_images


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "first"
    words = "--data shapes --limit 256 --epochs 2 --batch-size 64 --backbone resnet8-w16 --keep-every 1"
    assert call("train", "simsiam", *words.split(), "--out", str(out), "--json").code == 0
    return out


@pytest.mark.parametrize("probe", ["linear", "knn", "cluster"])
def test_from_the_run_and_from_what_embed_wrote_the_results_agree(
    run: Path, tmp_path: Path, probe: str
) -> None:
    assert call("embed", str(run), "--out", str(tmp_path / "features")).code == 0
    stored = answered("evaluate", probe, str(tmp_path / "features"))
    direct = answered("evaluate", probe, str(run), "--out", str(tmp_path / "direct"))
    assert stored["results"] == direct["results"]
    assert (stored["n_train"], stored["n_test"], stored["d"]) == (256, 256, 64)


def test_a_result_lies_beside_the_run_with_what_would_repeat_it(run: Path) -> None:
    found = answered("evaluate", "knn", str(run), "--ks", "1,5")
    written = json.loads((run / "evaluations/knn.json").read_text())
    assert written == {key: value for key, value in found.items() if key != "written"}
    assert written["settings"]["ks"] == [1, 5]
    assert written["results"]["k"] in (1, 5)


def test_a_layer_and_a_methods_own_tap_may_be_evaluated(run: Path) -> None:
    widths = {
        tap: answered("evaluate", "knn", str(run), "--tap", tap)["d"] for tap in ("blocks.1", "projector")
    }
    assert widths == {"blocks.1": 32, "projector": 128}


def test_a_papers_protocol_trains_on_the_images(run: Path) -> None:
    found = answered("evaluate", "linear", str(run), "--protocol", "simsiam", "--epochs", "2")
    assert found["protocol"] == "simsiam"
    assert len(found["results"]["curve"]["top1"]) == 2
    assert (run / "evaluations/linear-simsiam.json").is_file()


def test_fine_tuning_tells_every_share_of_the_labels(run: Path) -> None:
    found = answered("evaluate", "finetune", str(run), "--shares", "10,100", "--epochs", "1")
    images = {share: row["images"] for share, row in found["results"]["by_share"].items()}
    assert images["1"] == 256
    assert 10 <= images["0.1"] <= 40


def test_all_makes_a_row_for_every_encoder_that_was_kept(run: Path) -> None:
    found = answered("evaluate", "all", str(run))
    assert [row["epoch"] for row in found["rows"]] == [0, 1, 2]
    assert [row["loss"] is None for row in found["rows"]] == [True, False, False]
    assert all({"linear", "knn", "cluster"} <= set(row) for row in found["rows"])
    last = answered("evaluate", "knn", str(run))["results"]["top1"]
    assert found["rows"][-1]["knn"]["top1"] == last


def test_a_run_is_evaluated_beside_the_network_that_it_began_with(run: Path) -> None:
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    logged = [record["knn"]["top1"] for record in records if record.get("knn")]
    found = answered("evaluate", "knn", str(run), "--untrained")
    assert found["untrained"] and found["results"]["as_in_training"] == logged[0]
    assert found["written"].endswith("knn-untrained.json")  # beside the trained one's
    trained = answered("evaluate", "knn", str(run))
    assert trained["results"]["as_in_training"] == logged[-1]
    low, high = trained["results"]["top1_interval"]
    assert 0 < low < trained["results"]["top1"] < high < 1
    projector = answered("evaluate", "cluster", str(run), "--untrained", "--tap", "projector")
    assert projector["d"] == 128


def test_a_checkpoint_is_not_made_untrained(run: Path, tmp_path: Path) -> None:
    (tmp_path / "copy.safetensors").write_bytes((run / "encoder.safetensors").read_bytes())
    words = ("evaluate", "knn", str(tmp_path / "copy.safetensors"), "--data", "shapes", "--untrained")
    assert "brings its weights along" in refused(*words)


def test_the_screen_shows_the_numbers_and_where_they_are(run: Path) -> None:
    out = call("evaluate", "cluster", str(run)).out
    assert "NMI" in out and str(run / "evaluations/cluster.json") in out


def test_files_of_anybody_with_labels_are_probed(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(300) % 3
    np.save(tmp_path / "z.npy", np.eye(3, 8)[labels] * 9 + generator.normal(size=(300, 8)))
    np.save(tmp_path / "y.npy", labels)
    words = [str(tmp_path / "z.npy"), "--labels", str(tmp_path / "y.npy"), "--out", str(tmp_path / "out")]
    accuracies = [answered("evaluate", probe, *words)["results"]["top1"] for probe in ("linear", "knn")]
    assert min(accuracies) > 0.95
    assert answered("evaluate", "cluster", *words)["results"]["accuracy"] > 0.95


@pytest.mark.parametrize("probe", ["linear", "knn", "cluster", "finetune", "all"])
def test_unlabelled_data_is_refused_in_one_line(run: Path, tmp_path: Path, probe: str) -> None:
    save_images(tmp_path / "flat", 24, 32)
    assert "labels" in refused("evaluate", probe, str(run), "--data", str(tmp_path / "flat"))


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
def test_bad_usage_is_one_line(run: Path, words: list[str], said: str) -> None:
    assert said in refused("evaluate", *(str(run) if word == "RUN" else word for word in words))


def test_help_names_every_probe() -> None:
    shown = call("evaluate", "--help").out
    assert [probe for probe in ("linear", "knn", "cluster", "finetune", "all") if probe not in shown] == []
