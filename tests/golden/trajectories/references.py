"""Methods of the references and ours: whose class, with which options."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from fullrank.methods import METHODS
from golden.case import Case
from golden.settings import Refused, Settings
from golden.trajectories.architectures import derived_options

OPTIONS: dict[str, tuple[str, ...]] = {  # the references' names of options, and ours; others have one name
    "dim": ("proj_output_dim",), "mlp_dim": ("proj_hidden_dim", "pred_hidden_dim"),
    "pred_dim": ("pred_hidden_dim",), "T": ("temperature",), "scale_loss": ("scale",),
    "sim_loss_weight": ("sim_weight",), "var_loss_weight": ("var_weight",),
    "cov_loss_weight": ("cov_weight",),
    "dp_alpha": ("alpha",), "dp_normalize": ("normalise",), "dp_tau": ("correlation_momentum",),
    "eps_iso": ("eps",), "center_momentum": ("centre_momentum",),
}  # fmt: skip
RECORDS_ONLY = {"log_eigvals"}  # what a reference logs; no step depends on it


@dataclass(frozen=True)
class Reference:
    """How a reference's class is one of our methods.

    Attributes:
        method: ours, by the reference's options.
        fixed: options of ours that the class stands for.
        renamed: names of options that differ from those of `OPTIONS`.
        tap: the output that `out.first_z1` holds.
    """

    method: Callable[[Settings], str]
    fixed: dict[str, Any] = field(default_factory=dict)
    renamed: dict[str, tuple[str, ...]] = field(default_factory=dict)
    tap: str = "projector"


def closed_form(given: Settings) -> str:
    """One class of implicit-var-reg's is three methods."""
    if given["iso"]:
        return "isoloss"
    copied = given["dp_alpha"] == 1.0 and given.get("dp_normalize", True)
    return "directcopy" if copied else "directpred"  # which clips what is not normalised, as the reference


BEFORE = {"target_update": "before-target"}
CODES: dict[str, tuple[str, ...]] = {"proj_hidden_dim": ("embedding_dim",), "proj_output_dim": ("num_codes",)}
REFERENCES = {
    "directpred": Reference(closed_form),
    "byolresnet": Reference(lambda given: "byol", BEFORE),
    "mocoresnet": Reference(lambda given: "mocov3", BEFORE),
    "mocovit": Reference(lambda given: "mocov3", BEFORE),
    "cplearn": Reference(lambda given: "cplearn", renamed=CODES),
    "dino": Reference(lambda given: "dino", tap="codes"),
}


def reference_of(case: Case) -> tuple[str, Reference]:
    """Our method's name and how it is the reference's, from what the recording says ran.

    `settings.method` says it, or else the class in `function`: "SimSiam (whole training loop)", or the last
    of "train; ...; SimSiam".
    """
    said = case.settings.get("method") or case.about["function"].split(";")[-1].split("(")[0]
    plain = re.sub(r"[^a-z0-9]", "", str(said).lower())
    ours = {name.replace("_", ""): name for name in METHODS}
    if plain not in REFERENCES and plain not in ours:
        raise Refused(f"function: no method of ours is {str(said).strip()!r}")
    reference = REFERENCES.get(plain) or Reference(lambda given: ours[plain])
    return reference.method(case.settings["method_kwargs"]), reference


def method_options(case: Case) -> dict[str, Any]:
    """Options of ours; those that ours lacks keep the reference's name, so that ours refuses them by it."""
    name, reference = reference_of(case)
    given, names = case.settings["method_kwargs"], OPTIONS | reference.renamed
    fields = {field.name for field in dataclasses.fields(METHODS[name].Config)}
    options = derived_options(case.settings["architecture"], fields) | reference.fixed
    for key in given:
        value = given[key]
        if key in RECORDS_ONLY or (key == "iso" and name in ("directpred", "directcopy", "isoloss")):
            continue
        if key == "use_l2" and "distance" in fields:
            options["distance"] = "euclidean" if value else "cosine"
        elif key == "dp_alpha" and name == "directcopy":
            continue  # which it is
        elif key == "eps_iso" and given.get("dp_normalize") is False:
            options["eps"] = 0.0  # the reference ignores it there, and ours takes no other
        elif key == "clip_grad" and name == "dino":
            continue  # of training's options here, not of the method's
        else:
            options |= dict.fromkeys(names.get(key, (key,)), value)
    return options | averaging(case, fields)


def averaging(case: Case, fields: set[str]) -> dict[str, Any]:
    """Options of the momentum target; missing or superfluous ones are refused."""
    ema = case.settings.get("ema")
    if (ema is not None) != ("tau_base" in fields):
        raise Refused(
            f"settings.ema is {ema and ema.plain()}; ours has {'a' if ema is None else 'no'} target"
        )
    return {} if ema is None else {"tau_base": ema["base"], "tau_final": ema["final"]}
