"""`fullrank sweep`: a grid of runs, checked before, carried on after, compared at the end."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from cli.helpers import SMALL, call
from fullrank.jobs import pool

TINY = (*SMALL, "--limit", "128", "--epochs", "1", "--watch-images", "64", "--accelerator", "cpu")


def commands(*words: str) -> list[list[str]]:
    """What --dry-run prints, word by word."""
    called = call("sweep", *words, "--dry-run")
    assert called.code == 0, called.err
    return [shlex.split(line) for line in called.out.splitlines()]


def test_every_combination_is_a_command_that_can_be_run_by_hand(here: Path) -> None:
    found = commands("simsiam,byol", "--over", "lr=0.1,0.2", "options.proj_output_dim=64,128", "--seeds", "2",
                     "--epochs", "3", "--out", "grid")  # fmt: skip
    assert len(found) == len({tuple(words) for words in found}) == 2 * 2 * 2 * 2
    first = found[0]
    assert first[:3] == ["fullrank", "train", "simsiam"]
    assert shlex.join(first).count("--epochs 3 --lr 0.1 --options.proj-output-dim 64 --seed 0") == 1
    assert first[first.index("--out") + 1] == "grid/simsiam,lr=0.1,options.proj_output_dim=64,seed=0"
    assert not Path("grid").exists()


def test_switches_are_swept_by_true_and_false(here: Path) -> None:
    on, off = commands("simsiam", "--over", "options.stop_gradient=true,false")
    assert "--options.stop-gradient" in on
    assert "--options.no-stop-gradient" in off


@pytest.mark.slow
def test_runs_are_trained_and_compared_a_failing_one_is_named_and_none_is_trained_again(here: Path) -> None:
    words = ("sweep", "simsiam", "--over", "lr=0.1,1e30", "--jobs", "2", "--out", "grid", *TINY)
    called = call(*words)
    assert called.code == 1
    assert "2 runs in grid" in called.out and "2/2" in called.out
    failed = next(line for line in called.out.splitlines() if "failed: " in line)
    assert "lr=1e30" in failed and "training has diverged" in failed and "grid/logs/lr=1e30.txt" in failed
    assert Path("grid/logs/lr=1e30.txt").read_text().startswith("$ ")
    assert "compare.html" in called.out and Path("grid/compare.html").is_file()
    last = Path("grid/lr=0.1/checkpoints/last.pt").stat().st_mtime_ns
    again = call(*words, "--json")
    first, second = json.loads(again.out)["runs"]
    assert again.code == 1 and first["verdict"] and "training has diverged" in second["error"]
    assert Path("grid/lr=0.1/checkpoints/last.pt").stat().st_mtime_ns == last


def test_a_run_that_was_stopped_is_carried_on(here: Path) -> None:
    words = ("simsiam", "--over", "lr=0.1", "--out", "grid", *TINY)
    assert call("train", "simsiam", *TINY, "--lr", "0.1", "--out", "grid/lr=0.1", "--quiet").code == 0
    metrics = Path("grid/lr=0.1/metrics.jsonl")
    lines = metrics.read_text().splitlines(keepends=True)
    metrics.write_text("".join(lines[:-1]))  # as if it had been killed before it said so
    (command,) = commands(*words)
    assert command[1:3] == ["resume", "grid/lr=0.1"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["simsiam", "--over", "lr"], "--over takes KEY=V1,V2,..., as lr=0.05,0.1, not 'lr'"),
        (["simsiam", "--over", "lr=0.1", "lr=0.2"], "--over names lr twice: give all of its values at once"),
        (["simsiam", "--over", "lr=0.1", "--lr", "0.2"], "--lr is swept over: leave it out"),
        (["simsiam", "--over", "rl=0.1"], "unknown option --rl"),
        (["simsiam", "--over", "lr=0.1,fast"], "--lr takes a number, not"),
        (["simsaim", "--seeds", "2"], "did you mean 'simsiam'?"),
        (["simsiam", "--over", "seed=1,2", "--seeds", "2"], "--over seed and --seeds say the same"),
        (["simsiam", "--jobs", "0"], "--seeds and --jobs are at least 1"),
        (["simsiam", "--profile", "3"], "--profile is not for the runs of a sweep"),
        (["simsiam", "--slurm=60"], "--slurm takes no value"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(here: Path, words: list[str], said: str) -> None:
    called = call("sweep", *words, "--out", "grid")
    assert called.code == 2
    assert said in called.err and called.err.count("\n") == 1
    assert not list(Path("grid").glob("*/config.yaml"))


def test_a_run_of_the_same_name_with_other_settings_is_not_taken_for_it(here: Path) -> None:
    Path("grid/lr=0.1").mkdir(parents=True)
    words = ["simsiam", "--momentum", "0.5", "--lr", "0.1"]
    Path("grid/sweep.json").write_text(json.dumps({"lr=0.1": words}))
    called = call("sweep", "simsiam", "--over", "lr=0.1", "--out", "grid")
    assert called.code == 2
    assert f"was trained with `{shlex.join(words)}`: take another --out" in called.err


def test_several_at_a_time_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    shares = [pool.share(place, 3) for place in range(3)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["4", "6", "4"]
    assert {share["OMP_NUM_THREADS"] for share in shares} == {"2"}
    assert pool.share(0, 1) == {}
