"""Jobs are run once, taken up where they were killed, and come to a page, a JSON and figures."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from fullrank.errors import UsageError
from fullrank.figures import Series
from fullrank.jobs.job import Job
from fullrank.jobs.live import LiveJobs
from fullrank.jobs.once import jobs_at_once, run_once
from fullrank.labs import LABS
from fullrank.labs._common.findings import above, holds, spread
from fullrank.labs._common.lab import plan_jobs
from fullrank.labs._common.page import write_lab
from fullrank.labs._common.results import Result, Results, finished
from fullrank.labs._common.run import job_line, jobs_table
from fullrank.labs.asymmetry.halves import effects
from fullrank.report.run.summary import Summary
from fullrank.training.records import EpochRecord, RunRecord
from labs.toy import TINY, Toy, epochs_of, killed_once, noted, refused, run_sleepers


def counting(tmp_path: Path, arm: str = "a", value: float = 1.0) -> Job:
    return Job(arm, 0, measure=noted, arguments={"path": str(tmp_path / "calls"), "value": value})


def test_a_finished_job_is_never_run_again(tmp_path: Path) -> None:
    job = counting(tmp_path)
    for _ in range(2):
        assert run_once([job], tmp_path / "out", at_once=1) == {}
    assert (tmp_path / "calls").read_text() == "called\n"
    found = finished(job, tmp_path / "out")
    assert found is not None and found.numbers == {"value": 1.0}


def test_a_job_begun_with_other_settings_is_refused_in_one_line_and_nothing_is_run(tmp_path: Path) -> None:
    run_once([counting(tmp_path)], tmp_path / "out", at_once=1)
    with pytest.raises(
        UsageError, match=r"'a, seed 0' with arguments.value 1.0 instead of 2.0: take another"
    ):
        run_once([counting(tmp_path, "b"), counting(tmp_path, value=2.0)], tmp_path / "out", at_once=1)
    assert (tmp_path / "calls").read_text() == "called\n"


@pytest.mark.parametrize("at_once", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_failing_job_is_named_and_the_others_go_on(tmp_path: Path, at_once: int) -> None:
    jobs = [Job("bad", 0, measure=refused), counting(tmp_path)]
    assert run_once(jobs, tmp_path / "out", at_once) == {"bad, seed 0": "there is no such thing"}
    assert finished(jobs[0], tmp_path / "out") is None and finished(jobs[1], tmp_path / "out") is not None


def test_a_job_whose_process_is_killed_is_named_and_done_the_next_time(tmp_path: Path) -> None:
    jobs = [
        Job("doomed", 0, measure=killed_once, arguments={"path": str(tmp_path / "once")}),
        counting(tmp_path),
    ]
    assert run_once(jobs, tmp_path / "out", at_once=2) == {"doomed, seed 0": "its process ended with code -9"}
    assert run_once(jobs, tmp_path / "out", at_once=2) == {}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="asks /proc who is alive")
def test_jobs_end_with_the_process_that_started_them(tmp_path: Path) -> None:
    starter = multiprocessing.get_context("spawn").Process(target=run_sleepers, args=(str(tmp_path),))
    starter.start()
    wait_until(lambda: all((tmp_path / arm).exists() and (tmp_path / arm).read_text() for arm in "ab"), 120)
    assert starter.pid is not None
    os.kill(starter.pid, signal.SIGKILL)  # nothing of it can clean up
    starter.join(10)
    wait_until(lambda: not any(alive(int((tmp_path / arm).read_text())) for arm in "ab"), 20)


def wait_until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.1)


def alive(process: int) -> bool:
    """Whether it runs; one that has ended and that nobody has asked about does not."""
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text()
    except OSError:
        return False


SINGLE_PASS = {"epochs": 3, "order": "single-pass", "limit": 96, "batch_size": 16, "watch_images": 64}


@pytest.mark.parametrize(
    "order", [{}, pytest.param(SINGLE_PASS, marks=pytest.mark.slow)], ids=["iid", "single-pass"]
)
def test_a_killed_training_job_ends_as_an_uninterrupted_one_in_its_order(
    tmp_path: Path, order: dict[str, Any]
) -> None:
    job = Job("train", 3, {**TINY, **order}, measure=epochs_of)

    def die(_: Job, __: str, record: RunRecord | str | None) -> None:
        if isinstance(record, EpochRecord) and record.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_once([job], tmp_path / "cut", at_once=1, notify=die)
    assert finished(job, tmp_path / "cut") is None
    for out in ("cut", "whole"):
        assert run_once([job], tmp_path / out, at_once=1) == {}
    cut, whole = (finished(job, tmp_path / out) for out in ("cut", "whole"))
    assert cut is not None and whole is not None
    assert cut.loss == whole.loss and cut.knn == whole.knn and cut.numbers == whole.numbers
    epochs = order.get("epochs", 2)
    assert set(whole.loss) == set(range(1, epochs + 1)) and {0, epochs} <= set(whole.knn)


@pytest.mark.slow
def test_a_training_jobs_records_reach_who_follows_it_also_from_another_process(tmp_path: Path) -> None:
    jobs = [Job("a", 0, TINY), Job("b", 0, {**TINY, "epochs": 1})]
    heard: dict[str, list[int]] = {}
    states: dict[str, list[str]] = {}

    def follow(job: Job, state: str, record: RunRecord | str | None) -> None:
        states.setdefault(job.arm, []).append(state)
        if isinstance(record, EpochRecord):
            heard.setdefault(job.arm, []).append(record.epoch)

    assert run_once(jobs, tmp_path, at_once=2, notify=follow) == {}
    assert heard == {"a": [0, 1, 2], "b": [0, 1]}
    assert all(found[0] == "running" and found[-1] == "done" for found in states.values())


def test_what_a_job_is_tells_method_recipe_and_data_apart() -> None:
    assert Job("a", 1, {"method": "byol", "data": "cifar10"}).config().weight_decay == 1e-5
    config = Job("a", 1, {"recipe": "shapes/simsiam", "options": {"stop_gradient": False}}).config()
    options = config.as_dict()["options"]
    assert (config.seed, config.lr, options["stop_gradient"], options["predictor"]) == (
        1, 0.4, False, "mlp",
    )  # fmt: skip
    assert Job("a", 1, TINY).plan() != Job("a", 1, {**TINY, "lr": 0.1}).plan()


def test_without_a_gpu_there_is_one_job_for_each_core_and_never_more_than_jobs() -> None:
    if torch.cuda.is_available():
        assert jobs_at_once(9) == 1
    else:
        assert jobs_at_once(1) == 1 and jobs_at_once(10**6) >= 1


def test_two_jobs_of_one_name_are_refused() -> None:
    class Twice(Toy):
        def jobs(self, preset: Any, part: str, seed: int) -> Any:
            return [Job("a b", seed), Job("a-b", seed)]

    with pytest.raises(UsageError, match="two jobs would lie in one folder, a-b-seed-0"):
        plan_jobs(Twice(), {}, [], [0])


@pytest.mark.parametrize("name", list(LABS))
def test_every_job_of_every_preset_and_part_of_every_lab_can_be_planned(name: str) -> None:
    lab = LABS[name]()
    assert {"laptop", "paper"} <= set(lab.presets) and lab.title and lab.paper and lab.says
    for settings in lab.presets.values():
        assert json.loads(json.dumps(settings)) == json.loads(json.dumps(dict(settings)))
        jobs = plan_jobs(lab, json.loads(json.dumps(settings)), list(lab.parts), [0, 1])
        plans = [job.plan() for job in jobs]
        assert plans and {plan["seed"] for plan in plans} == {0, 1}


# what results come to


def results(values: Mapping[str, list[float]]) -> Results:
    return Results(
        [
            Result("one", arm, seed, Path("nowhere"), {"value": value}, 1.0)
            for arm, found in values.items()
            for seed, value in enumerate(found)
        ]
    )


def written(out: Path, missing: Mapping[str, str] = {}) -> dict[str, Any]:
    plan = {"preset": "laptop", "settings": {"bad": ""}, "parts": ["one"], "seeds": [0, 1]}
    write_lab("toy", Toy(), plan, results({"high": [10.0, 11.0], "low": [0.0, 1.0]}), missing, out)
    found: dict[str, Any] = json.loads((out / "lab.json").read_text())
    return found


def test_the_json_holds_figures_claims_settings_versions_and_seconds_and_no_nan(tmp_path: Path) -> None:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    found = written(tmp_path)
    json.loads((tmp_path / "lab.json").read_text(), parse_constant=refuse)
    assert found["figures"]["values"]["values"] == {"high": [10.0, 11.0], "low": [0.0, 1.0]}
    assert found["figures"]["curve"]["series"][0]["ys"] == [[1.0, None], [None, 4.0]]
    assert found["tables"]["table"]["rows"][0] == ["high", [10.0, 11.0]]
    assert [claim["verdict"] for claim in found["claims"]] == ["confirmed"]
    assert found["settings"] == {"bad": ""} and found["seeds"] == [0, 1] and found["seconds"] == 4.0
    assert {"fullrank", "torch"} <= found["versions"].keys()


def test_the_page_needs_no_network_and_says_claim_numbers_notes_and_what_is_missing(tmp_path: Path) -> None:
    written(tmp_path, {"one: low, seed 2": "it was broken"})
    page = (tmp_path / "report.html").read_text()
    for words in ("Nobody (2025)", "High is higher.", "Confirmed", "10.5 ± 0.7", "A note.", "it was broken"):
        assert words in page
    head, _, body = page.partition("<body>")
    assert 'src="http' not in page and "<link" not in head.replace('<link rel="icon" href="data:,">', "")
    assert body.count('type="application/json"') == 3


def test_every_figure_is_drawn_for_a_paper_in_three_formats(tmp_path: Path) -> None:
    written(tmp_path)
    names = {path.name for path in (tmp_path / "figures").iterdir()}
    assert names == {
        f"{stem}.{kind}" for stem in ("values", "curve", "image") for kind in ("svg", "pdf", "png")
    }


def test_a_claim_is_confirmed_by_every_seed_refuted_by_none_and_else_not_decidable() -> None:
    verdicts = {
        flags: holds("c", flags, "n").verdict
        for flags in ((True, True), (False, False), (True, False), (True,))
    }
    assert list(verdicts.values()) == ["confirmed", "not confirmed", "not decidable", "not decidable"]
    assert above("c", [1.0, 2.0], [0.5, 1.5], "a", "b", margin=0.4).verdict == "confirmed"
    assert above("c", [1.0, 2.0], [0.5, 1.5], "a", "b", margin=0.6).verdict == "not confirmed"


def test_spread_is_mean_and_standard_deviation_with_n_less_one() -> None:
    values = [0.61, 0.64, 0.70]
    assert spread(values) == f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}"
    assert spread([1234.0, 1236.0]) == "1,235 ± 1" and spread([None, 0.5]) == "0.500"


def test_effects_are_twice_the_coefficients_of_a_regression_on_signs() -> None:
    rng = np.random.default_rng(0)
    levels = [(a, b, c) for a in (False, True) for b in (False, True) for c in (False, True)]
    values = {level: rng.normal(size=2).tolist() for level in levels}
    signs = 2.0 * np.array(levels, float) - 1.0
    columns = {"a": signs[:, 0], "b × c": signs[:, 1] * signs[:, 2], "a × c": signs[:, 0] * signs[:, 2]}
    design = np.column_stack(
        [np.ones(8), signs, *(signs[:, i] * signs[:, j] for i, j in ((0, 1), (0, 2), (1, 2)))]
    )
    fitted, *_ = np.linalg.lstsq(design, np.array([values[level] for level in levels]), rcond=None)
    found = effects(["a", "b", "c"], values)
    for name, place in (("a", 1), ("b × c", 6), ("a × c", 5)):
        assert columns[name] == pytest.approx(design[:, place])
        assert found[name] == pytest.approx(2 * fitted[place])


def test_effects_of_a_design_with_a_hole_are_refused() -> None:
    with pytest.raises(UsageError, match="4 arms"):
        effects(["a", "b"], {(True, True): [1.0], (True, False): [1.0], (False, True): [1.0]})


def test_seeds_that_lack_an_arm_are_not_compared() -> None:
    assert results({"high": [1.0, 2.0, 3.0], "low": [1.0, 2.0]}).whole_seeds == [0, 1]


def test_a_curve_spans_what_its_seeds_span() -> None:
    assert Series("a", [0, 1], [[1.0, 2.0], [3.0, None]]).summary() == ([2.0, 2.0], [1.0, 2.0], [3.0, 2.0])


# what is shown meanwhile


def test_the_table_of_jobs_shows_arms_by_seeds_and_what_each_is_at() -> None:
    jobs = [Job("a", seed, TINY) for seed in (0, 1, 2)]
    live = LiveJobs(jobs, Summary, jobs_table, job_line, "quiet")
    epoch = EpochRecord(epoch=1, step=2, knn={"top1": 0.5}, verdict={"kind": "complete"})
    live(jobs[0], "running", epoch)
    live(jobs[1], "running", epoch)
    live(jobs[0], "done", None)
    drawn = io.StringIO()
    Console(file=drawn, width=140).print(live)
    text = drawn.getvalue()
    assert "seed 2" in text and "complete, k-NN 50.0 %" in text and "epoch 1/2" in text
    assert "1 of 3 jobs" in text


def test_where_there_is_no_terminal_a_job_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    jobs = [Job("a", 0), Job("b", 0)]
    with LiveJobs(jobs, Summary, jobs_table, job_line, "plain") as live:
        live(jobs[0], "done", None)  # finished before
        live(jobs[1], "running", None)
        live(jobs[1], "failed", "why")
    assert capsys.readouterr().out == "begins  b, seed 0\n2/2  b, seed 0  failed\n"


def test_where_there_is_no_terminal_a_job_may_have_a_line_for_each_epoch(
    capsys: pytest.CaptureFixture[str],
) -> None:
    jobs = [Job("a", 0), Job("longer", 0)]
    with LiveJobs(jobs, Summary, jobs_table, lambda found: found.state, "plain", each="epoch") as live:
        live(jobs[0], "running", EpochRecord(epoch=1))
        live(jobs[0], "done", None)
        with pytest.raises(KeyError):
            live(Job("nobody", 0), "running", None)
    assert capsys.readouterr().out == "a, seed 0       running\n"
