"""What a run does about numbers that go wrong: stop, skip or roll back."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from torch import Tensor

from fullrank.errors import NotFiniteError
from fullrank.networks.finite import first_not_finite, is_finite
from fullrank.training import guard as guarding
from fullrank.training.loop import Loop
from fullrank.training.run import resume, train
from fullrank.training.run_dir import RunDir
from training import not_finite as cases
from training.not_finite import Break, failure, loop_of, noise
from training.test_loop import records


def test_too_many_steps_in_a_row_are_a_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guarding, "MOST_SKIPPED", 2)
    loop = loop_of(tmp_path, on_nan="skip")
    cases.bad_loss(loop, (1, 2, 3))
    said = failure(loop)
    assert said.startswith("step 3: ")
    assert "2 steps before it were left out" in said


def test_an_epoch_of_which_nothing_is_left_is_a_stop(tmp_path: Path) -> None:
    loop = loop_of(tmp_path, on_nan="skip")
    cases.bad_loss(loop, (1, 2, 3))
    assert "every step of epoch 1 was left out" in failure(loop)


@pytest.fixture
def broken_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[Break, int], None]:
    """Break every loop at a step, at most so many times."""

    def breaks(how: Break, times: int = 10**9) -> None:
        init = Loop.__init__

        def broken(self: Loop, *args: Any) -> None:
            init(self, *args)
            how(self)
            left, method = times, self.s.method
            loss: Any = method.loss

            def counted(views: Any) -> Any:
                nonlocal left
                step = loss(views)
                left -= not is_finite(step.loss)
                if left <= 0:
                    vars(method).pop("loss", None)
                return step

            vars(method)["loss"] = counted

        monkeypatch.setattr(Loop, "__init__", broken)

    return breaks


def late(loop: Loop) -> None:
    """The loss of the second epoch's second step."""
    cases.bad_loss(loop, (5,))


def test_stop_leaves_the_last_checkpoint_and_a_changed_setting_goes_on(
    tmp_path: Path, broken_at: Callable[..., None]
) -> None:
    out, config = tmp_path / "a", cases.config(checkpoint_every=1, watch_every=2)
    broken_at(late)
    with pytest.raises(NotFiniteError, match=r"^step 5: .*`fullrank resume .*a` goes on"):
        train(config, out, data=noise())
    kept = cases.kept_by(RunDir(out))
    assert kept["progress"]["step"] == 4
    assert first_not_finite(kept["method"]) == ""
    assert records(out)[-1]["action"] == "stop"
    assert first_not_finite(read_encoder(out)) == ""


def read_encoder(out: Path) -> dict[str, Tensor]:
    """The weights of a run's encoder."""
    from safetensors.torch import load_file

    return load_file(out / "encoder.safetensors")


def test_a_stopped_run_resumes_with_a_changed_setting(
    tmp_path: Path, broken_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "a"
    monkeypatch.setattr("fullrank.training.setup.open_run_data", lambda _: noise())
    broken_at(late)
    with pytest.raises(NotFiniteError):
        train(cases.config(watch_every=2), out, data=noise())
    settings = yaml.safe_load((out / "config.yaml").read_text())
    (out / "config.yaml").write_text(yaml.safe_dump({**settings, "on_nan": "skip"}))
    assert resume(out).reason == "finished"
    assert [r["action"] for r in records(out) if r["event"] == "not_finite"] == ["skip"]


def test_rollback_goes_on_from_the_last_checkpoint_at_a_tenth_of_the_rate(
    tmp_path: Path, broken_at: Callable[..., None]
) -> None:
    out = tmp_path / "a"
    broken_at(late, 2)  # the step and the run of its batch again
    config = cases.config(on_nan="rollback", checkpoint_every=1, watch_every=2, schedule="constant")
    assert train(config, out, data=noise()).reason == "finished"
    rows = records(out)
    at = next(i for i, row in enumerate(rows) if row["event"] == "rollback")
    assert (rows[at]["epoch"], rows[at]["step"], rows[at]["rate_factor"]) == (1, 4, 0.1)
    assert rows[at]["why"].startswith("step 5: the loss is nan")
    steps = [row for row in rows if row["event"] == "step"]
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert steps[4]["lr"] == pytest.approx(0.1 * steps[3]["lr"])
    kept = cases.kept_by(RunDir(out))
    assert (kept["progress"]["rollbacks"], kept["progress"]["rate_factor"]) == (1, 0.1)


def test_rollback_that_does_not_help_is_a_stop_after_a_few_times(
    tmp_path: Path, broken_at: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guarding, "MOST_ROLLBACKS", 2)
    broken_at(late)
    with pytest.raises(NotFiniteError, match=r"^step 5: "):
        train(cases.config(on_nan="rollback", watch_every=2), tmp_path / "a", data=noise())
    found = [r["rate_factor"] for r in records(tmp_path / "a") if r["event"] == "rollback"]
    assert found == pytest.approx([0.1, 0.01])


def test_weights_that_are_finite_but_absurd_are_named(tmp_path: Path) -> None:
    config = cases.config("swav", lr=1e7, lr_scaling="none", epochs=1, schedule="constant", optimizer="adam")
    train(config, tmp_path / "a", data=noise())
    (line,) = (w for r in records(tmp_path / "a") for w in r.get("warnings", []) if "weights reach" in w)
    assert "the learning rate is too high" in line


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_several_processes_agree_on_the_step_that_went_wrong(tmp_path: Path, policy: str) -> None:
    worker, out = Path(__file__).parent / "nan_worker.py", tmp_path / "a"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    env = os.environ | {"PYTHONPATH": f"{worker.parents[1]}:{os.environ.get('PYTHONPATH', '')}"}
    call = [*launcher, "--master-port", "29531", str(worker), policy, str(out)]
    done = subprocess.run(call, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 0, done.stderr
    said = [Path(f"{out}.{rank}.txt").read_text() for rank in (0, 1)]
    rows = [row for row in records(out) if row["event"] == "not_finite"]
    assert [row["action"] for row in rows] == ([policy] if policy == "stop" else [policy] * 2)
    assert all(f"image {cases.BAD_IMAGE}" in row["found"] for row in rows)
    assert said[0] == said[1]
    assert ("image 7" in said[0]) == (policy == "stop")
