"""The table of treatments: what applies to which method, that it can be, and in which order it is told."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from cures.fake import write_run
from fullrank.collapse.treatments import (
    PROOFS,
    TREATMENTS,
    Proof,
    Treatment,
    advice,
    advice_on,
    changed_settings,
    ranked,
)
from fullrank.methods import METHODS, build_method
from fullrank.report.run.page import write_page
from fullrank.report.run.reading import read_run
from fullrank.training.config import TrainConfig, make_train_config
from fullrank.training.contract import with_changes
from fullrank.training.recipes import load_recipe, recipe_names
from fullrank.training.treatments import advice_for, flat_settings, prescriptions, usual_settings

KINDS = ("complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment")
OURS = [name for name, method in METHODS.items() if method.__module__.startswith("fullrank.")]
NAMES = {f"{data}/{method}" for data in ("shapes", "digits") for method in METHODS}
STARTS = [
    name for name in recipe_names() if name in NAMES - {"shapes/gedi"}
]  # which has few codes on purpose
BROKEN: dict[str, dict[str, Any]] = {
    "simsiam": {"stop_gradient": False, "predictor": "none", "output_bn": False},
    "barlow_twins": {"lamb": 0.0},
    "vicreg": {"var_weight": 0.0, "cov_weight": 0.0},
    "lejepa": {"lamb": 0.0},
    "dino": {
        "centre_momentum": 1.0,
        "teacher_temperature": 1.0,
        "num_prototypes": 10,
        "freeze_last_layer": 0,
    },
    "swav": {"sk_epsilon": 10.0, "num_prototypes": 10, "sk_iters": 1, "freeze_prototypes_epochs": 0},
    "cplearn": {"num_codes": 10},
    "byol": {"tau_base": 0.0, "tau_final": 0.0},
}


def config_of(method: str, **settings: Any) -> TrainConfig:
    return make_train_config(
        method, METHODS[method].defaults(16), {"options": BROKEN.get(method, {})}, settings
    )


def applying(method: str) -> list[tuple[Treatment, dict[str, Any]]]:
    config = config_of(method, data="shapes", lr=20.0, weight_decay=0.5, precision="bf16")
    settings, usual = flat_settings(config), usual_settings(config)
    found = [(t, changed_settings(t, settings, usual)) for t in TREATMENTS.values()]
    return [(treatment, changes) for treatment, changes in found if changes]


@pytest.mark.parametrize("method", OURS)
def test_what_applies_to_a_method_is_a_configuration_that_can_be(method: str) -> None:
    config, found = config_of(method, data="shapes", lr=20.0, weight_decay=0.5), applying(method)
    for _, changes in found:
        before, after = flat_settings(config), flat_settings(with_changes(config, changes))
        assert {key: after[key] for key in changes} == changes
        assert all(before[key] == after[key] for key in before if key not in changes)
    assert found


@pytest.mark.parametrize("method", sorted(BROKEN))
def test_only_what_starts_anew_changes_the_shapes_of_networks(method: str) -> None:
    widths = {name: 8 for name in METHODS[method].Config.__dataclass_fields__ if name.endswith("_dim")}
    options = {**BROKEN[method], **widths}
    config = replace(config_of(method), options={**config_of(method).options, **options})

    def shapes(settings: TrainConfig) -> dict[str, Any]:
        built = build_method(method, nn.Sequential(nn.Flatten(), nn.Linear(12, 16)), 16, settings.options)
        return {name: tensor.shape for name, tensor in built.state_dict().items()}

    before = shapes(config)
    for treatment, changes in applying(method):
        own = {key: value for key, value in changes.items() if key.startswith("options.")}
        assert treatment.anew or shapes(with_changes(config, own)) == before


@pytest.mark.parametrize("method", sorted(BROKEN))
def test_a_setting_that_was_broken_is_mended_first(method: str) -> None:
    found = prescriptions(config_of(method, data="shapes"), KINDS, {})
    mended = {
        key.removeprefix("options.") for one in found if not one.treatment.general for key in one.changes
    }
    assert mended >= BROKEN[method].keys()
    generals = [one.treatment.general for one in found]
    assert generals == sorted(generals)


def test_a_setting_is_mended_to_what_was_tried_on_the_data() -> None:
    tried = load_recipe("shapes/barlow_twins").settings
    config = make_train_config("barlow_twins", tried, {"options": {"lamb": 0.0}})
    mended = {one.treatment.name: one.changes for one in prescriptions(config, KINDS, {})}
    assert mended["redundancy term"] == {"options.lamb": tried["options"]["lamb"]}


@pytest.mark.parametrize("recipe", STARTS)
def test_a_run_as_its_recipe_has_it_has_nothing_to_mend(recipe: str) -> None:
    settings = dict(load_recipe(recipe).settings)
    config = make_train_config(settings.pop("method"), settings)
    assert [one.treatment.name for one in prescriptions(config, KINDS, {}) if not one.treatment.general] == []


@pytest.mark.parametrize("method", OURS)
def test_a_run_as_its_method_has_it_has_nothing_to_mend(method: str) -> None:
    config = make_train_config(method, {"data": "shapes", "optimizer": "sgd", "views": "shapes"})
    assert [one.treatment.name for one in prescriptions(config, KINDS, {}) if not one.treatment.general] == []


def test_a_general_treatment_is_tried_for_its_kinds_alone() -> None:
    config = config_of("cplearn", data="shapes")
    names = {kind: {one.treatment.name for one in prescriptions(config, [kind], {})} for kind in KINDS}
    assert "more weight on the prior" in names["cluster"]
    assert "more weight on the prior" not in names["uniform-assignment"]


def test_every_treatment_says_mechanism_remedy_and_paper() -> None:
    for treatment in TREATMENTS.values():
        assert treatment.kinds and treatment.mechanism and treatment.try_first
        assert treatment.paper.count(".") == 1 and not treatment.mechanism.endswith(".")


@pytest.mark.parametrize("kind", [*KINDS, "not decidable"])
def test_every_kind_of_verdict_has_advice(kind: str) -> None:
    assert advice_on([kind])


def test_what_cured_more_cases_is_told_first() -> None:
    one, two = TREATMENTS["more codes"], TREATMENTS["stop-gradient"]
    known = {one.name: Proof(4, 4, 0.1), two.name: Proof(0, 4, 0.0)}
    assert ranked([two, one], known) == [one, two]


def test_what_was_never_tried_has_the_promise_of_its_class() -> None:
    mends, general = TREATMENTS["SIGReg"], TREATMENTS["a tenth of the rate"]
    known = {"stop-gradient": Proof(6, 6, 0.1), "clipped gradients": Proof(0, 6, 0.0)}
    assert ranked([general, mends], known) == [mends, general]


@pytest.mark.parametrize("proof", [Proof(0, 4, 0.0), Proof(1, 2, 0.1), None])
@pytest.mark.parametrize("little", [Proof(1, 1, 0.3), None])
def test_a_general_treatment_that_was_hardly_tried_comes_after_what_mends_a_setting(
    proof: Proof | None, little: Proof | None
) -> None:
    mends, tried, untried = (
        TREATMENTS[name] for name in ("usual rate", "a tenth of the rate", "a tenth of the weight decay")
    )
    found = {tried.name: Proof(5, 9, 0.1), mends.name: proof, untried.name: little}
    known = {name: each for name, each in found.items() if each}
    assert ranked([untried, tried, mends], known)[-1] == untried


def test_assignments_are_made_harder_and_prototypes_more_whichever_of_them_is_amiss() -> None:
    found = {
        name: next(
            one.changes
            for one in prescriptions(config_of("swav", data="shapes", options=options), ["dimensional"], {})
            if one.treatment.name == "many hard codes"
        )
        for name, options in {
            "soft": {"sk_epsilon": 10.0, "num_prototypes": 300},
            "few": {"num_prototypes": 10},
        }.items()
    }
    assert found["soft"] == {"options.sk_epsilon": 0.0125}
    assert found["few"] == {"options.sk_epsilon": 0.0125, "options.num_prototypes": 256}


@pytest.mark.parametrize(
    ("cured", "of", "proven"), [(2, 2, True), (2, 4, False), (1, 1, False), (3, 4, True)]
)
def test_proven_is_what_cured_several_cases_and_most(cured: int, of: int, proven: bool) -> None:
    assert Proof(cured, of, 0.1).proven is proven


def test_advice_is_marked_by_what_is_known_of_it() -> None:
    for treatment in TREATMENTS.values():
        proof = PROOFS.get(treatment.name)
        expected = "proven" if proof and proof.proven else "published"
        assert advice(treatment).standing == expected


def test_advice_for_settings_of_another_version_is_that_of_the_kind() -> None:
    assert advice_for({"method": "simsiam", "no_such_setting": 1}, ["complete"])
    assert advice_for({"method": "no-such-method"}, ["complete"])


def test_a_runs_page_advises_what_would_change_its_settings_and_says_what_is_known(tmp_path: Path) -> None:
    text = write_page(write_run(tmp_path / "run", ["complete"] * 4)).read_text()
    found = advice_for(read_run(tmp_path / "run").config, ["complete"])
    assert "stop-gradient" in {item.name for item in found}
    assert all(item.name in text and item.standing in text and item.paper in text for item in found)


def test_the_page_of_a_healthy_run_advises_nothing(tmp_path: Path) -> None:
    text = write_page(write_run(tmp_path / "run", ["healthy"] * 4)).read_text()
    assert "Try:" not in text
