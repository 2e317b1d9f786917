"""What the verdict is worth on the encoders of encoders.parquet: tables and diagrams of docs/verdict.md.

Usage: python benchmarks/encoders/report.py [--table FILE] [--page docs/verdict.md]

What an encoder is does not depend on its verdict, but on how it was trained and on k-NN of its projector:

- healthy: nothing was taken from the method, and k-NN gained at least 0.035 over the untrained network;
- collapsed: what the method cannot do without was taken away and k-NN lost 0.035 and a fifth of what the
  untrained network has over chance; or something was half taken away and k-NN lost half of it;
- all others are left out: nobody can say.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from crossed import UNFALLEN, judged_on_grid, left_out_in_turn, with_codes
from scipy.stats import beta

from fullrank.collapse import Thresholds

HERE = Path(__file__).parent
CHANCE, GAIN, LOST, HALF = 0.1, 0.035, 0.8, 0.5
NO_COLLAPSE = ("half erased views", "views hardly changed")  # which lower what is learnt without any
LEFT_OUT = (
    "byol",
    "dino",
    "directcopy",
    "lejepa",
    "mocov3",
    "nnsiam",
    "rdm_byol",
    "simclr",
    "swav",
    "vicreg",
)
"""Methods whose encoders the borders were not fitted on."""
LATER, PHASED = 6, 12
"""First seeds of encoders that were trained after verdicts, and after phases were last changed."""
CHECKS: dict[str, tuple[str, Callable[[pd.DataFrame], pd.Series]]] = {
    "standard deviation of unit rows": ("level", lambda t: t.level),
    "RankMe, as published": ("rankme_published / d", lambda t: t.rankme_published / t.d),
    "RankMe of stable-pretraining": ("rankme_spt / d", lambda t: t.rankme_spt / t.d),
    "effective rank of MONAI": ("erank_eigenvalues / d", lambda t: t.erank_eigenvalues / t.d),
    "participation ratio": ("participation_ratio / d", lambda t: t.participation_ratio / t.d),
    "alpha-ReQ": ("-|alpha - 1|", lambda t: -(t.alpha_req - 1).abs()),
}
"""Simple checks: healthy above a threshold, the best one on the encoders that the borders were fitted on."""


def truths(last: pd.DataFrame) -> pd.Series:
    """What each encoder is: healthy, collapsed, or neither for certain."""
    gain = last.now_knn - last.untrained_knn
    kept = (last.now_knn - CHANCE) / (last.untrained_knn - CHANCE)
    fell = gain <= -GAIN
    broken = (last.group == "broken") & (kept <= LOST)
    half = (last.group == "halfway") & (kept <= HALF) & ~last.arm.isin(NO_COLLAPSE)
    healthy = (last.group != "broken") & (gain >= GAIN)
    return pd.Series(np.select([healthy, fell & (broken | half)], ["healthy", "collapsed"], "?"), last.index)


def runs(table: pd.DataFrame, alone: bool = False) -> pd.DataFrame:
    """A row a run and epoch: the projector's, with the verdict on its codes where that names a collapse.

    With `alone` the verdicts are those of an audit, which knows no panel before.
    """
    key = ["data", "method", "arm", "seed", "epoch"]
    rows = table[table.tap == "projector"].set_index(key).copy()
    if alone:
        rows["kind"], rows["probability"] = rows.kind_alone, rows.probability_alone
        rows["kind"], rows["phase"] = rows.kind.fillna("diverged"), ""
    other = table[table.tap == "codes"].set_index(key).reindex(rows.index)
    rows["codes_kind"] = other.kind.fillna("healthy")
    rows["codes_probability"] = other.probability.astype(float).fillna(0)
    return with_codes(rows).reset_index()


def with_kinds(rows: pd.DataFrame) -> pd.DataFrame:
    """Add the kinds that grid.yaml allows now; `kinds` are those of before the training."""
    grid = yaml.safe_load((HERE / "grid.yaml").read_text("utf-8"))["broken"]
    now = {arm: ",".join(how["kinds"]) for arm, how in grid.items()}
    broken = rows.group == "broken"
    return rows.assign(kinds_now=rows.arm.map(now).where(broken, rows.kinds))


def right(rows: pd.DataFrame, labels: str = "kinds_now") -> pd.Series:
    """Whether a verdict names what the encoder is, by kind where that is known.

    A run has verdicts on its projector and on its codes; either may name it, as in the failures lab.
    """
    named = [
        kind != "healthy" if not kinds or kinds == "healthy" else bool({kind, codes} & {*kinds.split(",")})
        for kind, codes, kinds in zip(rows.kind, rows.codes_kind, rows[labels], strict=True)
    ]
    return pd.Series(np.where(rows.truth == "healthy", rows.kind == "healthy", named), rows.index)


def calibration_error(rows: pd.DataFrame, bins: int = 10) -> float:
    """Mean distance of the probability from the share that has collapsed, over ten bins."""
    place = np.minimum((rows.probability * bins).astype(int), bins - 1)
    collapsed = rows.truth == "collapsed"
    parts = [(place == k) for k in range(bins)]
    errors = [
        part.mean() * abs(rows.probability[part].mean() - collapsed[part].mean())
        for part in parts
        if part.any()
    ]
    return float(sum(errors))


def of_chance(rows: pd.DataFrame, draws: int = 400) -> float:
    """What the calibration error of these probabilities would be on average, were each of them true."""
    random = np.random.default_rng(0)
    truths = random.random((draws, len(rows))) < rows.probability.to_numpy(float)
    errors = [calibration_error(rows.assign(truth=np.where(draw, "collapsed", "healthy"))) for draw in truths]
    return float(np.mean(errors))


def share(true: pd.Series, interval: bool = True) -> str:
    """A share and its 95 % interval (Clopper and Pearson)."""
    k, n = int(true.sum()), len(true)
    low = beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{k / n:.1%}" + f" ({100 * low:.1f} to {100 * high:.1f})" * interval


def best_threshold(values: pd.Series, healthy: pd.Series) -> float:
    """The threshold above which most encoders that are healthy lie, and below which the others do."""
    candidates = np.unique(values.dropna())
    return float(max(candidates, key=lambda t: ((values >= t) == healthy).mean()))


def compared(fitted: pd.DataFrame, left_out: pd.DataFrame) -> pd.DataFrame:
    """Ours and simple checks: right, healthy accused, collapsed missed, on encoders left out."""

    def row(name: str, says_healthy: pd.Series) -> dict[str, object]:
        healthy = left_out.truth == "healthy"
        return {
            "check": name,
            "right": share(says_healthy == healthy, interval=False),
            "healthy accused": share((~says_healthy)[healthy], interval=False),
            "collapsed missed": share(says_healthy[~healthy], interval=False),
        }

    found = [row("**the verdict**", left_out.kind == "healthy")]
    for name, (what, value) in CHECKS.items():
        threshold = best_threshold(value(fitted), fitted.truth == "healthy")
        found.append(
            row(f"{name} (`{what}` ≥ {threshold:.3g})", value(left_out).fillna(-np.inf) >= threshold)
        )
    return pd.DataFrame(found)


def delays(rows: pd.DataFrame) -> pd.DataFrame:
    """Epochs from the start to the first verdict of a collapse, and to the first loss in k-NN."""
    found = []
    for name, run in rows[rows.ends == "collapsed"].groupby(["data", "method", "arm", "seed"]):
        run = run[run.epoch > 0].sort_values("epoch")
        kept = (run.now_knn - CHANCE) / (run.untrained_knn - CHANCE)
        said, fell = run.epoch[run.kind != "healthy"], run.epoch[kept <= LOST]
        found.append({"run": name, "said": said.min(), "fell": fell.min()})
    return pd.DataFrame(found)


def summary(columns: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """The bars: collapsed or not, by kind, false accusations, calibration."""

    def column(rows: pd.DataFrame) -> list[str]:
        healthy, called = rows.truth == "healthy", rows.kind == "healthy"
        return [
            str(len(rows)),
            share(called == healthy),
            share(right(rows)),
            share(right(rows, "kinds")),
            share((~called)[healthy]),
            share((~called & (rows.phase != "transient"))[healthy]),
            share(called[~healthy]),
            f"{calibration_error(rows):.3f}",
            f"{of_chance(rows):.3f}",
        ]

    names = ["encoders", "collapsed or not: right", "by kind: right"]
    names += ["by kind as expected before training", "healthy accused"]
    names += ["healthy accused of a lasting collapse", "collapsed missed"]
    names += ["calibration error of the probability", "the same, were each probability true"]
    return pd.DataFrame({"": names, **{name: column(rows) for name, rows in columns.items()}})


def crossed(table: pd.DataFrame, known: pd.DataFrame) -> str:
    """The same with each method left out in turn, and what was fitted then."""
    grid = judged_on_grid(table, known, UNFALLEN)
    held = Thresholds().unfallen
    alone, widths = left_out_in_turn({fit: rows for fit, rows in grid.items() if fit[0] == held})
    both, fits = left_out_in_turn(grid)
    judged = {
        "as it is": known,
        "width refitted": alone,
        "width and addition refitted": both,
    }
    return "\n".join(
        [
            f"Each of {len(fits)} methods left out in turn, all certain encoders, (95 % intervals):\n",
            markdown(summary(judged)),
            f"\nFitted widths: {spread(width for _, width in widths.values())}. Both: "
            f"widths {spread(width for _, width in fits.values())}, "
            f"additions {spread(addition for addition, _ in fits.values())}.\n",
        ]
    )


def spread(values: Iterable[float]) -> str:
    """Values and how often each, the least first."""
    return ", ".join(f"{value:g} ({times} times)" for value, times in sorted(Counter(values).items()))


def plot(rows: pd.DataFrame, folder: Path) -> None:
    """Reliability diagram, and the score of every encoder."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    figure, (left, middle) = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    bins = np.linspace(0, 1, 6)
    place = np.clip(np.digitize(rows.probability, bins) - 1, 0, 4)
    collapsed = (rows.truth == "collapsed").to_numpy()
    for k in range(5):
        part = place == k
        if part.any():
            left.scatter(
                rows.probability[part].mean(), collapsed[part].mean(), s=20 + 3 * part.sum(), color="#0072b2"
            )
            left.annotate(str(part.sum()), (rows.probability[part].mean(), collapsed[part].mean()),
                          textcoords="offset points", xytext=(8, -10), fontsize=8)  # fmt: skip
    left.plot([0, 1], [0, 1], color="#999999", lw=1)
    left.set(xlabel="probability of a collapse", ylabel="share that has collapsed", title="Reliability")
    for truth, colour in (("healthy", "#009e73"), ("collapsed", "#d55e00")):
        part = rows[rows.truth == truth]
        body = part[["exponent_participation_ratio", "exponent_erank_centred"]].min(axis=1)
        middle.scatter(part.exponent_rankme_unit, body, s=14, color=colour, label=truth, alpha=0.8)
    middle.set(xlabel="exponent of RankMe of unit rows", ylabel="lesser of head and body", title="Spectra")
    middle.legend(frameon=False)
    figure.savefig(folder / "verdict.png", dpi=130)


def markdown(table: pd.DataFrame) -> str:
    """A table for a page."""
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1], *table.astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def confusion(rows: pd.DataFrame) -> pd.DataFrame:
    """Verdicts by what the encoders are."""
    return pd.crosstab(rows.truth, rows.kind)


def at_the_end(rows: pd.DataFrame) -> pd.DataFrame:
    """Runs after their last epoch, with what they are."""
    last = rows[rows.epoch == rows.epochs].copy()
    return last.assign(truth=truths(last))


def main() -> None:
    """Print the tables, and write them into the page between its marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, default=HERE / "encoders.parquet")
    parser.add_argument("--page", type=Path, default=HERE.parents[1] / "docs" / "verdict.md")
    args = parser.parse_args()
    table = pd.read_parquet(args.table)
    rows = with_kinds(runs(table))
    last = at_the_end(rows)
    known, alone = (
        each[each.truth != "?"] for each in (last, at_the_end(with_kinds(runs(table, alone=True))))
    )
    fitted, left_out = known[~known.method.isin(LEFT_OUT)], known[known.method.isin(LEFT_OUT)]
    key = ["data", "method", "arm", "seed"]
    ends = last.set_index(key).truth
    delay = delays(rows.assign(ends=[ends.get(tuple(k), "?") for k in rows[key].itertuples(index=False)]))
    healthy = (known.truth == "healthy").sum()
    split = {"fitted": fitted, "left out": left_out}
    split["of these, trained after verdicts were last changed"] = left_out[left_out.seed >= LATER]
    split["after phases were last changed, too"] = left_out[left_out.seed >= PHASED]
    split["left out, by an audit"] = alone[alone.method.isin(LEFT_OUT)]
    columns = ["untrained_knn", "now_knn", "truth", "kind", "probability"]
    figures = [
        f"{len(last)} encoders, {len(known)} of which are certainly healthy ({healthy}) or collapsed "
        f"({len(known) - healthy}); {len(left_out)} of these are of methods left out of the fit.\n",
        markdown(summary(split)),
        f"\n{crossed(table, known)}",
        f"\nOf {len(delay)} collapsed runs {int(delay.said.notna().sum())} were named at a panel; "
        f"{int((delay.said <= delay.fell).sum())} no later than k-NN had lost a fifth, "
        f"{int((delay.said < delay.fell).sum())} before.\n",
        "Simple checks, each with the threshold that is best on the fitted encoders, on those left out:\n",
        markdown(compared(fitted, left_out)),
        "\nVerdicts on all that are certain:\n",
        markdown(confusion(known).reset_index()),
        "\nNamed otherwise:\n",
        markdown(known[~right(known)][[*key, *columns]].round(2)),
    ]
    text = "\n".join(figures)
    print(text)
    plot(known, args.page.parent / "figures")
    if args.page.exists():
        page = args.page.read_text("utf-8")
        begin, end = "<!-- encoders: begin -->\n", "<!-- encoders: end -->"
        before, after = page.split(begin)[0], page.split(end)[1]
        args.page.write_text(f"{before}{begin}{text}\n{end}{after}", "utf-8")


if __name__ == "__main__":
    main()
