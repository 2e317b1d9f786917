"""The reader: any state a run directory can be found in."""

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from expect import known
from fullrank.errors import UsageError
from fullrank.report.run.learning_rate import rate_note
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import MOST_LOSSES, Summary, summarise
from fullrank.report.run.terminal import closing_lines
from fullrank.training.records import StepRecord


def test_a_whole_run(fake_run: Any) -> None:
    run = read_run(fake_run("dimensional", epochs=4))
    assert [row.epoch for row in run.epochs] == [0, 1, 2, 3, 4]
    assert run.taps == ["backbone", "projector", "predictor"]
    assert run.verdict["kind"] == "dimensional"
    assert run.size("projector") == (1000, 128)
    assert list(run.spectra("projector", "centred")) == [0, 1, 2, 3, 4]
    assert run.end is not None and run.damaged == 0
    points = run.measures("projector", "erank_centred")
    assert known(points[-1].value) < 0.1 * known(points[-1].null)


@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_cut_at_any_byte(fake_run: Any, part: Any) -> None:
    path = fake_run(epochs=3)
    file = path / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole[: int(part * len(whole))])
    run = read_run(path)
    assert run.end is None and run.damaged == 0
    summarise(run)


def test_damage_is_counted_unless_it_is_a_cut_at_the_end(fake_run: Any) -> None:
    file = fake_run(epochs=1) / "metrics.jsonl"
    file.write_bytes(file.read_bytes() + '{"event":"step","why":"é'.encode()[:-1])  # inside a letter
    assert read_run(file.parent).end is not None and read_run(file.parent).damaged == 0
    file.write_bytes(b'{"event": "st' + file.read_bytes())
    assert read_run(file.parent).damaged == 1


def test_a_resumed_run_overtakes_what_was_written_after_its_checkpoint(tmp_path: Path) -> None:
    def step(number: Any, loss: Any) -> Any:
        return {"event": "step", "epoch": number // 10, "step": number, "loss": loss}

    def epoch(number: Any) -> Any:
        return {"event": "epoch", "epoch": number, "step": 10 * number}

    old = [step(5, -0.1), epoch(1), step(15, -0.2), epoch(2), step(25, -0.3)]
    old.append({"event": "end", "reason": "interrupted", "step": 25, "epoch": 2, "time": {}})
    new = [step(15, -0.9), epoch(2)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, old + new)))
    run = read_run(tmp_path)
    assert [(row.step, row.loss) for row in run.steps] == [(5, -0.1), (15, -0.9)]
    assert [row.epoch for row in run.epochs] == [1, 2]
    assert run.end is None


def test_undefined_numbers_are_none(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"event":"step","epoch":0,"step":1,"loss":NaN}\n')
    assert read_run(tmp_path).steps[0].loss is None


def test_spectra_that_are_missing_or_cut(fake_run: Any) -> None:
    assert read_run(fake_run(name="bare", epochs=2, spectra=False)).spectra("projector", "unit") == {}
    path = fake_run(epochs=2)
    cut = path / "spectra" / "epoch_0002.npz"
    cut.write_bytes(cut.read_bytes()[:700])
    assert list(read_run(path).spectra("projector", "unit")) == [0, 1]


def test_a_cut_config_is_no_obstacle(fake_run: Any) -> None:
    path = fake_run(epochs=1)
    (path / "config.yaml").write_text("method: simsiam\noptions: {width: [1, 2")
    (path / "environment.json").write_text('{"device": ')
    run = read_run(path)
    assert run.config == {} and run.environment == {}


def test_settings_that_are_sound_only_beside_each_other_are_kept(fake_run: Any) -> None:
    path = fake_run(epochs=1)
    (path / "config.yaml").write_text("order: hybrid\nchunk_size: 4\nof_tomorrow: 1\n")
    run = read_run(path)
    assert run.config == {"order": "hybrid", "chunk_size": 4, "of_tomorrow": 1} and run.notes == ()


def test_a_setting_of_another_kind_is_left_out_and_named(fake_run: Any) -> None:
    path = fake_run(epochs=1)
    (path / "config.yaml").write_text("lr: much\nbatch_size: 64\n")
    run = read_run(path)
    assert run.config == {"batch_size": 64} and "no value of its kind for lr" in run.notes[0]


def test_what_is_no_run_directory(tmp_path: Path, fake_run: Any) -> None:
    with pytest.raises(UsageError, match="no such run directory"):
        read_run(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="not a directory"):
        read_run(tmp_path / "file")
    fake_run("healthy", epochs=1)
    with pytest.raises(UsageError, match=re.escape(f"did you mean {tmp_path / 'healthy'}?")):
        read_run(tmp_path)


def test_the_summary(fake_run: Any) -> None:
    summary = summarise(read_run(fake_run("complete", epochs=4)), "no stop-gradient")
    assert summary.name == "no stop-gradient"
    assert summary.style.title == "Complete collapse" and summary.tap == "projector"
    assert known(summary.level) < 0.01 and summary.ceiling.d == 128
    assert known(summary.knn) < known(summary.knn_untrained)
    assert known(summary.loss) < summary.losses[0]
    assert summary.share_watching == 0.0098


FAILED = Summary("run", knn_untrained=0.4, knn=0.2, losses=[-0.5, -0.9])
OF = {"method": "simsiam", "optimizer": "sgd", "lr_scaling": "linear", "image_size": 32, "batch_size": 256}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lr": 2.0}, "2 is 40 times the 0.05 that simsiam starts with; try --lr 0.05"),
        ({"lr": 0.05}, ""),
        ({"lr": 0.1}, ""),
        ({"lr": 0.4, "lr_scaling": "none", "batch_size": 2048}, ""),  # 0.05 scaled by 8
        ({"lr": 0.05, "optimizer": "adamw"}, "0.05 is 50 times the 0.001"),
        ({"lr": 0.4, "data": "shapes"}, ""),  # the rate of the recipe that was tried on these images
        ({"lr": 2.0, "method": "of another package"}, ""),
    ],
)
def test_a_failed_run_names_its_rate_where_that_is_the_likely_cause(
    changes: dict[str, Any], said: str
) -> None:
    note = rate_note(OF | changes, FAILED)
    assert said in note and bool(said) is bool(note)
    fine = Summary("run", knn_untrained=0.4, knn=0.5)
    assert rate_note(OF | changes, fine) == ""


def test_the_rate_that_is_chosen_for_a_short_run_is_not_called_the_cause_of_its_failure() -> None:
    short = Summary("run", epoch=5, step=20, knn_untrained=0.4, knn=0.2, losses=[-0.5, -0.9])
    assert rate_note(OF | {"lr": 0.4, "batch_size": 16, "epochs": 5}, short) == ""


def test_a_loss_that_rose_makes_a_rate_suspect_sooner() -> None:
    rose = Summary("run", knn_untrained=0.4, knn=0.2, losses=[-0.9, -0.5])
    assert "2 times" in rate_note(OF | {"lr": 0.1}, rose)
    assert any("likely cause" in line for line in closing_lines(rose, OF | {"lr": 0.1}))


def test_the_losses_of_a_summary_are_bounded_with_the_first_the_last_and_the_course_between() -> None:
    summary = Summary("run")
    for number in range(100_000):
        summary.take(StepRecord(step=number, loss=float(number)))
        assert summary.losses[0] == 0 and summary.loss == number
    assert MOST_LOSSES / 2 <= len(summary.losses) <= MOST_LOSSES
    gaps = [after - before for before, after in pairwise(summary.losses)]
    assert set(gaps[:-1]) == {32.0} and gaps[-1] <= 32
