"""An adaptation in a sentence, and what was not tested."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from fullrank.adaptation.decision import FEWEST_IMAGES, Finding
from fullrank.adaptation.result import PAGE, Adaptation
from fullrank.figures.style import count, number, percent
from fullrank.images.opening import HELD_OUT_SHARE
from fullrank.training.config import TrainConfig

TOO_FEW = "too few images"
AGAINST = {
    "gain": "views of them do not agree more about neighbours, beyond chance",
    "kept": "too many old neighbours are lost",
    "collapse": "the features collapse",
    "knn": "the nearest neighbours name fewer labels right",
}


def too_few_images(held_out: int) -> str:
    """Why so few held-out images judge nothing, and how many would.

    Example:
        >>> too_few_images(50)[:76]
        'there are too few images to judge by: 50 held-out ones where 80 are needed ('
    """
    needed = 2 * FEWEST_IMAGES  # one half chooses, the other judges
    return (
        f"there are {TOO_FEW} to judge by: {held_out} held-out ones where {needed} are needed "
        f"(a folder `val` of so many, or {math.ceil(needed / HELD_OUT_SHARE):,} images in all)"
    )


def sentence(adapted: bool, findings: Sequence[Finding], best_epoch: int, why_stopped: str) -> str:
    """The outcome in a line.

    Example:
        >>> gain, kept = Finding("gain", "", True, 0.5, 0.56), Finding("kept", "", True, 1.0, 0.94)
        >>> sentence(True, [gain, kept], 3, "")
        'adapted: neighbours agree 12 % more across views of your images, old neighbours kept 94 %'
    """
    if not best_epoch:
        if TOO_FEW in why_stopped:
            return f"do not adapt: {why_stopped}"
        return "do not adapt: no adapted encoder scores above the frozen one on your images"
    found = {finding.name: finding for finding in findings}
    gain, kept = found["gain"], found["kept"]
    if adapted:
        assert gain.before is not None and gain.after is not None and kept.after is not None
        more = 100 * (gain.after / max(gain.before, 1e-9) - 1)
        return (
            f"adapted: neighbours agree {more:.0f} % more across views of your images, "
            f"old neighbours kept {100 * kept.after:.0f} %"
        )
    failed = [finding.name for finding in findings if finding.passed is False]
    why = "; ".join(AGAINST[name] for name in failed)
    if all(name in ("gain", "knn") and (found[name].high or 0.0) >= 0 for name in failed):
        return f"do not adapt: nothing is surely better on your images than the frozen encoder ({why})"
    return f"do not adapt: the frozen encoder is better on your images ({why})"


def comparison_line(values: Mapping[str, float | None]) -> str:
    """How held-out images stand to the start after a panel, in a line.

    Example:
        >>> comparison_line({"coherence": 0.41, "kept": 0.83, "cka": 0.95})
        '  against the start: views agree about 41.0 % of neighbours, old ones kept 83.0 %, CKA 0.950'
    """
    agree = f"views agree about {percent(values.get('coherence'))} of neighbours"
    kept = f"old ones kept {percent(values.get('kept'))}"
    return f"  against the start: {agree}, {kept}, CKA {number(values.get('cka'))}"


NAMES = {
    "gain": "neighbours that views share",
    "kept": "old neighbours kept",
    "similarity": "similarity to the start (CKA)",
    "collapse": "collapse",
    "knn": "k-NN top-1",
}


def evidence_lines(findings: Sequence[Finding]) -> Iterator[str]:
    """A line for each finding, as the terminal has it.

    Example:
        >>> list(evidence_lines([Finding("gain", "", True, 0.5, 0.56, 0.04, 0.08, 0.0, 200)]))
        ['  for      neighbours that views share: 50.0 % -> 56.0 %, 95 % interval of the rise 4.0 % to 8.0 %']
    """
    for finding in findings:
        side = {True: "for", False: "against", None: "beside"}[finding.passed]
        yield f"  {side:<8} {NAMES[finding.name]}: {figures_of(finding)}"


def result_lines(result: Adaptation) -> Iterator[str]:
    """How an adaptation ended, as the terminal has it: sentence, evidence, files."""
    yield result.sentence
    yield from evidence_lines(result.findings)
    if not result.findings:
        yield "  no adapted encoder was compared with the start"
    yield f"encoder {result.path / 'encoder.safetensors'}"
    yield f"page    {result.path / PAGE}"


def figures_of(finding: Finding) -> str:
    """The numbers of a finding in words."""
    if finding.name == "collapse":
        return f"{number(finding.before)} -> {number(finding.after)}, {finding.says}"
    if finding.name == "similarity":
        return number(finding.after)
    ends = f"{percent(finding.low)} to {percent(finding.high)}"
    if finding.name == "kept":
        return f"{percent(finding.after)}, 95 % interval {ends}; {percent(finding.border)} must be kept"
    rise = f"{percent(finding.before)} -> {percent(finding.after)}"
    of = f" of {count(finding.images)} images, each named by all others" if finding.name == "knn" else ""
    return f"{rise}{of}, 95 % interval of the rise {ends}"


def untested(findings: Sequence[Finding], config: TrainConfig) -> Iterator[str]:
    """What was not tested, a line each."""
    yield "Other seeds: one training was judged, and another one may end otherwise."
    yield (
        "Other images: the encoders were compared on held-out images of this folder alone, not on those that "
        "the first one was pretrained on."
    )
    names = {finding.name: finding for finding in findings}
    if not names:
        yield "An adapted encoder: there was none to compare with the start."
    elif "knn" not in names:
        yield "What the features are worth for a task: the images have no labels, or too few to ask k-NN."
    elif names["knn"].passed is None:
        yield "Labels were there and did not decide, as was asked."
    yield f"Other methods than {config.method}, and other rates than {config.lr:g}."
    yield "Fine-tuning: the encoders were compared frozen."
