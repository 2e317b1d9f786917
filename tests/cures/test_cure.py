"""What `fullrank cure` plans, does and says, on runs that were never trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import fullrank
from cli.helpers import call
from cures.fake import write_arms, write_run
from fullrank.cures.cure import make_plan, run_cure
from fullrank.cures.onset import Diagnosis
from fullrank.cures.options import CureOptions
from fullrank.cures.plan import CurePlan
from fullrank.cures.result import Cure
from fullrank.errors import BusyError, UsageError
from fullrank.lock import sole_writer
from fullrank.training.treatments import flat_settings

OPTIONS = CureOptions(most=2, seeds=3, minutes=1000.0)
BROKEN = ["complete"] * 8
WON = {"stop-gradient": ("healthy", 0.5), "output BN": ("healthy", 0.4), "untreated": ("complete", 0.3)}


def plan_of(run: Path, options: CureOptions = OPTIONS) -> CurePlan:
    plan = make_plan(run, options)
    assert isinstance(plan, CurePlan)
    return plan


def cured(run: Path, arms: Mapping[str, tuple[str, float | None]], options: CureOptions = OPTIONS) -> Cure:
    plan = plan_of(run, options)
    write_arms(plan, arms)
    return run_cure(plan, options)


@pytest.fixture(scope="module")
def won(tmp_path_factory: pytest.TempPathFactory) -> Cure:
    """A cure with a winner, whose files its tests only read."""
    return cured(write_run(tmp_path_factory.mktemp("won") / "run", BROKEN), WON)


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(("kind", "state"), [("healthy", "healthy"), ("not decidable", "not decidable")])
def test_a_run_that_has_not_collapsed_is_left_as_it_is(tmp_path: Path, kind: str, state: str) -> None:
    run = write_run(tmp_path / "run", ["complete", kind])
    before = files_of(run)
    found = fullrank.cure(run)
    assert isinstance(found, Diagnosis) and found.state == state
    assert files_of(run) == before


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", BROKEN)
    before = files_of(run)
    assert plan_of(run).jobs()
    assert files_of(run) == before


def test_a_run_that_never_was_healthy_is_treated_from_its_start(tmp_path: Path) -> None:
    plan = plan_of(write_run(tmp_path / "run", BROKEN))
    assert plan.begins == 0 and "never was healthy" in plan.notes[0]


def test_a_run_whose_healthy_checkpoint_is_gone_is_treated_from_its_start_and_says_so(tmp_path: Path) -> None:
    plan = plan_of(write_run(tmp_path / "run", ["healthy", *BROKEN]))
    assert plan.begins == 0 and "no checkpoint from then is on the disk" in plan.notes[0]


def test_every_arm_has_the_seeds_of_the_others_the_runs_own_first(tmp_path: Path) -> None:
    plan = plan_of(write_run(tmp_path / "run", BROKEN, seed=4))
    assert [arm.name for arm in plan.arms][:2] == ["untreated", "stop-gradient"] and len(plan.arms) == 3
    for arm in plan.arms:
        assert [job.seed for job in plan.jobs() if job.arm == arm.name] == [4, 5, 6]


def test_arms_differ_in_what_their_treatment_changes_and_in_nothing_else(tmp_path: Path) -> None:
    plan = plan_of(write_run(tmp_path / "run", BROKEN))
    jobs = {job.arm: flat_settings(job.config()) for job in plan.jobs()[:3]}
    for arm in plan.arms:
        assert jobs[arm.name] == {**jobs["untreated"], **arm.changes}


@pytest.mark.parametrize(("devices", "of_an_arm"), [(0, 0), (1, 1), (2, 1), (8, 1)])
def test_arms_of_a_run_of_several_processes_are_trained_by_one_each(
    devices: int, of_an_arm: int, tmp_path: Path
) -> None:
    run = write_run(tmp_path / "run", BROKEN, devices=devices, num_nodes=2, strategy="fsdp")
    assert {(job.config().devices, job.config().num_nodes) for job in plan_of(run).jobs()} == {(of_an_arm, 1)}


@pytest.mark.parametrize("option", ["most", "seeds"])
@pytest.mark.parametrize("value", [0, -1, 100_000_000])
def test_numbers_of_arms_and_seeds_that_cannot_be_trained_are_refused(option: str, value: int) -> None:
    with pytest.raises(UsageError, match=f"--{option} (is from 1 to|must not be|is at most)"):
        CureOptions(**{option: value})


def test_a_short_budget_tries_fewer_treatments_and_then_fewer_seeds(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", BROKEN, seconds=60.0)
    plans = [plan_of(run, CureOptions(most=4, minutes=minutes)) for minutes in (1e6, 30.0, 1e-3)]
    sizes = [(len(plan.arms), len(plan.seeds)) for plan in plans]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] == (5, 3) and sizes[-1] == (2, 1)
    assert any("more --minutes" in note for note in plans[-1].notes)


def test_no_budget_takes_an_arm_beyond_the_run(tmp_path: Path) -> None:
    plan = plan_of(write_run(tmp_path / "run", BROKEN), CureOptions(minutes=1e6))
    assert plan.until == len(BROKEN)


def test_a_run_that_is_being_trained_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", BROKEN)
    with sole_writer(run), pytest.raises(BusyError, match="wait for its end, or stop it"):
        make_plan(run, OPTIONS)


def test_the_second_of_two_cures_of_a_run_is_refused_in_a_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", BROKEN)
    with sole_writer(run / "cure"):
        second = call("cure", str(run))
    assert second.code == 2 and second.out == ""
    assert f"{run / 'cure'} is being written by process" in second.err and second.err.count("\n") == 1


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no run directory"):
        make_plan(tmp_path, OPTIONS)


def test_a_folder_with_something_else_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", BROKEN)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("keep")
    with pytest.raises(UsageError, match="holds no cure"):
        make_plan(run, OPTIONS, tmp_path / "mine")


def test_a_method_with_nothing_to_mend_is_treated_by_its_rate(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "method": "distill",
        "options": {},
        "optimizer": "adamw",
        "lr": 0.001,
        "weight_decay": 0.0,
    }
    plan = plan_of(write_run(tmp_path / "run", ["uniform-assignment"] * 4, **settings))
    assert [arm.name for arm in plan.arms] == ["untreated", "a tenth of the rate"]


def test_a_cure_goes_on_by_its_own_plan(won: Cure) -> None:
    again = plan_of(won.plan.run)
    assert (again.arms, again.seeds, again.until) == (won.plan.arms, won.plan.seeds, won.plan.until)
    assert again.diagnosis == won.plan.diagnosis


def test_a_cure_with_other_options_is_refused(won: Cure) -> None:
    with pytest.raises(UsageError, match="holds a cure with --seeds 3"):
        make_plan(won.plan.run, CureOptions(most=2, seeds=2, minutes=1000.0))


@pytest.mark.parametrize(
    ("key", "value"),
    [("minutes", "z"), ("planned", "z"), ("arms", 3), ("diagnosis", None), ("seeds", "gone")],
)
def test_a_plan_that_is_damaged_is_refused_in_a_line(tmp_path: Path, won: Cure, key: str, value: Any) -> None:
    run = shutil.copytree(won.plan.run, tmp_path / "run")
    path = run / won.plan.out.relative_to(won.plan.run) / "plan.json"
    stored = json.loads(path.read_text())
    stored["plan"][key] = value
    if value == "gone":
        del stored["plan"][key]
    path.write_text(json.dumps(stored))
    with pytest.raises(UsageError, match="is damaged: take another --out"):
        plan_of(run)


def test_the_arm_that_is_healthy_and_gains_most_wins(won: Cure) -> None:
    assert won.winner is not None and won.winner.name == "stop-gradient"
    gain = won.winner.gain(won.untreated, "knn")
    assert gain.mean == pytest.approx(0.2) and gain.half == pytest.approx(0.0, abs=1e-6)


def test_an_arm_that_gains_and_is_collapsed_does_not_win(tmp_path: Path) -> None:
    arms = {**WON, "stop-gradient": ("dimensional", 0.9), "output BN": ("healthy", 0.29)}
    cure = cured(write_run(tmp_path / "run", BROKEN), arms)
    assert cure.winner is None and cure.command == ""
    assert cure.headline.startswith("Not cured")


def test_without_labels_arms_are_compared_by_rank(tmp_path: Path) -> None:
    arms: dict[str, tuple[str, float | None]] = {
        "stop-gradient": ("healthy", None),
        "output BN": ("complete", None),
        "untreated": ("complete", None),
    }
    cure = cured(write_run(tmp_path / "run", BROKEN, knn=None), arms)
    assert cure.compared_by == "rank" and cure.winner is not None
    assert cure.winner.gain(cure.untreated, "rank").mean == pytest.approx(7.0)
    assert "RankMe" in (tmp_path / "run" / "cure" / "cure.html").read_text()


def test_the_command_goes_on_with_the_winners_run(tmp_path: Path) -> None:
    plan = plan_of(write_run(tmp_path / "run", BROKEN), CureOptions(most=2, epochs=4))
    write_arms(plan, WON)
    cure = run_cure(plan, CureOptions(most=2, epochs=4))
    assert cure.best is not None and (cure.best.path / "config.yaml").is_file()
    assert cure.command == f"fullrank resume {cure.best.path}"


def test_a_winner_that_has_gone_on_is_still_judged_where_the_arms_were_compared(tmp_path: Path) -> None:
    options = CureOptions(most=1, epochs=4)
    plan = plan_of(write_run(tmp_path / "run", BROKEN), options)
    write_arms(plan, WON)
    before = run_cure(plan, options)
    assert before.best is not None
    write_run(before.best.path, ["healthy"] * 8, 0.9, rank=9.0)
    rows = (before.best.path / "metrics.jsonl").read_text().splitlines()
    early = [row.replace('"top1": 0.9', '"top1": 0.5') if n < 4 else row for n, row in enumerate(rows)]
    (before.best.path / "metrics.jsonl").write_text("\n".join(early) + "\n")
    after = run_cure(plan, options)
    assert after.as_dict()["arms"] == before.as_dict()["arms"]


def test_a_winner_that_is_trained_to_its_end_is_trained_for_longer(won: Cure) -> None:
    assert won.plan.until == 8 and won.command.endswith("--epochs 16")


def test_the_page_tells_onset_arms_gains_and_what_was_not_tested(won: Cure) -> None:
    assert won.page is not None
    text = won.page.read_text()
    for words in ("never was healthy", "Cured by “stop-gradient”", "+20.0 ± 0.0 points", "arXiv 2011.10566",
                  "options.stop_gradient False → True", "What was not tested", won.command):  # fmt: skip
        assert words in text


def test_the_object_holds_arms_gains_and_the_command(won: Cure) -> None:
    found = json.loads((won.plan.run / "cure" / "cure.json").read_text())
    assert found["state"] == "cured" and found["winner"] == "stop-gradient"
    arm = next(arm for arm in found["arms"] if arm["name"] == "stop-gradient")
    assert arm["verdicts"] == {"healthy": 3} and arm["gain"]["mean"] == pytest.approx(0.2)
    assert found["command"].startswith("fullrank resume ")


def test_the_run_is_not_changed_by_its_cure(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", BROKEN)
    before = files_of(run)
    cured(run, WON)
    after = files_of(run)
    assert {path: after[path] for path in before} == before
    assert all("cure" in path.parts for path in after.keys() - before.keys())
