"""What a cure leaves out: what can prove nothing, and what there is no time for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cures.fake import write_run
from fullrank.cures.agenda import CureAgenda
from fullrank.cures.cure import make_plan, run_cure
from fullrank.cures.options import CureOptions
from fullrank.cures.plan import CurePlan
from fullrank.cures.result import read_cure
from fullrank.cures.tables import rows
from fullrank.jobs.job import Job
from fullrank.jobs.once import folder_of, pause_jobs, run_once
from fullrank.training.records import EpochRecord

Results = Mapping[str, tuple[str, float]]
BROKEN = ["complete"] * 8
WON: Results = {"stop-gradient": ("healthy", 0.5), "untreated": ("complete", 0.3)}
ALL_WIN: Results = {"untreated": ("complete", 0.1)}
ON_RECORD = 60.0  # seconds of an epoch


class Machine:
    """Runs jobs without training them, by a clock of its own."""

    def __init__(self, plan: CurePlan, results: Results, fixed: bool = False, at_once: int = 2) -> None:
        self.now, self.results, self.at_once = 0.0, results, at_once
        self.said, self.saved, self.trained = list[str](), list[CurePlan](), list[tuple[str, int]]()
        self.agenda = CureAgenda(
            plan, plan.jobs(), [], at_once, 0.0, fixed, lambda *_: None, self.said.append, self.saved.append,
            lambda: self.now,
        )  # fmt: skip

    def run(self, epoch_seconds: Callable[[float], float]) -> CurePlan:
        running = dict[str, tuple[Job, int]]()
        while self.agenda or running:
            while len(running) < self.at_once and (job := self.agenda.take()):
                running[job.name] = (job, 0)
                self.agenda(job, "running", None)
            self.now += epoch_seconds(self.now)
            for name, (job, before) in list(running.items()):
                epoch = before + 1
                running[name] = (job, epoch)
                self.agenda(job, "running", EpochRecord(epoch=epoch))
                if epoch >= min(job.until, self.agenda.plan.until):
                    self._end(job, epoch)
                    del running[name]
        return self.agenda.plan

    def _end(self, job: Job, epoch: int) -> None:
        kind, knn = self.results.get(
            job.arm, ("healthy", 0.4) if self.results is ALL_WIN else ("complete", 0.2)
        )
        folder = folder_of(job, self.agenda.plan.out)
        write_run(folder / "run", [kind] * epoch, knn, seed=job.seed or 0)
        (folder / "result.json").write_text(json.dumps({"numbers": {}, "seconds": 60.0 * epoch}))
        self.trained.append((job.arm, job.seed or 0))
        self.agenda(job, "done", None)


def planned(folder: Path, options: CureOptions) -> CurePlan:
    plan = make_plan(write_run(folder / "run", BROKEN, seconds=ON_RECORD), options)
    assert isinstance(plan, CurePlan)
    plan.out.mkdir(parents=True, exist_ok=True)
    return plan


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 7])
def test_an_arm_that_can_no_longer_cure_is_not_trained_with_further_seeds(
    tmp_path: Path, at_once: int
) -> None:
    machine = Machine(planned(tmp_path, CureOptions(epochs=4)), WON, True, at_once)
    machine.run(lambda _: ON_RECORD)
    first = {(arm, seed) for arm, seed in machine.trained if seed == 0}
    assert len(first) == len(machine.agenda.plan.arms)
    assert set(machine.trained) - first == {
        (arm, s) for arm in ("untreated", "stop-gradient") for s in (1, 2)
    }


@pytest.mark.parametrize(
    "results",
    [
        {"untreated": ("complete", 0.3)},
        {"untreated": ("complete", 0.9), "stop-gradient": ("healthy", 0.5)},
        {"untreated": ("healthy", 0.9), "stop-gradient": ("healthy", 0.5)},
    ],
)
def test_a_cure_ends_with_its_first_seed_where_nothing_can_cure_any_more(
    tmp_path: Path, results: Results
) -> None:
    machine = Machine(planned(tmp_path, CureOptions(epochs=4)), results, True)
    plan = machine.run(lambda _: ON_RECORD)
    assert {seed for _, seed in machine.trained} == {0}
    cure = read_cure(plan, {}, machine.agenda.left_out)
    assert cure.winner is None and not any(arm.failed for arm in cure.arms)


def test_an_arm_that_failed_is_not_trained_with_further_seeds(tmp_path: Path) -> None:
    plan = planned(tmp_path, CureOptions(most=1, epochs=4))
    machine = Machine(plan, WON, True, 1)
    for state in ("done", "failed"):
        job = machine.agenda.take()
        assert job is not None
        machine.agenda(job, state, "out of memory" if state == "failed" else None)
    assert machine.agenda.take() is None and not machine.agenda


def test_nothing_more_is_trained_where_the_untreated_arm_failed(tmp_path: Path) -> None:
    machine = Machine(planned(tmp_path, CureOptions(epochs=4)), WON, True, 1)
    job = machine.agenda.take()
    assert job is not None and job.arm == "untreated"
    machine.agenda(job, "failed", "its images are gone")
    assert machine.agenda.take() is None and not machine.agenda


def test_the_table_says_of_an_arm_with_how_many_seeds_it_was_trained(tmp_path: Path) -> None:
    machine = Machine(planned(tmp_path, CureOptions(most=2, epochs=4)), WON, True)
    plan = machine.run(lambda _: ON_RECORD)
    cure = read_cure(plan, {}, machine.agenda.left_out)
    verdicts = {row.arm.name: row.cells[0] for row in rows(cure)}
    other = plan.arms[-1].name
    assert verdicts[other] == "complete; 1 of 3 seeds" and verdicts["stop-gradient"] == "healthy"
    assert cure.winner is not None and "can no longer cure" in cure.notes[-1]
    assert any(line.startswith(f"left out  {other}") for line in machine.said)


def test_nothing_is_cut_where_epochs_take_what_they_took(tmp_path: Path) -> None:
    plan = planned(tmp_path, CureOptions(minutes=120.0))
    machine = Machine(plan, WON)
    assert machine.run(lambda _: ON_RECORD / 2) == plan and not machine.saved


@pytest.mark.parametrize("results", [WON, ALL_WIN])
@pytest.mark.parametrize("at_once", [1, 2, 4])
@pytest.mark.parametrize("slower", [2.0, 5.0])
def test_a_cure_on_a_slower_machine_ends_near_its_budget(
    tmp_path: Path, slower: float, at_once: int, results: Results
) -> None:
    plan = replace(planned(tmp_path, CureOptions(minutes=1000.0)), minutes=120.0 / at_once)
    machine = Machine(plan, results, at_once=at_once)
    machine.run(lambda _: slower * ON_RECORD)
    assert machine.now <= 1.1 * 60 * 120.0 / at_once + 2 * slower * ON_RECORD  # measured by two epochs


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("begins", [0.1, 0.4, 0.7])
def test_a_cure_beside_which_other_work_begins_ends_near_its_budget(
    tmp_path: Path, begins: float, at_once: int
) -> None:
    budget = 60 * 150.0 / at_once
    plan = replace(planned(tmp_path, CureOptions(minutes=1000.0)), minutes=budget / 60)
    machine = Machine(plan, ALL_WIN, at_once=at_once)
    machine.run(lambda now: ON_RECORD * (1 if now < begins * budget else 3))
    assert machine.now <= 1.4 * budget  # what has begun ends, at its new pace


def test_what_was_cut_is_said_and_stands_in_the_notes_of_the_table(tmp_path: Path) -> None:
    plan = replace(planned(tmp_path, CureOptions(minutes=1000.0)), minutes=60.0)
    machine = Machine(plan, ALL_WIN)
    cut = machine.run(lambda _: 3 * ON_RECORD)
    assert cut.until < plan.until and any("compared at epoch" in note for note in cut.notes)
    said = [line.removeprefix("cut       ") for line in machine.said if line.startswith("cut")]
    assert said == list(cut.notes[len(plan.notes) :]) and machine.saved[-1] == cut
    assert list(read_cure(cut, {}, machine.agenda.left_out).notes[: len(cut.notes)]) == list(cut.notes)


def test_all_arms_are_compared_at_the_epoch_that_is_left_to_them(tmp_path: Path) -> None:
    plan = replace(planned(tmp_path, CureOptions(minutes=1000.0)), minutes=60.0)
    machine = Machine(plan, ALL_WIN)
    cure = read_cure(machine.run(lambda _: 3 * ON_RECORD), {}, machine.agenda.left_out)
    assert {outcome.epoch for arm in cure.arms for outcome in arm.outcomes} == {cure.plan.until}


def test_epochs_that_were_asked_for_are_not_cut(tmp_path: Path) -> None:
    machine = Machine(planned(tmp_path, CureOptions(epochs=6, minutes=60.0)), ALL_WIN, True)
    plan = machine.run(lambda _: 3 * ON_RECORD)
    assert plan.until == 6 and len(plan.arms) < 5


def test_without_a_budget_nothing_is_cut(tmp_path: Path) -> None:
    plan = planned(tmp_path, CureOptions(epochs=6))
    assert plan.minutes is None and Machine(plan, ALL_WIN, True).run(lambda _: 1e6) == plan


def test_a_budget_that_is_too_short_for_anything_is_said(tmp_path: Path) -> None:
    machine = Machine(replace(planned(tmp_path, CureOptions(minutes=1000.0)), minutes=1.0), WON, at_once=1)
    plan = machine.run(lambda _: ON_RECORD)
    assert (len(plan.arms), len(plan.seeds), plan.until) == (2, 1, 3)
    assert any("the least that tells anything" in line for line in machine.said)


def test_a_cure_that_was_cut_goes_on_by_what_is_left_of_its_plan(tmp_path: Path) -> None:
    options = CureOptions(minutes=1000.0)
    plan = planned(tmp_path, options)
    machine = Machine(replace(plan, minutes=60.0), WON)
    cut = machine.run(lambda _: 3 * ON_RECORD)
    stored = {"asked": {"most": 4, "seeds": 3, "minutes": 1000.0, "epochs": 0}, "plan": cut.as_dict()}
    (plan.out / "plan.json").write_text(json.dumps(stored))
    again = make_plan(plan.run, options)
    assert again == cut
    cure = run_cure(cut, options)
    assert cure.plan == cut and cure.winner is not None


def test_jobs_pause_where_the_folder_says_so_but_not_later_than_they_would(tmp_path: Path) -> None:
    settings = {"limit": 32, "batch_size": 16, "backbone": "resnet8-w4", "epochs": 3, "probe": "off",
                "diagnostics_every": 0, "watch_images": 32, "method": "simclr", "data": "shapes"}  # fmt: skip
    pause_jobs(tmp_path, 1)
    jobs = [Job("a", 0, settings, until=2)]
    seen = list[int]()

    def notify(_: Job, __: str, record: object) -> None:
        if isinstance(record, EpochRecord):
            seen.append(record.epoch)

    assert run_once(jobs, tmp_path, 1, notify) == {}
    assert max(seen) == 1
