"""Treatments of collapse: the mechanism that each answers, and what it changes.

The table `treatments.yaml` is the one place where they are declared; `proofs.json` says how each did in the
failures of `benchmarks/cures`, from which their order follows.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import yaml

from fullrank.collapse.verdict import Kind

Standing = Literal["proven", "published", "untested"]
FEWEST = 2  # cases that a treatment must have cured, and most of those it was tried on, to count as proven
PRIOR = 1.0  # cases that the rate of its class weighs as much as
HERE = Path(__file__).parent


@dataclass(frozen=True)
class Treatment:
    """A change of settings, and the mechanism behind it.

    Attributes:
        name: in a few words.
        kinds: of verdicts that it answers.
        mechanism: what happens without it.
        paper: where it is shown, as an arXiv number; empty: nowhere.
        try_first: what to change, in words.
        changes: settings to values, factors (`x0.1`), bounds (`at least 3`) or `default`; empty where no
            setting does it.
        where: settings that must read so.
        needs: settings that must be there.
        lacks: settings that must not.
        general: it may help whatever the settings are; else one of them is the likely cause.
        anew: parts of the network have other shapes, and start untrained.
    """

    name: str
    kinds: Sequence[Kind]
    mechanism: str
    paper: str
    try_first: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    where: Mapping[str, Any] = field(default_factory=dict)
    needs: Sequence[str] = ()
    lacks: Sequence[str] = ()
    general: bool = False
    anew: bool = False


class Proof(NamedTuple):
    """How a treatment did in failures that were made on purpose.

    Attributes:
        cured: cases (a failure on a data set) that it cured: healthy, and k-NN above the untreated arm, in
            every seed.
        of: cases that it was tried on.
        gain: mean gain in k-NN accuracy over the untreated arm, over all of these.
        kinds: kinds of verdict among the cured.
    """

    cured: int
    of: int
    gain: float
    kinds: tuple[str, ...] = ()

    @property
    def proven(self) -> bool:
        """Whether it cured several cases, and most that it was tried on."""
        return self.cured >= FEWEST and 2 * self.cured > self.of

    def __str__(self) -> str:
        return f"cured {self.cured} of {self.of} cases, {100 * self.gain:+.0f} points of k-NN on average"


class Advice(NamedTuple):
    """A treatment as pages and JSON tell it.

    Attributes:
        name: of the treatment.
        mechanism: what happens without it.
        paper: where it is shown, as an arXiv number.
        try_first: what to change.
        standing: `proven` here, `published` with the paper, or `untested`.
        proof: the figures behind `proven`, in words; empty where it is not.
    """

    name: str
    mechanism: str
    paper: str
    try_first: str
    standing: Standing
    proof: str = ""


def read_treatments(file: Path = HERE / "treatments.yaml") -> dict[str, Treatment]:
    """The table, by name."""
    rows = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {row["name"]: Treatment(**row) for row in rows}


def read_proofs(file: Path = HERE / "proofs.json") -> dict[str, Proof]:
    """How each treatment did, by name."""
    found = json.loads(file.read_text(encoding="utf-8"))
    return {name: Proof(**values | {"kinds": tuple(values["kinds"])}) for name, values in found.items()}


TREATMENTS = read_treatments()
"""Name to treatment, in the order of the table."""
PROOFS = read_proofs()
"""Name of a treatment to how it did."""


def changed_settings(
    treatment: Treatment, settings: Mapping[str, Any], defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """New values of the settings that a treatment changes; empty where it is idle.

    Args:
        treatment: of the table.
        settings: of the run, a method's own as `options.NAME`.
        defaults: what is usual with the method, likewise.

    Example:
        >>> settings, usual = {"lr": 4.0, "options.stop_gradient": True}, {"lr": 0.5}
        >>> changed_settings(TREATMENTS["usual rate"], settings, usual)
        {'lr': 0.5}
        >>> changed_settings(TREATMENTS["stop-gradient"], settings, usual)
        {}
    """
    apart = all(name in settings for name in treatment.needs) and not settings.keys() & set(treatment.lacks)
    if not apart or any(settings.get(name) != value for name, value in treatment.where.items()):
        return {}
    values = {
        name: _changed(change, settings[name], defaults.get(name))
        for name, change in treatment.changes.items()
        if name in settings
    }
    return {name: value for name, value in values.items() if value is not None and value != settings[name]}


def _changed(change: Any, before: Any, default: Any) -> Any:
    """The new value of a setting; None where it stays."""
    if not isinstance(change, str):
        return change
    if change == "default":
        return default
    if found := re.fullmatch(r"x(\d+(?:\.\d+)?)", change):
        value = float(f"{before * float(found[1]):.4g}") if _is_number(before) else None
        return max(1, round(value)) if value is not None and isinstance(before, int) else value
    if found := re.fullmatch(r"at (least|most) (\S+)", change):
        bound = default if found[2] == "default" else yaml.safe_load(found[2])
        if not (_is_number(before) and _is_number(bound)):
            return None
        beyond = before < bound if found[1] == "least" else before > bound
        return bound if beyond and not math.isclose(before, bound) else None
    return change


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def ranked(treatments: Iterable[Treatment], proofs: Mapping[str, Proof] = PROOFS) -> list[Treatment]:
    """Treatments, the most promising first: by the share of cases that they cured.

    One that was tried on few is drawn to the share of its class: those that mend a setting, or general ones.
    A general one that was tried on fewer than two cases comes after all others: a setting that departs from
    the usual is the likelier cause. Where that decides nothing the order of the table stands.

    Example:
        >>> one, two = TREATMENTS["stop-gradient"], TREATMENTS["a tenth of the rate"]
        >>> known = {one.name: Proof(3, 3, 0.2), two.name: Proof(0, 4, 0.0)}
        >>> [found.name for found in ranked([two, one], known)]
        ['stop-gradient', 'a tenth of the rate']
    """
    classes: dict[bool, list[Proof]] = {True: [], False: []}
    for name, proof in proofs.items():
        if name in TREATMENTS:
            classes[TREATMENTS[name].general].append(proof)
    rates = {
        general: (sum(p.cured for p in found) + 1) / (sum(p.of for p in found) + 2)
        for general, found in classes.items()
    }

    def rate(treatment: Treatment) -> float:
        proof = proofs.get(treatment.name, Proof(0, 0, 0.0))
        return (proof.cured + PRIOR * rates[treatment.general]) / (proof.of + PRIOR)

    def key(treatment: Treatment) -> tuple[bool, float, bool, int]:
        name, general = treatment.name, treatment.general
        little_tried = name not in proofs or proofs[name].of < FEWEST
        return general and little_tried, -rate(treatment), general, places.get(name, len(places))

    places = {name: place for place, name in enumerate(TREATMENTS)}
    return sorted(treatments, key=key)


def advice(treatment: Treatment) -> Advice:
    """A treatment as it is told, with what is known of it."""
    proof = PROOFS.get(treatment.name)
    proven = proof is not None and proof.proven
    standing: Standing = "proven" if proven else "published" if treatment.paper else "untested"
    return Advice(
        treatment.name,
        treatment.mechanism,
        treatment.paper,
        treatment.try_first,
        standing,
        str(proof) if proven else "",
    )


def advice_on(kinds: Iterable[str], most: int = 5) -> tuple[Advice, ...]:
    """What to try for kinds of verdict where no settings are known.

    First what is proven for such a kind, then what is the first answer to one, then other answers; last what
    no setting changes.

    Example:
        >>> [found.name for found in advice_on(["not decidable"])]
        ['more rows']
    """
    wanted = set(kinds)

    def place(treatment: Treatment) -> tuple[bool, bool]:
        proof = PROOFS.get(treatment.name)
        proven = proof is not None and proof.proven and bool(wanted & set(proof.kinds))
        return (not proven, treatment.kinds[0] not in wanted)

    answering = ranked(t for t in TREATMENTS.values() if wanted & set(t.kinds))
    changing = sorted((t for t in answering if t.changes), key=place)
    return tuple(advice(t) for t in [*changing[:most], *(t for t in answering if not t.changes)])
