"""Arms of a comparison; runs that differ in nothing but their seed are one."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from fullrank.encoders.hooks import FEATURES
from fullrank.errors import UsageError
from fullrank.figures.style import VerdictStyle, style_of
from fullrank.options import CompareOptions, OnProgress, split_names
from fullrank.report.compare.estimates import Estimate, estimate
from fullrank.report.compare.measures import Images, choose_images, measure, shared_data
from fullrank.report.compare.subjects import Subject, TapSummary, open_subject
from fullrank.report.run.reading import Run
from fullrank.report.run.summary import start_of
from fullrank.untrusted.paths import expand_user

COLLAPSED = frozenset({"complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment"})
# none makes another experiment
NO_SETTING = frozenset({"seed", "out", "download", "log", "panels", "workers"})


@dataclass(frozen=True)
class Arm:
    """One row of a comparison: the runs of one setting, or a single other subject."""

    name: str
    subjects: tuple[Subject, ...]

    @property
    def runs(self) -> list[Run]:
        """Those of its subjects that are runs."""
        return [subject.run for subject in self.subjects if subject.run]

    @property
    def kinds(self) -> Counter[str]:
        """Count of subjects by verdict."""
        return Counter(s.judged.kind if s.judged else "not decidable" for s in self.subjects)

    @property
    def style(self) -> VerdictStyle:
        """The verdict of all, or the most frequent collapse, or the most frequent one."""
        kinds = [kind for kind, _ in self.kinds.most_common()]
        return style_of(next((kind for kind in kinds if kind in COLLAPSED), kinds[0]))

    @property
    def loss(self) -> float | None:
        """The mean of the last losses."""
        return self.value("loss").mean

    @property
    def tap(self) -> str:
        """The embedding that the verdict is about."""
        return next((subject.judged.tap for subject in self.subjects if subject.judged), "–")

    @property
    def taps(self) -> list[str]:
        """The judged embedding, and the features where they were measured."""
        judged = dict.fromkeys(subject.judged.tap for subject in self.subjects if subject.judged)
        seen = FEATURES if self.summaries(FEATURES) else "backbone"
        return list(judged | ({seen: None} if self.summaries(seen) else {}))

    def summaries(self, tap: str) -> list[TapSummary]:
        """Summaries of one embedding, over the subjects."""
        return [found for subject in self.subjects if (found := subject.summary(tap))]

    def value(self, name: str) -> Estimate:
        """A number of the training or of a probe, over the subjects."""
        return estimate(subject.values.get(name) for subject in self.subjects)

    def measure(self, tap: str, name: str) -> Estimate:
        """A measure of one embedding, over the subjects."""
        return estimate(summary.values.get(name) for summary in self.summaries(tap))

    def constant(self, tap: str) -> bool:
        """Whether one embedding is constant in all subjects, so that its rank is of noise."""
        return {summary.kind for summary in self.summaries(tap)} == {"complete"}

    def probability(self, tap: str) -> Estimate:
        """Probability of a collapse of one embedding, over the subjects."""
        return estimate(summary.verdict.probability for summary in self.summaries(tap))

    def blemishes(self, tap: str) -> list[str]:
        """Names of the blemishes of one embedding in any of the subjects."""
        found = (odd.name for summary in self.summaries(tap) for odd in summary.verdict.blemishes)
        return list(dict.fromkeys(found))

    def null(self, tap: str, name: str) -> float | None:
        """Baseline of isotropic noise of the same n and d, the mean over the subjects."""
        return estimate(summary.baselines.get(name) for summary in self.summaries(tap)).mean

    def size(self, tap: str) -> tuple[int | None, int | None]:
        """n and d of one embedding."""
        found = self.summaries(tap)
        return (found[0].n, found[0].d) if found else (None, None)

    def possible(self, tap: str) -> int | None:
        """Directions that the rows of one embedding could span."""
        found = self.summaries(tap)
        return found[0].possible if found else None

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: name, method, verdicts, values and taps with intervals, runs."""
        names = dict.fromkeys(name for subject in self.subjects for name in subject.values)
        return {
            "name": self.name,
            "method": self.subjects[0].method,
            "kind": self.subjects[0].kind,
            "verdicts": dict(self.kinds),
            "values": {name: self.value(name).as_dict() for name in names},
            "taps": {tap: self._tap(tap) for tap in self.taps},
            "runs": [_as_dict(subject) for subject in self.subjects],
        }

    def _tap(self, tap: str) -> dict[str, Any]:
        n, d = self.size(tap)
        names = dict.fromkeys(name for summary in self.summaries(tap) for name in summary.values)
        measures = {
            name: {**self.measure(tap, name).as_dict(), "isotropic": self.null(tap, name)} for name in names
        }
        kinds = Counter(summary.kind for summary in self.summaries(tap))
        return {"n": n, "d": d, "verdicts": dict(kinds), "measures": measures}


def _as_dict(subject: Subject) -> dict[str, Any]:
    judged = subject.judged
    return {
        "subject": subject.word,
        "seed": subject.seed,
        "untrained": subject.untrained,
        "verdict": judged.kind if judged else "not decidable",
        "why": judged.verdict.why if judged else "",
        "probability": judged.verdict.probability if judged else None,
        "blemishes": [odd.as_dict() for odd in judged.verdict.blemishes] if judged else [],
        "tap": judged.tap if judged else None,
        "values": dict(subject.values),
        "evaluations": dict(subject.evaluations),
    }


@dataclass(frozen=True)
class Comparison:
    """All that is compared.

    Attributes:
        arms: in the order in which they were named.
        images: what every encoder saw; None where none was opened.
        notes: one line each: what a reader should know.
        baselines: further k-NN accuracies to hold against, by name.
    """

    arms: Sequence[Arm]
    images: Images | None = None
    notes: Sequence[str] = ()
    baselines: Mapping[str, float] = field(default_factory=dict)

    @property
    def subjects(self) -> list[Subject]:
        """The subjects of all arms."""
        return [subject for arm in self.arms for subject in arm.subjects]


def gather(subjects: Sequence[Subject], names: Sequence[str] | None = None) -> list[Arm]:
    """Gather runs that differ in nothing but their seed into arms.

    Each that is no run is an arm. Names are in the order in which the arms begin; None takes those of their
    folders.

    Raises:
        UsageError: no subject, one is named twice, or not a name of its own for each arm.
    """
    groups: dict[str, list[Subject]] = {}
    for subject in subjects:
        groups.setdefault(_setting(subject), []).append(subject)
    for group in groups.values():
        places = [subject.run.path.resolve() if subject.run else subject.word for subject in group]
        if len(set(places)) < len(places):
            raise UsageError(f"{group[0].word} is named twice")
    return named_arms(list(groups.values()), names)


def _setting(subject: Subject) -> str:
    """Settings that the runs of one arm have in common."""
    if subject.run is None or not subject.run.config:
        return subject.word
    kept = {key: value for key, value in subject.run.config.items() if key not in NO_SETTING}
    return json.dumps(kept, sort_keys=True, default=str)


def named_arms(groups: Sequence[Sequence[Subject]], names: Sequence[str] | None = None) -> list[Arm]:
    """An arm for each group; UsageError without any, or without a name for each."""
    called = list(names) if names is not None else _names(groups)
    if not groups or len(called) != len(groups) or len(set(called)) != len(called) or not all(called):
        listed = ", ".join(_names(groups)) or "none"
        raise UsageError(
            f"a comparison needs arms and a name of its own for each: {len(groups)} arms ({listed}), "
            f"names {', '.join(called) or 'none'}"
        )
    return [Arm(name, tuple(group)) for name, group in zip(called, groups, strict=True)]


def _names(groups: Sequence[Sequence[Subject]]) -> list[str]:
    """The shortest names that tell the arms apart."""
    folders = [expand_user(group[0].word).resolve().parent.name for group in groups]
    stems = [_stem(group) + _state(group[0]) for group in groups]
    wider = [
        [stem, f"{folder}/{stem}", group[0].word]
        for stem, folder, group in zip(stems, folders, groups, strict=True)
    ]
    chosen = [names[0] for names in wider]
    for step in (1, 2):
        taken = Counter(chosen)
        chosen = [names[step] if taken[name] > 1 else name for name, names in zip(chosen, wider, strict=True)]
    return chosen


def _state(subject: Subject) -> str:
    """What is said of a network before its first step; nothing of any other.

    Example:
        >>> _state(Subject("timm:resnet18", "encoder", "resnet18", None, untrained=True))
        ' (untrained)'
    """
    if not subject.untrained:
        return ""
    return f" ({start_of(subject.run.config if subject.run else {})})"


def _stem(group: Sequence[Subject]) -> str:
    """Common stem of the folders: `simsiam` of `simsiam-seed0` and `simsiam-seed1`."""
    if len(group) == 1:
        return group[0].short
    columns = zip(*(subject.short for subject in group), strict=False)
    shared = "".join(letters[0] for letters in takewhile(lambda letters: len(set(letters)) == 1, columns))
    return re.sub(r"([-_., ](seed=?|s)?)?[-_., ]*\d*$", "", shared) or group[0].method


def compare_subjects(
    words: Sequence[str], options: CompareOptions, on_progress: OnProgress | None = None
) -> Comparison:
    """Open and measure what was named; see `fullrank.compare`."""
    if options.untrained and not options.measure:
        raise UsageError("nothing is known of an untrained network without --measure: leave one of both out")
    opening = {"download": options.download, "measure": options.measure, "untrained": options.untrained}
    subjects = [open_subject(word, **opening) for word in words]
    names = list(split_names(options.names)) or None
    gather(subjects, names)  # names are refused before anything is measured
    notes = [note for subject in subjects for note in subject.notes]
    images, note = _images(subjects, options)
    about = []
    if images is not None:
        about = [f"{images.data}: {line}" for line in images.notes] if options.data else []
        subjects = [measure(subject, images, on_progress) for subject in subjects]
    lines = [*([note] if note else []), *about, *dict.fromkeys(notes)]
    return Comparison(gather(subjects, names), images, lines)


def _images(subjects: Sequence[Subject], options: CompareOptions) -> tuple[Images | None, str]:
    """The images that every encoder sees, if any, and a line about them."""
    encoders = [subject for subject in subjects if subject.kind == "encoder"]
    if encoders and not options.measure:
        raise UsageError(f"{encoders[0].word} is an encoder: nothing is known of it without --measure")
    if not any(subject.model for subject in subjects):
        return None, ""
    shared = shared_data(subjects)
    if options.data and options.data != shared.get("data"):
        shared = {"data": options.data}
    if not shared and encoders:
        runs = any(subject.run for subject in subjects)
        which = "the runs were trained on different ones" if runs else "no run brings any"
        raise UsageError(f"{encoders[0].word} needs images, and {which}: add --data")
    if not shared:
        return None, "No k-NN on the same images: the runs were trained on different ones. Add --data."
    images = choose_images(options=options, **shared)
    source = f"Images: {images.data}, which all runs were trained on; --data takes others."
    return images, "" if options.data else source
