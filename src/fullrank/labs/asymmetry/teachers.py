"""The tutorial's regimes: which teachers keep a student from collapse."""

from __future__ import annotations

import numpy as np

from fullrank.figures import Image, Lines, Series
from fullrank.labs._common.findings import Chapter, Claim, above, holds, spread
from fullrank.labs._common.results import Read, Result, Results
from fullrank.labs._common.selectors import by_index, knn_end, knn_lines, last, level_lines, loss, loss_end

COMPLETE, LITTLE_ENTROPY = 0.1, 0.05  # level and marginal entropy below which the lab calls it complete


def claims(results: Results) -> list[Claim]:
    """Claims on regimes A, B and C (the first three arms), and that additions hold."""
    a, b, c = results.arms[:3]
    levels = results.values(a, _read("student", "logits", "level"))
    entropies = results.values(a, _read("student", "use", "marginal"))
    losses, plateau = (results.values(arm, loss_end) for arm in (a, b))
    ranks, half = results.values(a, _token_rank), [0.5 * rank for rank in results.values(b, _token_rank)]
    blind = (
        "The spectrum that the tutorial draws (tokens, centred) does not tell A from B: A keeps at least "
        "half of B's rank."
    )
    found = [
        holds(
            "A, both trained: they agree on one answer (level below 0.1, or entropy of the mean answer below "
            "0.05).",
            [x < COMPLETE or h < LITTLE_ENTROPY for x, h in zip(levels, entropies, strict=True)],
            f"level {spread(levels)}, entropy of the mean answer {spread(entropies)}",
            levels=levels,
            entropies=entropies,
        ),
        holds(
            "A: the loss falls to zero (below a tenth of that with a frozen teacher).",
            [low < 0.1 * high for low, high in zip(losses, plateau, strict=False)],
            f"loss {spread(losses)}, with a frozen teacher {spread(plateau)}",
            losses=losses,
            plateau=plateau,
        ),
        holds(
            "B, a frozen teacher: its measures are constant, to the last bit.",
            [_unchanged(result) for result in results[b]],
            "every measure of its panel, at every epoch",
        ),
        *(_survives(results, arm) for arm in (b, c)),
        above(blind, ranks, half, "rank of A's tokens", "half of that of B's"),
    ]
    for arm in results.arms[3:]:
        if arm.startswith("D:"):
            found.append(_survives(results, arm))
            continue
        evidence = f"{results.kinds(arm)}, k-NN {spread(results.values(arm, knn_end))}"
        healthy = [result.verdict == "healthy" for result in results[arm]]
        found.append(holds(f"{arm}: judged healthy.", healthy, evidence))
    return found


def chapters(part: str, results: Results) -> list[Chapter]:
    """Curves, table of level and shape, spectra centred and not, and the views."""
    sheet = results[0].folder / "run" / "figures" / "views.png"
    note = "Each row: an image, what the student sees of it (cropped, turned, half erased), and the teacher."
    views = Chapter(f"What the two networks see: {part}", [Image(f"Views ({part})", note, sheet)])
    return [_course(part, results), _spectra(part, results), views]


def _survives(results: Results, arm: str) -> Claim:
    level = spread(results.values(arm, last("level")))
    return holds(
        f"{arm}: no complete collapse of the student.",
        [r.verdict != "complete" for r in results[arm]],
        f"{results.kinds(arm)}, level {level}",
    )


def _read(side: str, of: str, key: str) -> Read:
    return lambda result: result.numbers[f"trained {side}"][of][key]


def _unchanged(result: Result) -> bool:
    """Whether the target's panel is the same at every epoch (its view pairs are)."""
    panels = [row.panels["target"]["measures"] for row in result.run.epochs]
    return all(panel == panels[0] for panel in panels)


def _token_rank(result: Result) -> float:
    values = np.square(result.numbers["trained student"]["tokens"]["centred"])
    if not values.sum() > 0:
        return 1.0
    q = values[values > 0] / values.sum()
    return float(np.exp(-(q * np.log(q)).sum()))


def _course(part: str, results: Results) -> Chapter:
    tables = [
        results.table(
            f"Level and shape at the end ({part})",
            "Of the student on held-out images. Level: of logits. Share: variance between images over the "
            "second moment, of the softmax, which the loss sees; so the rank. Verdict: the monitor's.",
            {
                "Loss": loss_end,
                "Level": _read("student", "logits", "level"),
                "Share": _read("student", "softmax", "centred_share"),
                "Rank": _read("student", "softmax", "rank"),
                "k-NN": knn_end,
            },
            head="Regime",
        ),
        results.table(
            f"Answers at the end ({part})",
            "Entropy over ln K of the mean answer, H(mean), and of an image's own, mean H: 0 and 0 is one "
            "answer for all, 1 and 1 is no answer. Distance: of the teacher's parameters from the student's, "
            "relative to their length.",
            {
                "H(mean), student": _read("student", "use", "marginal"),
                "mean H, student": _read("student", "use", "conditional"),
                "H(mean), teacher": _read("teacher", "use", "marginal"),
                "mean H, teacher": _read("teacher", "use", "conditional"),
                "Distance": "trained distance",
            },
            head="Regime",
            verdict=False,
        ),
    ]
    return Chapter(
        f"Teacher and student: {part}",
        [
            results.lines(
                f"Loss ({part})",
                "It says nothing by itself: at zero nothing was learned.",
                "cross-entropy, nats",
                loss,
            ),
            level_lines(
                results,
                f"Level of the student's output ({part})",
                "Of logits, mean over tokens. Falling to 0 is complete collapse.",
                threshold=True,
            ),
            knn_lines(results, f"k-NN accuracy ({part})"),
            level_lines(
                results,
                f"Level of the teacher's output ({part})",
                "A frozen teacher's is constant to the last bit.",
                "target",
            ),
            *tables,
        ],
    )


def _spectra(part: str, results: Results) -> Chapter:
    shown = (
        ("tokens", "centred", "Logits of tokens, centred", "The tutorial's: blind to a common answer."),
        ("tokens", "uncentred", "Logits of tokens, not centred", "The mean answer is the first value."),
        ("logits", "singular_values", "Logits of images, centred", "Mean over tokens: positions are out."),
        ("softmax", "singular_values", "Softmax of images, centred", "What the loss sees: height is level."),
    )
    return Chapter(
        f"Spectra with and without centring: {part}",
        [
            Lines(
                f"{title} ({part})",
                note,
                "index (1 = largest)",
                "singular value / √n",
                [_spectrum(results, arm, of, key) for arm in results.arms],
                log_y=True,
            )
            for of, key, title, note in shown
        ],
        "The tutorial drew the first of these and saw no difference between its regimes.",
    )


def _spectrum(results: Results, arm: str, of: str, key: str) -> Series:
    found = [r.numbers["trained student"][of][key] for r in results[arm]]
    alive = min(sum(value > 1e-9 for value in values) for values in found)
    return by_index(arm, [values[:alive] for values in found])
