"""Findings of the gallery of failures: who saw what, and when."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from fullrank.figures import Dots, Lines, Table
from fullrank.labs._common.findings import Chapter, Claim, Findings, holds, spread
from fullrank.labs._common.results import Curve, Result, Results
from fullrank.labs._common.selectors import along, knn, knn_end, rank_shares, untrained

HEALTHY = ("healthy", "not decidable")
MARGIN = 0.05  # of accuracy below its own best: more than k-NN wavers by on a thousand images


@dataclass(frozen=True)
class Exhibit:
    """One arm of the gallery.

    Attributes:
        recipe: on the generated shapes, that it starts from.
        change: what is broken, in words; empty for a run that is to be healthy.
        kinds: verdicts that would name the failure right; empty where it is no collapse.
        settings: what breaks it.
    """

    recipe: str
    change: str = ""
    kinds: Sequence[str] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


def first(flags: Mapping[int, bool]) -> int | None:
    """The first epoch with the flag.

    Example:
        >>> first({1: False, 2: True, 3: False, 4: True})
        2
    """
    return next((epoch for epoch in sorted(flags) if flags[epoch]), None)


def lasting(flags: Mapping[int, bool]) -> int | None:
    """The epoch from which on every one has the flag.

    Example:
        >>> lasting({1: False, 2: True, 3: False, 4: True}), lasting({1: True, 2: False})
        (4, None)
    """
    found = None
    for epoch in sorted(flags, reverse=True):
        if not flags[epoch]:
            break
        found = epoch
    return found


def said(result: Result) -> dict[int, bool]:
    """By epoch, whether the monitor's verdict was a collapse."""
    return {epoch: kind not in HEALTHY for epoch, kind in result.verdicts.items()}


def warned(result: Result) -> int | None:
    """The first epoch with an early warning."""
    return first({row.epoch: bool(row.warnings) for row in result.run.epochs})


def knn_fell(knn: Mapping[int, float]) -> int | None:
    """Epoch from which k-NN stays below untrained, or `MARGIN` below its earlier best.

    In hindsight: a fall that is made good does not count. Epoch 0 is the untrained network.

    Example:
        >>> knn_fell({0: 0.4, 1: 0.3, 2: 0.5, 3: 0.44, 4: 0.2}), knn_fell({0: 0.4, 1: 0.3, 2: 0.5})
        (3, None)
    """
    best = dict[int, float]()
    for epoch in sorted(knn):
        best[epoch] = max([knn[epoch], *best.values()])
    return lasting(
        {e: knn[e] < knn[0] or knn[e] < best[e] - MARGIN for e in knn if e > 0} if 0 in knn else {}
    )


def findings(results: Results, gallery: Mapping[str, Exhibit]) -> Findings:
    """Claims, the table of who saw what when, and a panel for each arm."""
    broken = [arm for arm in results.arms if gallery[arm].kinds]
    sound = [arm for arm in results.arms if not gallery[arm].change]
    claims = [_named(results, arm, gallery[arm]) for arm in broken]
    claims += [_spared(results, arm) for arm in sound]
    claims += _in_time(results, broken)
    lead = {arm: leads for arm in broken if (leads := results.values(arm, _lead))}
    table = Table(
        "Who saw what, and when",
        "Epochs; a list of seeds where they differ, – where it never came. First said: the first verdict of "
        "collapse. For good: none after it was healthy. k-NN fell: from then on below the untrained network, "
        f"or {100 * MARGIN:.0f} points below its best.",
        ("Run", "Broken", "Verdict at the end", "Warned", "First said", "For good", "k-NN", "k-NN fell"),
        [_row(results, arm, gallery[arm]) for arm in results.arms],
    )  # fmt: skip
    dots = Dots(
        "How much earlier the monitor was",
        "From the monitor's first verdict of collapse to the epoch where k-NN fell, where both came.",
        "epochs",
        lead,
        {"at once": 0.0},
    )
    chapters = [
        Chapter("The monitor against k-NN", [table, dots]),
        Chapter(
            "Every run",
            [_panel(results, arm, gallery[arm]) for arm in results.arms],
            "Mean over seeds, with their range. Upright lines: the median epochs at which the monitor first "
            "said so and k-NN fell.",
            layout="three",
        ),
    ]
    seen, notes = _seen(results, gallery, broken, sound), _notes(results, gallery, broken)
    return Findings(chapters, claims, seen, notes)


def _named(results: Results, arm: str, exhibit: Exhibit) -> Claim:
    """Claim on verdicts at either tap: the projector may be low-rank, codes uniform."""
    found = [bool(set(exhibit.kinds) & _kinds(result)) for result in results[arm]]
    seeds = [f"seed {r.seed}: {', '.join(sorted(_kinds(r))) or 'healthy'}" for r in results[arm]]
    return holds(f"{exhibit.change}: {' or '.join(exhibit.kinds)} collapse.", found, "; ".join(seeds))


def _kinds(result: Result) -> set[str]:
    verdicts = result.run.epochs[-1].verdicts
    kinds = {verdicts[tap]["kind"] for tap in ("projector", "codes") if tap in verdicts}
    return kinds - set(HEALTHY)


def _spared(results: Results, arm: str) -> Claim:
    accused = _listed([sum(said(result).values()) for result in results[arm]])
    evidence = f"at the end {results.kinds(arm)}; epochs with a verdict of collapse on the way: {accused}"
    healthy = [result.verdict == "healthy" for result in results[arm]]
    return holds(f"{arm} as it should be: not accused at the end.", healthy, evidence)


def _in_time(results: Results, broken: Sequence[str]) -> list[Claim]:
    fell = [result for arm in broken for result in results[arm] if knn_fell(result.knn) is not None]
    late = [result for result in fell if (lead := _lead(result)) is None or lead < 0]
    if not fell:
        return []
    seeds = sorted({result.seed for result in fell})
    return [
        holds(
            "Where k-NN falls, the monitor has said so no later.",
            [all(result.seed != seed for result in late) for seed in seeds],
            f"later or never in {len(late)} of {len(fell)} runs in which k-NN fell",
        )
    ]


def _lead(result: Result) -> float | None:
    spoke, fell = first(said(result)), knn_fell(result.knn)
    return None if spoke is None or fell is None else float(fell - spoke)


def _row(results: Results, arm: str, exhibit: Exhibit) -> list[Any]:
    def epochs(read: Callable[[Result], int | None]) -> str:
        return _listed([read(result) for result in results[arm]])

    return [
        arm,
        exhibit.change or "nothing",
        results.kinds(arm),
        epochs(warned),
        epochs(lambda result: first(said(result))),
        epochs(lambda result: lasting(said(result))),
        results.values(arm, knn_end),
        epochs(lambda result: knn_fell(result.knn)),
    ]


def _listed(values: Sequence[int | None]) -> str:
    """Values of the seeds, once where they agree.

    Example:
        >>> _listed([1, 1]), _listed([1, None])
        ('1', '1, –')
    """
    words = ["–" if value is None else str(value) for value in values]
    return words[0] if len(set(words)) == 1 else ", ".join(words)


def _panel(results: Results, arm: str, exhibit: Exhibit) -> Lines:
    shares: dict[str, Curve] = {
        "k-NN top-1": knn,
        "level": along("level"),
        "effective rank / d": rank_shares,
        "codes in use / K": _code_shares,
    }
    series = [curve for name, what in shares.items() if (curve := results.curve(arm, what, name)).x]
    marks, found = dict[str, float](), results[arm]
    moments = {"monitor": [first(said(r)) for r in found], "k-NN fell": [knn_fell(r.knn) for r in found]}
    for name, by_seed in moments.items():
        epochs = [epoch for epoch in by_seed if epoch is not None]
        if 2 * len(epochs) > len(found):
            marks[name] = float(median(epochs))
    references = {f"k-NN {name}": value for name, value in untrained(found).items()}
    note = f"{exhibit.change}." if exhibit.change else "As its recipe has it."
    return Lines(arm, note, "epoch", "share", series, references, marks, y_range=(0.0, 1.1))


def _code_shares(result: Result) -> dict[int, float | None]:
    rows = [(row.epoch, row.usage) for row in result.run.epochs if row.usage]
    return {epoch: usage["perplexity"] / usage["codes"] for epoch, usage in rows}


def _seen(
    results: Results, gallery: Mapping[str, Exhibit], broken: Sequence[str], sound: Sequence[str]
) -> str:
    runs = [result for arm in broken for result in results[arm]]
    right = sum(bool(set(gallery[r.arm].kinds) & _kinds(r)) for r in runs)
    fell = [r for r in runs if knn_fell(r.knn) is not None]
    leads = [_lead(r) for r in fell]
    earlier, at_once = sum(1 for x in leads if x and x > 0), leads.count(0.0)
    silent = [r for r in runs if knn_fell(r.knn) is None and _kinds(r)]
    arms = list(dict.fromkeys(r.arm for r in silent))
    text = (
        f"Of {len(runs)} broken runs the monitor named {right} as expected at the end. k-NN fell in "
        f"{len(fell)} of them: the monitor had said collapse epochs earlier in {earlier}, at the same epoch "
        f"in {at_once}, later or never in {len(fell) - earlier - at_once}."
    )
    if 2 * at_once > len(fell):
        text += " Most collapse within the first epoch, which is too coarse to tell who is first."
    if silent:
        noun, them = ("run", "it") if len(silent) == 1 else ("runs", "them")
        text += f" In {len(silent)} collapsed {noun} k-NN never fell and would have passed {them}: "
        text += f"{', '.join(arms)}."
    well = sum(r.verdict == "healthy" for arm in sound for r in results[arm])
    text += f" {well} of {sum(len(results[arm]) for arm in sound)} sound runs were judged healthy at the end."
    return text


def _notes(results: Results, gallery: Mapping[str, Exhibit], broken: Sequence[str]) -> list[str]:
    notes = []
    for arm in broken:
        if not any(set(gallery[arm].kinds) & _kinds(result) for result in results[arm]):
            end = spread(results.values(arm, knn_end))
            notes.append(f"Not induced: “{arm}” ended {results.kinds(arm)}, k-NN {end}.")
    for arm in results.arms:
        exhibit = gallery[arm]
        if exhibit.change and not exhibit.kinds:
            fell = _listed([knn_fell(result.knn) for result in results[arm]])
            notes.append(
                f"“{arm}” is no collapse but a loss of information: the monitor, which sees no labels, says "
                f"{results.kinds(arm)}; k-NN fell at epoch {fell}."
            )
    notes.append(
        "Not in the gallery: an encoder too small for its data, which takes more images than these (see the "
        "lab capacity). A collapse within clusters is not reached on purpose by any knob here."
    )
    return notes
