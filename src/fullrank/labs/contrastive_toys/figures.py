"""Findings of the contrastive toys and of DirectCLR, part by part."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import numpy as np

from fullrank.figures import Lines, Series, Table
from fullrank.labs._common.findings import Chapter, Claim, Findings, above, holds, spread
from fullrank.labs._common.results import Read, Result, Results
from fullrank.labs._common.selectors import (
    by_index,
    knn_dots,
    knn_end,
    last,
    rank_share,
    spectrum_lines,
    untrained,
)
from fullrank.labs.contrastive_toys.toys import LIVE_MARGIN

WEAK, STRONG = "noise 0.01", "noise 1.5"
RANK = last("erank_centred", "backbone")


def _live(result: Result) -> int:
    return int(result.numbers["live"][-1])


def _ln_sigma(index: int) -> Read:
    """A value of the last spectrum, in ln, counted from 1."""
    return lambda result: float(result.numbers["log_spectra"][-1][index - 1])


def _short(arm: str) -> str:
    return arm.removesuffix(", decaying start").removesuffix(", uniform start")


def _spectra(results: Results, arms: Sequence[str], title: str, note: str) -> Lines:
    ends = {arm: [list(result.numbers["log_spectra"][-1]) for result in results[arm]] for arm in arms}
    series = [by_index(_short(arm), ys) for arm, ys in ends.items()]
    return Lines(title, note, "index (1 = largest)", "ln singular value", series)


def _along(results: Results, arms: Sequence[str], title: str, note: str) -> Lines:
    steps = {arm: results[arm][0].numbers["steps"] for arm in arms}
    series = [Series(_short(arm), steps[arm], [r.numbers["live"] for r in results[arm]]) for arm in arms]
    return Lines(title, note, "step", "directions in use", series)


def _table(results: Results, title: str, note: str) -> Table:
    columns: dict[str, Read] = {"In use": _live, **{f"ln σ {k}": _ln_sigma(k) for k in (1, 8, 9, 16)}}
    return results.table(title, note, columns, head="Toy", verdict=False)


def _augmentation(results: Results) -> Findings:
    amplitudes = {float(arm.removeprefix("noise ")): arm for arm in results.arms}
    claims = []
    if {WEAK, STRONG} <= set(results.arms):
        eighth, ninth = (spread(results.values(STRONG, _ln_sigma(k))) for k in (8, 9))
        claims = [
            holds(
                f"{WEAK.capitalize()} leaves all 16 directions in use.",
                [_live(result) == 16 for result in results[WEAK]],
                f"in use {spread(results.values(WEAK, _live))}",
            ),
            holds(
                f"{STRONG.capitalize()} on 8 coordinates leaves 8 in use.",
                [_live(result) == 8 for result in results[STRONG]],
                f"in use {spread(results.values(STRONG, _live))}; ln σ of the 8th {eighth}, "
                f"of the 9th {ninth}",
            ),
        ]
    if onsets := _onsets(results, amplitudes):
        claims.append(
            holds(
                "Directions die once their noise is as large as the data, and not at half of that.",
                [0.5 < onset <= 1.0 for onset in onsets],
                f"first amplitude with a direction lost {spread(onsets)}; the data's deviation is 1",
                onsets=onsets,
            )
        )

    def over(title: str, note: str, y: str, name: str, what: Read, references: dict[str, float]) -> Lines:
        series, large = results.whole().over(amplitudes, name, what), {"as large as the data": 1.0}
        return Lines(title, note, "amplitude of the noise", y, [series], references, large)

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
                over(
                    "When the rank starts dropping",
                    "Noise is on 8 of 16 coordinates; the data's deviation is 1.",
                    "directions in use",
                    "in use",
                    lambda result: float(_live(result)),
                    {"free of noise": 8.0},
                ),
                over(
                    "The cliff between the halves",
                    "The 8th value less the 9th, in ln: it opens gradually.",
                    "ln σ 8 less ln σ 9",
                    "cliff",
                    lambda result: float(np.subtract(*result.numbers["log_spectra"][-1][7:9])),
                    {"not in use": LIVE_MARGIN},
                ),
            ],
            "The gap opens gradually; what counts as in use decides when the rank drops.",
        ),
    ]
    first = f"the first direction is lost at {spread(onsets)}" if onsets else "no direction is lost"
    return Findings(chapters, claims, f"Strong augmentation: {first}.")


def _onsets(results: Results, amplitudes: Mapping[float, str]) -> list[float]:
    """Least amplitude that costs a direction, by seed; seeds that lose none left out."""
    found = []
    for seed in results.whole_seeds:
        own = {result.arm: _live(result) for result in results if result.seed == seed}
        lost = [amplitude for amplitude, arm in amplitudes.items() if own[arm] < 16]
        found += [min(lost)] if lost else []
    return found


def _layers(results: Results) -> Findings:
    decaying, uniform = (
        [arm for arm in results.arms if arm.endswith(f"{init} start")] for init in ("decaying", "uniform")
    )
    claims = []
    for shallow, deep in pairwise(decaying):
        few, many = shallow.partition(",")[0], deep.partition(",")[0]
        text = f"{many} keep fewer directions than {few}."
        claims.append(results.above(text, _live, shallow, deep, f"in use with {few}", f"with {many}"))
    for ours, other in list(zip(decaying, uniform, strict=True))[1:2]:
        text = "The decaying start is what it takes: two layers from a uniform start keep more."
        claims.append(results.above(text, _live, other, ours, "in use, uniform start", "decaying start"))
    weights = "Singular values exp(−0.35 i) in each layer.", "PyTorch's usual weights, within ±1/4."
    chapter = Chapter(
        "Implicit regularisation: several linear layers",
        [
            _spectra(results, decaying, "Spectra from decaying starts", weights[0]),
            _spectra(results, uniform, "Spectra from uniform starts", weights[1]),
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
    counts = ", ".join(results.spreads(arm, {arm: _live}) for arm in results.arms)
    return Findings([chapter], claims, f"Directions in use of 16: {counts}.")


def _subvector(results: Results) -> Findings:
    weakest = _ln_sigma(16)
    chapter = Chapter(
        "The sub-vector on the toy",
        [
            _spectra(
                results, results.arms, "Spectra of all outputs", "Outputs that the loss does not see stay."
            ),
            results.dots("The weakest direction", "Of 16.", "ln singular value", weakest),
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
    ends = ", ".join(results.spreads(arm, {arm: weakest}) for arm in results.arms)
    return Findings([chapter], [], f"Sub-vector on the toy, ln σ of the weakest direction: {ends}.")


def _directclr(results: Results) -> Findings:
    *some, every = results.arms
    claims: list[Claim] = []
    if some:
        best = max(some, key=lambda arm: float(np.mean(results.values(arm, knn_end) or [0.0])))
        text = f"A sub-vector does better than all channels (the best, {best})."
        claims = [
            results.above(text, knn_end, best, every, "k-NN", f"with {every}"),
            above(
                f"All channels keep a rank above that of the channels contrasted ({some[0]}).",
                results.values(some[0], RANK),
                results.values(some[0], lambda result: float(result.width("projector"))),
                "rank of the features",
                "channels contrasted",
            ),
        ]
    chapter = Chapter(
        "DirectCLR: contrasting some channels of the features",
        [
            spectrum_lines(
                results,
                "Spectrum of the features (DirectCLR)",
                "Of all channels, centred.",
                "centred",
                "backbone",
            ),
            knn_dots(
                results,
                "k-NN (DirectCLR)",
                "On all features, whatever the loss saw.",
                untrained(results[:1]),
            ),
            results.table(
                "DirectCLR over its channels",
                "At the last epoch; rank of all features.",
                {"Rank": RANK, "Rank / d": rank_share("backbone"), "k-NN": knn_end},
                head="Contrasted",
            ),
        ],
        ordered=True,
    )
    ends = ", ".join(results.spreads(arm, {arm: knn_end}) for arm in results.arms)
    return Findings([chapter], claims, f"DirectCLR's k-NN by what it contrasts: {ends}.")


PARTS: Mapping[str, Callable[[Results], Findings]] = {
    "augmentation": _augmentation,
    "layers": _layers,
    "subvector": _subvector,
    "directclr": _directclr,
}
"""Part to what makes its findings."""
