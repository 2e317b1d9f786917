"""The gallery of failures: who saw what and when is read off right, and every exhibit is what it says."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fullrank.labs._common.results import Result, Results
from fullrank.labs.failures.analysis import findings, first, knn_fell, lasting, said
from fullrank.labs.failures.lab import GALLERY, Failures
from fullrank.report.run.reading import Run
from fullrank.training.records import EpochRecord


def run_of(arm: str, kinds: Sequence[str], knn: Sequence[float], seed: int = 0) -> Result:
    """A result whose run had these verdicts from epoch 1 on and this k-NN from epoch 0 on."""
    rows = [
        EpochRecord(
            epoch=epoch,
            step=epoch,
            verdict={"kind": kind},
            verdicts={"projector": {"kind": kind}},
            knn={"top1": accuracy},
        )
        for epoch, (kind, accuracy) in enumerate(zip(["not decidable", *kinds], knn, strict=True))
    ]
    result = Result("", arm, seed, Path("nowhere"))
    result.__dict__["run"] = Run(Path("nowhere"), epochs=rows)
    return result


def test_k_nn_fell_where_it_stays_below_the_untrained_network_or_its_best() -> None:
    assert knn_fell({0: 0.5, 1: 0.4, 2: 0.6, 3: 0.7}) is None  # it recovered
    assert knn_fell({0: 0.5, 1: 0.4, 2: 0.3}) == 1  # below the untrained network
    assert knn_fell({0: 0.5, 1: 0.8, 2: 0.74, 3: 0.70}) == 2  # above it, but below its best
    assert knn_fell({0: 0.5, 1: 0.8, 2: 0.76, 3: 0.78}) is None  # within the margin
    assert knn_fell({}) is None


def test_a_monitors_word_counts_from_its_first_verdict_and_for_good_from_the_last_change() -> None:
    result = run_of("a", ["dimensional", "healthy", "complete", "complete"], [0.5] * 5)
    assert (first(said(result)), lasting(said(result))) == (1, 3)


def test_how_much_earlier_the_monitor_was_is_counted_in_epochs() -> None:
    runs = [run_of("nothing holds it", ["complete"] * 4, [0.5, 0.6, 0.6, 0.4, 0.3], seed) for seed in (0, 1)]
    found = findings(Results(runs), GALLERY)
    assert found.figures()["How much earlier the monitor was"].values == {"nothing holds it": [2.0, 2.0]}  # type: ignore[union-attr]
    verdicts = {claim.text: claim.verdict for claim in found.claims}
    assert verdicts["SimSiam without stop-gradient and output BN: complete collapse."] == "confirmed"
    assert verdicts["Where k-NN falls, the monitor has said so no later."] == "confirmed"


def test_a_late_monitor_and_a_falsely_accused_run_are_reported() -> None:
    late = [run_of("no centring", ["healthy", "healthy", "cluster"], [0.5, 0.4, 0.3, 0.2], s) for s in (0, 1)]
    accused = [
        run_of("SimSiam", ["healthy", "healthy", "dimensional"], [0.5, 0.6, 0.7, 0.7], s) for s in (0, 1)
    ]
    verdicts = {c.text: c.verdict for c in findings(Results([*late, *accused]), GALLERY).claims}
    assert verdicts["Where k-NN falls, the monitor has said so no later."] == "not confirmed"
    assert verdicts["SimSiam as it should be: not accused at the end."] == "not confirmed"


def test_a_collapse_that_k_nn_never_saw_and_one_that_was_not_induced_are_reported() -> None:
    silent = run_of("no predictor", ["dimensional"] * 2, [0.5, 0.6, 0.7])
    whole = run_of("ten codes", ["healthy"] * 2, [0.5, 0.6, 0.7])
    found = findings(Results([silent, whole]), GALLERY)
    assert "k-NN never fell and would have passed it: no predictor" in found.seen
    assert any("Not induced: “ten codes” ended healthy" in note for note in found.notes)


def test_every_exhibit_changes_its_recipe_and_only_in_what_breaks_it() -> None:
    jobs = {job.arm: job.config().as_dict() for job in Failures().jobs(Failures.presets["laptop"], "", 0)}
    sound = {GALLERY[arm].recipe: arm for arm in GALLERY if not GALLERY[arm].change}
    for arm, exhibit in GALLERY.items():
        if exhibit.change:
            own, base = jobs[arm], jobs[sound[exhibit.recipe]]
            changed = {key for key in own if key != "options" and own[key] != base[key]}
            options = {key for key in own["options"] if own["options"][key] != base["options"][key]}
            named = set(exhibit.settings) - {"options"}
            assert changed == named and options == set(exhibit.settings.get("options", {}))
