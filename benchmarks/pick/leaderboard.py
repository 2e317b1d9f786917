"""Accuracy that picking an encoder without labels costs, for every score, and the learning of our own.

Usage: python benchmarks/pick/leaderboard.py [--table FILE] [--learn] [--write docs/pick.md] [--entry FILE.py]

A score ranks encoders that saw the same images. Its regret is the k-NN accuracy of the best of them less that
of the one that it ranks first, in points. Three questions are asked: which checkpoint of a run, which run of
a method, which of six encoders of any kind. Ours is learnt on two data sets and one half of the methods, and
judged on the other half of the methods on the third data set, in all six ways; every other score is judged on
the same sets.

An entry is a file with a function `score(encoders)`, from a table with the columns of checkpoints.parquet but
for `knn` and `linear` to a number each, the best one highest. `--learn` writes the weights of the product
anew, from all encoders; `--write` the tables of docs/pick.md between their marks.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from fullrank.collapse import label_free_score
from fullrank.collapse.label_free_score import (
    Relation,
    Unexplained,
    Weights,
    deviation,
    score_encoders,
    transformed,
)

if TYPE_CHECKING:
    import pandas as pd

HERE = Path(__file__).parent
Array = NDArray[np.float64]
ScoreFunction = Callable[["pd.DataFrame"], Array]
INPUTS: dict[Relation, tuple[str, ...]] = {
    "panel": ("view_retrieval",),
    "run": ("view_retrieval", "participation_ratio", "lidar"),
    "method": ("view_retrieval", "relative_rank"),
    "any": ("view_retrieval",),
}
"""Measures of the backbone that each question is answered from; none with a negative weight was taken."""

OF_A_RUN = ("panel", "run")

LABELLED = "linear probe, which needs labels"
SOUND = ("healthy", "not decidable")
RUN = ["data", "method", "arm", "seed"]
SAME_IMAGES = ["data", "images"]  # what encoders are compared by
LEVEL = 0.9  # of the intervals
FEWEST = 30  # differences below which nothing is calibrated
SPREADS = np.geomspace(0.2, 2.0, 5)
RIDGE = 10.0
LEAST_NOISE = 0.3  # points; differences of accuracies on 3,000 images are no surer
MOST, DRAWN = 6, 60  # encoders of a set of any kind, and sets of a data set
QUESTIONS = {
    "run": "which checkpoint of a run",
    "panel": "which panel of a run, while it trains",
    "method": "which run of a method",
    "any": "which of six encoders",
}


def single(column: str, sign: float = 1.0, at: float | None = None) -> ScoreFunction:
    """A measure by itself: high, low (sign -1), or near a value."""

    def score(encoders: pd.DataFrame) -> Array:
        values: Array = encoders[column].to_numpy(dtype=float)
        return sign * values if at is None else -np.abs(values - at)

    return score


SCORES: dict[str, ScoreFunction] = {
    "last checkpoint": single("epoch"),
    "lowest training loss": single("loss", -1.0),
    "RankMe, backbone": single("backbone_rankme_unit"),
    "RankMe, projector": single("projector_rankme_unit"),
    "effective rank, backbone": single("backbone_erank_centred"),
    "LiDAR, backbone": single("backbone_lidar"),
    "LiDAR, projector": single("projector_lidar"),
    "alpha-ReQ nearest 1": single("backbone_alpha_req", at=1.0),
    "alignment": single("backbone_alignment", -1.0),
    "uniformity": single("backbone_uniformity", -1.0),
    "neighbours kept": single("backbone_neighbour_coherence"),
    "views found again": single("backbone_view_retrieval"),
}


def trained_ones(encoders: pd.DataFrame, question: Relation) -> pd.DataFrame:
    """Encoders with an epoch behind them: checkpoints of a run by its own views, others by the usual ones."""
    trained = encoders[(encoders.epoch > 0) & ~encoders.diverged]
    own = trained["views"] == "own"
    if question not in OF_A_RUN:
        return trained[~own]
    runs = trained[RUN].apply(tuple, axis=1)
    return trained[own | ~runs.isin(set(runs[own]))]


def sets(encoders: pd.DataFrame, question: Relation) -> Iterator[pd.DataFrame]:
    """Encoders that are chosen among, three or more at a time."""
    trained = trained_ones(encoders, question)
    if question in OF_A_RUN:
        groups = [group for _, group in trained.groupby(RUN)]
    else:
        last = trained[trained.epoch == trained.epochs]
        if question == "method":
            groups = [group for _, group in last.groupby([*SAME_IMAGES, "method"])]
        else:
            rng, groups = np.random.default_rng(1), []
            for _, group in last.groupby(SAME_IMAGES):
                for _ in range(DRAWN if len(group) > MOST else 0):
                    groups.append(group.iloc[rng.choice(len(group), MOST, replace=False)])
    yield from (group for group in groups if len(group) > 2)


def inputs(encoders: pd.DataFrame, question: Relation) -> Array:
    """Transformed measures [n, inputs]."""
    columns = [
        [transformed(name, value) for value in encoders[f"backbone_{name}"].to_numpy(dtype=float)]
        for name in INPUTS[question]
    ]
    return np.array(columns, dtype=float).T


def learn(encoders: pd.DataFrame, question: Relation) -> dict[str, float]:
    """Weights by ridge regression on differences within sets.

    The sets are runs for checkpoints, else all encoders of a data set. Every data set counts alike, for k-NN
    accuracies span 5 points on one and 50 on another.
    """
    trained = trained_ones(encoders, question)
    last = trained[trained.epoch == trained.epochs]
    of_data = [group for _, group in last.groupby(SAME_IMAGES)]
    groups = list(sets(encoders, question)) if question in OF_A_RUN else of_data
    x, y, data = [], [], []
    for group in groups:
        values, accuracy = inputs(group, question), 100 * group.knn.to_numpy(dtype=float)
        x.append(values - values.mean(0))
        y.append(accuracy - accuracy.mean())
        data += list(group["data"])
    a, b = np.concatenate(x), np.concatenate(y)
    spread = np.array([b[np.array(data) == name].std() for name in data])
    scale = a.std(0) + 1e-9
    gram = (a / scale).T @ (a / scale) + RIDGE * np.eye(a.shape[1])
    direction = np.linalg.solve(gram, (a / scale).T @ (b / spread)) / scale
    expected = a @ direction
    points = float(expected @ b / (expected @ expected))
    return dict(zip(INPUTS[question], (points * direction).tolist(), strict=True))


def unexplained(encoders: pd.DataFrame, question: Relation, weights: dict[str, float]) -> Unexplained | None:
    """What differences between two encoders have beyond what is expected, every data set alike.

    Least squares of `off^2 = 2 noise^2 + drift |expected|` over the pairs of every set; None without sets.
    """
    x, y, data = [], [], []
    for group in sets(encoders, question):
        expected = inputs(group, question) @ np.array([weights[name] for name in INPUTS[question]])
        accuracy = 100 * group.knn.to_numpy(dtype=float)
        one, other = np.triu_indices(len(group), 1)
        apart = expected[one] - expected[other]
        x += np.abs(apart).tolist()
        y += ((accuracy[one] - accuracy[other] - apart) ** 2).tolist()
        data += [group["data"].iloc[0]] * len(one)
    if not x:
        return None
    alike = np.array([1 / data.count(name) for name in data]) ** 0.5
    design = np.stack([2 * np.ones(len(x)), np.array(x)], axis=1)
    noise, drift = nnls(design * alike[:, None], np.array(y) * alike)[0]
    return Unexplained(max(float(noise**0.5), LEAST_NOISE), float(drift))


def fitted(encoders: pd.DataFrame, question: Relation) -> Weights:
    """Weights for a question, and what they leave unexplained among the encoders that they were learnt on."""
    weights = learn(encoders, question)
    left = unexplained(encoders, question, weights) or Unexplained(1.0, 1.0)
    return Weights({question: weights}, {question: left})


def calibrated(encoders: pd.DataFrame, question: Relation, left: Unexplained) -> Unexplained:
    """Ends of intervals, and a spread, that hold what they say on methods that are left out.

    Once one half of the methods is left out, and once a data set with it, as for the judging, which count
    alike; the first alone errs to narrow intervals on new data, the second, which learns from few encoders,
    to wide ones. In every set that is left out the differences to the pick are in standard deviations.
    """
    ratios, alike, claims, kept = [], [], [], []
    ways = [list(way(encoders)) for way in (folds, folds_of_methods)]
    for (train, test), many in ((fold, len(way)) for way in ways for fold in way):
        found = list(sets(test, question))
        if not found or not any(True for _ in sets(train, question)):
            continue
        weights = fitted(train, question)
        for group in found:
            of = measures_of(group, question)
            ours = score_encoders(of, question, weights=weights)
            accuracy, points = 100 * group.knn.to_numpy(dtype=float), np.array(ours.points)
            others = np.arange(len(points)) != ours.pick
            off = accuracy - accuracy[ours.pick] - points
            ratios += (off / deviation(points, weights.unexplained[question]))[others].tolist()
            alike += [1 / many / len(found) / others.sum()] * int(others.sum())
            claims.append([_close(of, question, weights, spread) for spread in SPREADS])
            kept.append(off_the_best(accuracy, ours.pick) <= ours.within)
    if len(ratios) < FEWEST:
        return left
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(ratios, [tail, 1 - tail], weights=alike, method="inverted_cdf")
    claimed = np.mean(claims, axis=0)  # falls with the spread
    spread = float(np.exp(np.interp(np.mean(kept), claimed[::-1], np.log(SPREADS[::-1]))))
    return left._replace(low=min(float(low), 0.0), high=max(float(high), 0.0), spread=spread)


def _close(measures: list[dict[str, float]], question: Relation, weights: Weights, spread: float) -> float:
    left = weights.unexplained[question]._replace(spread=spread)
    return score_encoders(measures, question, weights=Weights(weights.of, {question: left})).close


def off_the_best(accuracy: Array, pick: int) -> float:
    """Points that the picked one has less than the best."""
    return float(accuracy.max() - accuracy[pick])


def learnt(encoders: pd.DataFrame) -> Weights:
    """Weights for all questions."""
    found = {question: fitted(encoders, question) for question in get_args(Relation)}
    left = {q: calibrated(encoders, q, weights.unexplained[q]) for q, weights in found.items()}
    return Weights({q: weights.of[q] for q, weights in found.items()}, left)


def halves(encoders: pd.DataFrame) -> tuple[Array, Array]:
    """The methods of some encoders in two halves, at random."""
    methods = np.random.default_rng(0).permutation(sorted(set(encoders.method)))
    return methods[::2], methods[1::2]


def folds_of_methods(encoders: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """What is learnt on, and what is left out: one half of the methods."""
    for half in halves(encoders):
        left_out = encoders.method.isin(half)
        yield encoders[~left_out], encoders[left_out]


def folds(encoders: pd.DataFrame) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """What is learnt on, and what is left out: a data set, and one half of the methods on it."""
    for data in sorted(set(encoders["data"])):
        for half in halves(encoders):
            left_out = (encoders["data"] == data) & encoders.method.isin(half)
            yield encoders[(encoders["data"] != data) & ~encoders.method.isin(half)], encoders[left_out]


def regret(group: pd.DataFrame, scores: Array) -> float:
    """Points lost by taking the highest score; what has none is not taken."""
    accuracy = 100 * group.knn.to_numpy(dtype=float)
    place = int(np.nanargmax(scores)) if np.isfinite(scores).any() else int(accuracy.argmin())
    return off_the_best(accuracy, place)


def sound_ones(group: pd.DataFrame) -> pd.DataFrame:
    """What `fullrank pick` chooses among: no collapse by its verdict, where there is one without."""
    sound = group[group.verdict.isin(SOUND)]
    return sound if len(sound) else group


def measures_of(group: pd.DataFrame, question: Relation) -> list[dict[str, float]]:
    """What `score_encoders` takes."""
    columns = {name: group[f"backbone_{name}"].astype(float) for name in INPUTS[question]}
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def compare(encoders: pd.DataFrame, more: dict[str, ScoreFunction]) -> dict[str, Any]:
    """Regrets of all scores on what is left out, and how well ours knows what it does not know."""
    found: dict[str, Any] = {"encoders": int(encoders.groupby(RUN).ngroups)}
    for question in get_args(Relation):
        lost: dict[str, list[float]] = {name: [] for name in ("fullrank pick", LABELLED, *SCORES, *more)}
        claimed: list[tuple[float, bool]] = []
        covered: list[bool] = []
        for train, test in folds(encoders):
            weights = learnt(train)
            for group in sets(test, question):
                sound = sound_ones(group)
                ours = score_encoders(measures_of(sound, question), question, weights=weights)
                accuracy = 100 * sound.knn.to_numpy(dtype=float)
                best = 100 * group.knn.max()
                lost["fullrank pick"].append(float(best - accuracy[ours.pick]))
                claimed.append((ours.close, lost["fullrank pick"][-1] <= ours.within))
                lost[LABELLED].append(regret(group, group["linear"].to_numpy(dtype=float)))
                apart = accuracy - accuracy[ours.pick]
                inside = (np.array(ours.low) <= apart) & (apart <= np.array(ours.high))
                covered += np.delete(inside, ours.pick).tolist()
                for name, score in {**SCORES, **more}.items():
                    lost[name].append(regret(group, score(group.drop(columns=["knn", "linear"]))))
        found[question] = {
            "sets": len(claimed),
            "regret": {
                name: {
                    "median": float(np.median(values)),
                    "mean": float(np.mean(values)),
                    "p90": float(np.percentile(values, 90)),
                }
                for name, values in lost.items()
                if values
            },
            "claimed": float(np.mean([close for close, _ in claimed])) if claimed else None,
            "kept": float(np.mean([right for _, right in claimed])) if claimed else None,
            "covered": float(np.mean(covered)) if covered else None,
        }
    return found


def table(found: dict[str, Any]) -> str:
    """The leaderboard in Markdown."""
    lines = []
    for question, words in QUESTIONS.items():
        of_sets = found[question]
        lines += [
            f"**{words[0].upper()}{words[1:]}**: points of accuracy lost, {of_sets['sets']} sets left out",
            "",
            "| picked by | median | 90th percentile | mean |",
            "|---|---|---|---|",
        ]
        ranked = sorted(of_sets["regret"].items(), key=lambda item: item[1]["mean"])
        for name, lost in ranked:
            shown = {"fullrank pick": f"**{name}**", LABELLED: f"*{name}*"}.get(name, name)
            lines.append(f"| {shown} | {lost['median']:.2f} | {lost['p90']:.2f} | {lost['mean']:.2f} |")
        lines += [
            "",
            f"Said to be within a point of the best: {100 * of_sets['claimed']:.0f} % on average; were: "
            f"{100 * of_sets['kept']:.0f} %. Of 90 % intervals {100 * of_sets['covered']:.0f} % held.",
            "",
        ]
    return "\n".join(lines).rstrip()


def read_entry(file: Path) -> dict[str, ScoreFunction]:
    """The function `score` of a file, by the file's name."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise SystemExit(f"{file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return {file.stem: module.score}


def between_marks(text: str, new: str, mark: str = "leaderboard") -> str:
    """The text with what stands between two marks replaced."""
    first, last = f"<!-- {mark} -->", f"<!-- end of {mark} -->"
    before, _, rest = text.partition(first)
    _, _, after = rest.partition(last)
    return f"{before}{first}\n{new}\n{last}{after}"


def with_verdicts(encoders: pd.DataFrame, judged: pd.DataFrame) -> pd.DataFrame:
    """Checkpoints with the verdict on their backbone, from the table of benchmarks/encoders."""
    at = [*RUN, "epoch"]
    # an audit's, as `fullrank pick` judges each candidate alone
    kinds = judged[judged.tap == "backbone"][[*at, "kind_alone"]].rename(columns={"kind_alone": "verdict"})
    found = encoders.merge(kinds, on=at, how="left")
    if found.verdict.isna().any():
        raise SystemExit("benchmarks/encoders/encoders.parquet lacks encoders of the table: measure both")
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Print the leaderboard; learn and write what is asked for."""
    import pandas as pd

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, default=HERE / "checkpoints.parquet")
    parser.add_argument("--entry", type=Path)
    parser.add_argument("--learn", action="store_true")
    parser.add_argument("--write", type=Path)
    args = parser.parse_args(words)
    encoders = pd.read_parquet(args.table)
    if "verdict" not in encoders:
        encoders = with_verdicts(encoders, pd.read_parquet(HERE.parent / "encoders" / "encoders.parquet"))
    found = compare(encoders, read_entry(args.entry) if args.entry else {})
    print(table(found))
    if args.learn:
        weights = learnt(encoders)
        left = {question: each._asdict() for question, each in weights.unexplained.items()}
        content = {"weights": weights.of, "unexplained": left, "encoders": found["encoders"]}
        file = Path(label_free_score.__file__).with_suffix(".json")
        file.write_text(json.dumps(content, indent=1) + "\n")
    if args.write:
        args.write.write_text(between_marks(args.write.read_text("utf-8"), table(found)), "utf-8")
    (HERE / "leaderboard.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
