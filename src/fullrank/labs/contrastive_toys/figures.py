"""Claims, figures and words of the contrastive toys and of DirectCLR."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from fullrank.figures import Dots, Lines, Series, Table
from fullrank.labs._common.claims import Claim, above, holds, spread
from fullrank.labs._common.findings import Chapter
from fullrank.labs._common.results import Result, Results
from fullrank.labs.contrastive_toys.toys import LIVE_MARGIN

__all__ = ["PARTS"]

WEAK, STRONG = "noise 0.01", "noise 1.5"


def _live(result: Result) -> int:
    return int(result.numbers["live"][-1])


def _last(result: Result) -> list[float]:
    return list(result.numbers["log_spectra"][-1])


def _short(arm: str) -> str:
    return arm.removesuffix(", decaying start").removesuffix(", uniform start")


def _spectra(results: Results, arms: Sequence[str], title: str, note: str) -> Lines:
    series = [
        Series(_short(arm), list(range(1, 17)), [_last(result) for result in results[arm]]) for arm in arms
    ]
    return Lines(title, note, "index (1 = largest)", "ln singular value", series)


def _along(results: Results, arms: Sequence[str], title: str, note: str) -> Lines:
    series = [
        Series(_short(arm), results[arm][0].numbers["steps"], [r.numbers["live"] for r in results[arm]])
        for arm in arms
    ]
    return Lines(title, note, "step", "directions in use", series)


def _table(results: Results, title: str, note: str) -> Table:
    """Live directions, and the ends of the spectrum on either side of the eighth value."""
    rows: list[list[Any]] = [
        [
            arm,
            results.values(arm, _live),
            *([_last(r)[place] for r in results[arm]] for place in (0, 7, 8, 15)),
        ]
        for arm in results.arms
    ]
    return Table(title, note, ("Toy", "In use", "ln σ 1", "ln σ 8", "ln σ 9", "ln σ 16"), rows)


def _augmentation(results: Results) -> tuple[list[Claim], list[Chapter], str]:
    """Strong augmentation, over its amplitude."""
    amplitudes = {arm: float(arm.removeprefix("noise ")) for arm in results.arms}
    claims = []
    if {WEAK, STRONG} <= amplitudes.keys():
        ends = [(_last(result)[7], _last(result)[8]) for result in results[STRONG]]
        claims = [
            holds(
                f"{WEAK.capitalize()} leaves all 16 directions in use.",
                [_live(result) == 16 for result in results[WEAK]],
                f"in use {spread(results.values(WEAK, _live))}",
            ),
            holds(
                f"{STRONG.capitalize()} on 8 coordinates leaves 8 in use.",
                [_live(result) == 8 for result in results[STRONG]],
                f"in use {spread(results.values(STRONG, _live))}; ln σ of the 8th "
                f"{spread([eighth for eighth, _ in ends])}, of the 9th "
                f"{spread([ninth for _, ninth in ends])}",
            ),
        ]
    onsets = _onsets(results, amplitudes)
    if onsets:
        claims.append(
            holds(
                "Directions die once their noise is as large as the data, and not at half of that.",
                [0.5 < onset <= 1.0 for onset in onsets],
                f"first amplitude with a direction lost {spread(onsets)}; the data's deviation is 1",
                onsets=onsets,
            )
        )
    by_seed = [
        [float(_live(result)) for arm in amplitudes for result in results[arm] if result.seed == seed]
        for seed in results.whole_seeds
    ]
    xs = list(amplitudes.values())
    gap = [
        [_last(r)[7] - _last(r)[8] for arm in amplitudes for r in results[arm] if r.seed == seed]
        for seed in results.whole_seeds
    ]
    chapters = [
        Chapter(
            "Strong augmentation: one linear layer",
            [
                _spectra(
                    results,
                    results.arms,
                    "Spectra over the amplitude",
                    "Mean of the seeds, at the last step.",
                ),
                _along(results, results.arms, "Directions in use along training (augmentation)", "Of 16."),
                _table(results, "Strong augmentation", "At the last step."),
            ],
            "InfoNCE on Gaussian points of 16 dimensions; both views add noise to the last 8 coordinates.",
            ordered=True,
        ),
        Chapter(
            "Strong augmentation, over its amplitude",
            [
                Lines(
                    "When the rank starts dropping",
                    "Noise is on 8 of 16 coordinates; the data's deviation is 1.",
                    "amplitude of the noise",
                    "directions in use",
                    [Series("in use", xs, by_seed)],
                    {"free of noise": 8.0},
                    {"as large as the data": 1.0},
                ),
                Lines(
                    "The cliff between the halves",
                    "The 8th value less the 9th, in ln: it opens gradually.",
                    "amplitude of the noise",
                    "ln σ 8 less ln σ 9",
                    [Series("cliff", xs, gap)],
                    {"not in use": LIVE_MARGIN},
                    {"as large as the data": 1.0},
                ),
            ],
            "The gap opens gradually; what counts as in use decides when the rank drops.",
        ),
    ]
    first = f"the first direction is lost at {spread(onsets)}" if onsets else "no direction is lost"
    return claims, chapters, f"Strong augmentation: {first}."


def _onsets(results: Results, amplitudes: Mapping[str, float]) -> list[float]:
    """By seed, the least amplitude that costs a direction; seeds that lose none are left out."""
    found = []
    for seed in results.whole_seeds:
        lost = [
            amplitudes[result.arm]
            for result in results
            if result.seed == seed and _live(result) < len(_last(result))
        ]
        found += [min(lost)] if lost else []
    return found


def _layers(results: Results) -> tuple[list[Claim], list[Chapter], str]:
    """Implicit regularisation, over layers and starts."""
    decaying, uniform = (
        [arm for arm in results.arms if arm.endswith(f"{init} start")] for init in ("decaying", "uniform")
    )
    claims = []
    for shallow, deep in pairwise(decaying):
        claims.append(
            above(
                f"{deep.partition(',')[0]} keep fewer directions than {shallow.partition(',')[0]}.",
                results.values(shallow, _live),
                results.values(deep, _live),
                f"in use with {shallow.partition(',')[0]}",
                f"with {deep.partition(',')[0]}",
            )
        )
    for ours, other in list(zip(decaying, uniform, strict=True))[1:2]:
        claims.append(
            above(
                "The decaying start is what it takes: two layers from a uniform start keep more.",
                results.values(other, _live),
                results.values(ours, _live),
                "in use, uniform start",
                "decaying start",
            )
        )
    chapter = Chapter(
        "Implicit regularisation: several linear layers",
        [
            _spectra(
                results,
                decaying,
                "Spectra from decaying starts",
                "Singular values exp(−0.35 i) in each layer.",
            ),
            _spectra(
                results, uniform, "Spectra from uniform starts", "PyTorch's usual weights, within ±1/4."
            ),
            _along(
                results, decaying, "Directions in use from decaying starts", "They are recruited one by one."
            ),
            _along(
                results, uniform, "Directions in use from uniform starts", "Nearly all of them, in any depth."
            ),
            _table(results, "Implicit regularisation", "At the last step."),
        ],
        "Hardly any noise (0.001): nothing but depth can cost a direction.",
        ordered=True,
    )
    counts = ", ".join(f"{arm} {spread(results.values(arm, _live))}" for arm in results.arms)
    return claims, [chapter], f"Directions in use of 16: {counts}."


def _subvector(results: Results) -> tuple[list[Claim], list[Chapter], str]:
    """The loss on a part of the outputs, without layers above."""
    weakest = results.by_arm(lambda r: _last(r)[-1])
    chapter = Chapter(
        "The sub-vector on the toy",
        [
            _spectra(
                results, results.arms, "Spectra of all outputs", "Outputs that the loss does not see stay."
            ),
            Dots("The weakest direction", "Of 16.", "ln singular value", weakest),
            _table(
                results,
                "Sub-vector",
                "At the last step. Outputs that the loss does not see repeat directions of the others: "
                "the largest grows, and fewer are within reach of it.",
            ),
        ],
        "One layer from a uniform start. A linear layer has no residual path, which is how DirectCLR's loss "
        "reaches the other channels: what is seen here is the bare sub-vector.",
        ordered=True,
    )
    told = ", ".join(f"{arm} {spread(found)}" for arm, found in weakest.items())
    return [], [chapter], f"Sub-vector on the toy, ln σ of the weakest direction: {told}."


def _directclr(results: Results) -> tuple[list[Claim], list[Chapter], str]:
    """DirectCLR on images."""

    def share(result: Result) -> float | None:
        return result.rank_share("backbone")

    *some, every = results.arms
    claims: list[Claim] = []
    if some:
        best = max(some, key=lambda arm: float(np.mean(results.values(arm, lambda r: r.knn_end) or [0.0])))
        claims = [
            above(
                f"A sub-vector does better than all channels (the best, {best}).",
                results.values(best, lambda r: r.knn_end),
                results.values(every, lambda r: r.knn_end),
                "k-NN",
                f"with {every}",
            ),
            above(
                f"All channels keep a rank above that of the channels contrasted ({some[0]}).",
                results.values(some[0], lambda r: r.last("erank_centred", "backbone")),
                results.values(some[0], lambda r: float(r.width("projector"))),
                "rank of the features",
                "channels contrasted",
            ),
        ]
    untrained = {"untrained": results[0].knn[0]} if 0 in results[0].knn else {}
    rows: list[list[Any]] = [
        [
            arm,
            results.kinds(arm),
            results.values(arm, lambda r: r.last("erank_centred", "backbone")),
            results.values(arm, share),
            results.values(arm, lambda r: r.knn_end),
        ]
        for arm in results.arms
    ]
    chapter = Chapter(
        "DirectCLR: contrasting some channels of the features",
        [
            Lines(
                "Spectrum of the features (DirectCLR)",
                "Of all channels, centred.",
                "index (1 = largest)",
                "singular value",
                [results.spectrum(arm, "centred", "backbone") for arm in results.arms],
                log_y=True,
            ),
            Dots(
                "k-NN (DirectCLR)",
                "On all features, whatever the loss saw.",
                "k-NN top-1",
                results.by_arm(lambda r: r.knn_end),
                untrained,
                percent=True,
            ),
            Table(
                "DirectCLR over its channels",
                "At the last epoch; rank of all features.",
                ("Contrasted", "Verdict", "Rank", "Rank / d", "k-NN"),
                rows,
            ),
        ],
        ordered=True,
    )
    told = ", ".join(f"{arm} {spread(results.values(arm, lambda r: r.knn_end))}" for arm in results.arms)
    return claims, [chapter], f"DirectCLR's k-NN by what it contrasts: {told}."


PARTS: Mapping[str, Callable[[Results], tuple[list[Claim], list[Chapter], str]]] = {
    "augmentation": _augmentation,
    "layers": _layers,
    "subvector": _subvector,
    "directclr": _directclr,
}
"""What each part comes to: claims, chapters, a sentence."""
