"""The golden runner takes any directory of the format, and refuses by name what it cannot compare."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from golden.case import HERE, Case, golden_files
from golden.harness import compare, failure, file_comparers
from golden.trajectories.references import reference_of
from golden.written import RECIPES, write

file_comparers()  # which also files the recipes
NAMES = sorted(RECIPES)
TRAJECTORY = "13_trajectory__never_heard_of"
Change = Callable[[dict[str, Any], dict[str, Any]], None]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second set: other sizes, seeds, names and settings than the references'."""
    directory = tmp_path_factory.mktemp("golden")
    for name in NAMES:
        write(name, directory)
    return directory


def changed(directory: Path, name: str, out: Path, change: Change) -> Path:
    """A copy of one recording whose arrays and description went through `change`."""
    with np.load(directory / f"{name}.npz") as stored:
        arrays = dict(stored)
    about = json.loads((directory / f"{name}.json").read_text())
    change(arrays, about)
    np.savez(out / f"{name}.npz", **arrays)
    (out / f"{name}.json").write_text(json.dumps(about))
    return out / f"{name}.npz"


def set_at(place: str, value: Any) -> Change:
    """Set an entry of the settings, at a path like schedule.interval or groups.0.at_start.eps."""

    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        *path, last = place.split(".")
        at = about["settings"]
        for key in path:
            at = at[int(key) if isinstance(at, list) else key]
        at[last] = value

    return change


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["double", "single"])
@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_recording_in_other_sizes_is_compared(
    directory: Path, name: str, dtype: torch.dtype
) -> None:
    case = compare(directory / f"{name}.npz", dtype)
    assert not case.failures, failure(case)
    assert case.compared
    assert not any(reason.startswith(("nothing of ours", "input that")) for reason in case.left.values()), (
        case.left
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_value_fails_its_array(directory: Path, tmp_path: Path, name: str) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        rule = about["tolerance"]["default"]
        for key, value in arrays.items():
            if key.startswith(("out.", "grad.", "alt.")):
                beyond = (
                    2 * (rule["rtol"] * np.abs(value).max() + rule["atol"]) if value.dtype.kind == "f" else 1
                )
                arrays[key] = np.asarray(value + np.asarray(beyond).astype(value.dtype))

    untouched = compare(directory / f"{name}.npz")
    case = compare(changed(directory, name, tmp_path, change))
    for array in {array for array, *_ in untouched.compared}:
        assert any(line.startswith(f"{array}: deviation") for line in case.failures), array


@pytest.mark.parametrize("name", NAMES)
def test_a_setting_that_nothing_takes_is_refused_by_name(directory: Path, tmp_path: Path, name: str) -> None:
    case = compare(changed(directory, name, tmp_path, set_at("surprise", 3)))
    assert "settings.surprise" in failure(case)


@pytest.mark.parametrize(
    "place",
    [
        "method_kwargs.surprise", "optimizer.surprise", "optimizer.configured.kwargs.surprise",
        "schedule.surprise", "ema.surprise", "architecture.backbone.0.surprise",
        "architecture.projector.1.surprise", "groups.0.at_start.surprise", "columns.surprise",
    ],
)  # fmt: skip
def test_a_surprise_at_any_depth_of_a_trajectory_is_refused_by_name(
    directory: Path, tmp_path: Path, place: str
) -> None:
    case = compare(changed(directory, TRAJECTORY, tmp_path, set_at(place, 3)))
    assert "surprise" in failure(case)


@pytest.mark.parametrize(
    ("place", "value", "says"),
    [
        ("optimizer.configured.kwargs.momentum", 0.5, "momentum"),
        ("groups.0.at_start.eps", 1e-3, "eps"),
        ("groups.1.at_start.nesterov", True, "nesterov"),
        ("groups.1.at_start.weight_decay", 0.5, "weight_decay"),
        ("schedule.interval", "epoch", "--warmup-epochs 3"),
        ("schedule.interval", "fortnight", "settings.schedule"),
        ("schedule.name", "staircase", "staircase"),
        ("schedule.total_steps", 7, "total_steps"),
        ("schedule.warmup_steps", 2, "out.lr"),
        ("schedule.min_lr", 0.01, "out.lr"),
        ("ema", None, "settings.ema"),
        ("ema.final", 1.0, "out.tau"),
        ("architecture.projector.1.eps", 0.1, "projector[1].eps"),
        ("architecture.projector.2.type", "GELU", "projector[2].type"),
        ("architecture.backbone.1.eps", 0.5, "out.loss"),
        ("architecture.backbone.3.kernel", 3, "out.loss"),
        ("architecture.backbone.2.type", "Relu", "no layer of torch"),
        ("n", 11, "settings.n"),
        ("method", "nothing of the kind", "no method of ours"),
    ],
)
def test_settings_of_a_trajectory_decide_what_runs(
    directory: Path, tmp_path: Path, place: str, value: Any, says: str
) -> None:
    case = compare(changed(directory, TRAJECTORY, tmp_path, set_at(place, value)))
    assert says in "; ".join(case.failures)


@pytest.mark.parametrize(
    ("name", "place", "value"),
    [
        ("02_directpred__odd", "tau", 0.5),
        ("06c_swav__odd", "epsilon", 0.5),
        ("06d_dino__odd", "student_temp", 0.2),
        ("06f_wmse__odd", "whitening_eps", 0.1),
        ("07a_spectrum_metrics__odd", "samples_per_class", 2),
        ("08_lars__odd", "configs.solo_mine.nesterov", False),
        ("10_data_order__odd", "configs.a.seed", 3),
        ("10_data_order__odd", "configs.b.n_rounds", 3),
        ("10_data_order__odd", "configs.b.repeat_batch", 2),
        ("11a_toy_step__odd", "weight_decay", 0.0),
        ("12_schedules__odd", "warmup_cosine.w", [0.7, 2, 11, 0.1, 0.02]),
        ("13_trajectory__plain_script", "optimizer.configured.fix_pred_lr", False),
        ("13_trajectory__whitened", "method_kwargs.whitening_eps", 0.2),
        ("13_trajectory__whitened", "groups.0.at_start.betas", [0.9, 0.95]),
        ("13_trajectory__mixture_of_codes", "method_kwargs.clip_grad", 0.3),
        ("13_trajectory__mixture_of_codes", "schedule.milestones", [2]),
        ("13_trajectory__power_of_three_quarters", "method_kwargs.use_l2", False),
        ("13_trajectory__power_of_three_quarters", "method_kwargs.iso", True),
        ("13_trajectory__filtered", "method_kwargs.sigma", 0.5),
    ],
)
def test_a_setting_that_is_changed_changes_the_outcome(
    directory: Path, tmp_path: Path, name: str, place: str, value: Any
) -> None:
    assert compare(changed(directory, name, tmp_path, set_at(place, value))).failures


def test_alpha_of_one_that_is_not_normalised_clips_as_the_reference(directory: Path) -> None:
    case = Case.load(directory / "13_trajectory__power_of_three_quarters.npz")
    given = case.about["settings"]["method_kwargs"]
    given |= {"dp_alpha": 1.0, "dp_normalize": False}
    assert reference_of(case)[0] == "directpred"
    given |= {"dp_normalize": True}
    assert reference_of(case)[0] == "directcopy"


def test_nan_of_ours_fails_where_the_reference_is_finite(directory: Path, tmp_path: Path) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        arrays["in.p1"][0, 0] = np.nan

    case = compare(changed(directory, "01_simsiam_byol__odd", tmp_path, change))
    assert "out.simsiam_symmetric: 1 of ours are not finite" in failure(case)


def test_nan_of_the_reference_allows_anything_there_and_nothing_elsewhere(
    directory: Path, tmp_path: Path
) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        arrays["out.cos"] = np.array(np.nan)
        arrays["grad.cos/z"][0, 0] = np.nan
        arrays["grad.l2/z"][0, 0] = np.nan
        arrays["grad.l2/z"][1, 1] += 1

    case = compare(changed(directory, "03_isoloss__odd", tmp_path, change))
    assert case.left["out.cos"] == "not finite in the reference"
    assert [line.split(":")[0] for line in case.failures] == ["grad.l2/z"]


def test_a_shape_that_differs_fails_with_both_shapes(directory: Path, tmp_path: Path) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        arrays["out.first_z1"] = arrays["out.first_z1"][:3]

    case = compare(changed(directory, TRAJECTORY, tmp_path, change))
    assert "out.first_z1: ours has shape (10, 4), the recording (3, 4)" in failure(case)


def test_an_array_without_tolerance_may_have_any_shape_and_is_listed(directory: Path, tmp_path: Path) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        arrays["out.first_z1"] = arrays["out.first_z1"][:3]
        about["tolerance"]["per_array"] = {"out.first_z1": None}

    case = compare(changed(directory, TRAJECTORY, tmp_path, change))
    assert not case.failures
    assert case.left["out.first_z1"] == "recorded for information"


def test_an_array_that_nothing_answers_to_is_listed(directory: Path, tmp_path: Path) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        arrays["alt.surprise"], arrays["in.surprise"] = np.zeros(2), np.zeros(2)

    case = compare(changed(directory, "06b_vicreg__odd", tmp_path, change))
    assert not case.failures
    assert case.left == {
        "alt.surprise": "nothing of ours answers to it",
        "in.surprise": "input that nothing took",
    }


def test_scores_stand_in_for_features_that_are_not_recorded(directory: Path, tmp_path: Path) -> None:
    """Of CPLearn: the loss and its gradients with respect to the scores need no more."""
    with np.load(directory / "05_cplearn__odd.npz") as stored:
        scores = stored["out.scores1"]

    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        for name in list(arrays):
            if name != "in.W" and name != "out.temperature":
                del arrays[name]
        arrays |= {
            "out.scores1": scores,
            "out.scores2": scores[:, ::-1].copy(),
            "out.beta0.3/loss": np.array(0.0),
        }
        del about["settings"]["features"]

    case = compare(changed(directory, "05_cplearn__odd", tmp_path, change))
    assert [name for name, *_ in case.compared] == ["out.temperature", "out.temperature", "out.beta0.3/loss"]


def test_an_unknown_lars_is_refused_by_its_name(directory: Path, tmp_path: Path) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        arrays["out.solo_turbo/kernel"] = arrays["out.solo_mine/kernel"]

    assert "solo_turbo" in failure(compare(changed(directory, "08_lars__odd", tmp_path, change)))


def test_an_unknown_item_fails_by_its_name(directory: Path, tmp_path: Path) -> None:
    path = changed(directory, "03_isoloss__odd", tmp_path, lambda arrays, about: about.update(item="99_new"))
    assert "99_new" in failure(compare(path))


@pytest.mark.parametrize(("recorded", "bad"), [(1e-3, False), (1e-4, True)])
def test_in_single_precision_a_recorded_deviation_is_allowed(
    directory: Path, tmp_path: Path, recorded: float, bad: bool
) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        arrays["out.cos"] = arrays["out.cos"] * 1.01
        about["single_precision_deviation"] = {"cos": recorded}

    case = compare(changed(directory, "03_isoloss__odd", tmp_path, change), torch.float32)
    assert bool(case.failures) is bad


def test_in_single_precision_without_a_deviation_the_spread_under_last_bits_is_allowed(
    tmp_path: Path,
) -> None:
    # rounding to single precision decides what is left of the difference of two large rows
    draw = np.random.default_rng(0)
    z = 1e6 * draw.standard_normal((6, 3))
    p = z + 0.01 * draw.standard_normal((6, 3))
    about = {"item": "01_simsiam_byol", "case": "near", "tolerance": {"default": {"rtol": 1e-6, "atol": 0}}}
    distance = np.square(p - z).sum(axis=1).mean()
    arrays: dict[str, Any] = {"in.p1": p, "in.p2": p, "in.z2": z, "out.byol_l2_one_way": distance}
    np.savez(tmp_path / "near.npz", **arrays)
    (tmp_path / "near.json").write_text(json.dumps(about))
    assert not compare(tmp_path / "near.npz").failures
    single = compare(tmp_path / "near.npz", torch.float32)
    assert single.left["out.byol_l2_one_way"] == "decided by rounding in single precision"


def test_a_directory_without_recordings_is_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no recordings"):
        list(golden_files(tmp_path))


def test_a_recording_without_its_description_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "lonely.npz", x=np.zeros(1))
    with pytest.raises(FileNotFoundError, match=r"lonely\.json"):
        list(golden_files(tmp_path))


@pytest.mark.slow
def test_the_command_line_takes_a_directory_and_lists_what_was_not_compared(
    directory: Path, tmp_path: Path
) -> None:
    def change(arrays: dict[str, Any], about: dict[str, Any]) -> None:
        arrays["alt.surprise"] = np.zeros(2)

    changed(directory, "06b_vicreg__odd", tmp_path, change)
    changed(directory, "03_isoloss__odd", tmp_path, set_at("surprise", 3))
    command = [sys.executable, "-m", "pytest", str(HERE / "test_golden.py"), "-q", f"--golden={tmp_path}"]
    done = subprocess.run(command, cwd=HERE.parents[1], capture_output=True, text=True, check=False)
    assert "06b_vicreg odd (float64), nothing of ours answers to it: alt.surprise" in done.stdout
    assert "settings.surprise = 3: nothing of ours takes it" in done.stdout
    assert "2 failed, 2 passed" in done.stdout
