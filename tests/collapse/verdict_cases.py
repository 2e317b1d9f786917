"""Made clouds of every kind, some at a border: panel, evidence, verdict, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch

from collapse.inputs import drawn
from fullrank.collapse import CodeUsage, Moments, Panel, Thresholds, judge, judge_codes
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.collapse.trend import warnings
from fullrank.collapse.verdict import as_verdict
from recorded import Case

Rows = torch.Tensor


def randn(*shape: int, seed: int = 0) -> Rows:
    """Normal numbers, drawn in double precision: those of single precision differ between processors."""
    return drawn(*shape, seed=seed).float()


def power_law(a: float, n: int, d: int) -> Rows:
    return randn(n, d) * torch.arange(1, d + 1) ** (-a / 2)


def points(count: int, n: int, d: int, spread: float, seed: int = 0) -> Rows:
    """Rows around centres, `spread` apart from them."""
    return randn(count, d, seed=seed)[torch.arange(n) % count] + spread * randn(n, d, seed=seed + 1)


def with_rows(z: Rows, count: int, far: Rows | float) -> Rows:
    """The first rows replaced, or moved far out."""
    z = z.clone()
    z[:count] = far if isinstance(far, Rows) else far * z[:count]
    return z


def even_rest(directions: int, strength: float, n: int, d: int) -> Rows:
    scale = torch.ones(d)
    scale[:directions] = strength
    return randn(n, d) * scale


def bottleneck(width: int, n: int, d: int) -> Rows:
    return torch.relu(randn(n, width) @ randn(width, width, seed=1)) @ randn(width, d, seed=2)


def quantised(n: int, d: int, values: int) -> Rows:
    return (randn(n, d) * values / 6).round() * 6 / values


def one_sided(n: int, d: int) -> Rows:
    return torch.relu(randn(n, d) + 0.5)


CLOUDS: dict[str, Rows] = {
    "Gaussian": randn(400, 16),
    "few rows": randn(60, 128),
    "rows twice the width": randn(64, 32),
    "two directions": randn(300, 2) @ randn(2, 24, seed=1),
    "one direction": randn(300, 1) @ randn(1, 24, seed=1),
    **{f"power law of {a}": power_law(a, 600, 48) for a in (1.0, 2.0, 2.6, 2.8, 3.0, 3.4, 5.0)},
    **{f"power law of {a}, few rows": power_law(a, 100, 160) for a in (1.0, 2.5, 3.5)},
    "a constant": torch.full((200, 4), 0.5),
    "zeros": torch.zeros(100, 8),
    **{f"mean of {mean}": randn(300, 16) + mean for mean in (3.0, 10.0, 18.0, 22.0, 60.0)},
    "a ray": (1 + randn(300, 1).abs()) * (torch.ones(1, 16) + 0.01 * randn(300, 16, seed=1)),
    "lengths of all sizes": randn(300, 16) * randn(300, 1, seed=1).exp().square(),
    **{f"{count} points": points(count, 480, 24, 0.001) for count in (2, 3, 8, 49, 60, 150)},
    **{f"8 clusters, spread {s}": points(8, 480, 24, s) for s in (0.05, 0.15, 0.25, 0.3, 0.35, 0.45)},
    "8 exact points": points(8, 480, 24, 0.0),
    "clusters in a plane": points(5, 300, 2, 0.01),
    "clusters of directions": points(6, 480, 24, 0.01) * randn(480, 1, seed=5).exp(),
    **{f"one point and {left} others": with_rows(1e-3 * randn(400, 24) + 1, left, randn(left, 24, seed=3))
       for left in (60, 100, 130)},
    **{f"{copies} of 400 are one row": with_rows(randn(400, 16), copies, torch.ones(16))
       for copies in (3, 4, 40, 280, 300, 310, 360)},
    "each row three times": randn(130, 16).repeat(3, 1),
    **{f"{far} of 400 far out": with_rows(randn(400, 16), far, 300.0) for far in (1, 5, 20, 21, 30, 45, 90)},
    "far from one point": with_rows(torch.ones(100, 8), 3, randn(3, 8)),
    "heavy tails": randn(400, 16) / randn(400, 1, seed=1).abs(),
    "very heavy tails": randn(400, 16) / randn(400, 1, seed=1).abs().pow(3),
    **{f"{off} rows off a plane": with_rows(randn(400, 2) @ randn(2, 64, seed=1), off, randn(off, 64, seed=2))
       for off in (1, 4, 20, 24, 32, 50)},
    "dead dimensions": randn(400, 24) * (torch.arange(24) % 3 == 0),
    "one dead dimension": randn(400, 24) * (torch.arange(24) > 0),
    "twin dimensions": torch.cat([randn(400, 12), -2 * randn(400, 12)], dim=1),
    "one sided": one_sided(400, 24),
    **{f"{values} values": quantised(600, 16, values) for values in (2, 16, 250)},
    "integers": (20 * randn(200, 8)).round().long(),
    "layer of 40": bottleneck(40, 400, 128),
    "layer of 33": bottleneck(33, 300, 64),
    **{f"{k} directions {s} times as strong": even_rest(k, s, 400, 40)
       for k, s in ((1, 25.0), (1, 32.0), (1, 100.0), (4, 40.0), (4, 200.0), (31, 90.0))},
    "one number a row": randn(200, 1),
    "one sign a row": randn(200, 1).abs() + 3,
    "two numbers a row": randn(200, 2),
    "31 rows": randn(31, 8),
    "32 rows": randn(32, 8),
    "seven rows": randn(7, 8),
    "a tight beginning": torch.cat([0.01 * randn(300, 3), randn(6000, 3, seed=1)]),
    "a wide end": torch.cat([0.01 * randn(9000, 3), randn(4500, 3, seed=1)]),
    "wide rows": randn(300, 96) * torch.linspace(2, 0.1, 96),
    "double precision": randn(200, 12).double() * 1e-6 + 1,
}  # fmt: skip


def seen(rows: Rows, **options: Any) -> EmbeddingStatistics:
    found = EmbeddingStatistics(rows.shape[1], **options)
    for part in rows.split(170):
        found.update(part)
    found.finish()
    return found


def panel_of(rows: Rows, narrowest: int | None = None, tap: str = "rows") -> Panel:
    views = randn(50, rows.shape[1], seed=7)
    pairs = views, views + 0.5 * randn(50, rows.shape[1], seed=8)
    return Panel.from_statistics(tap, seen(rows), pairs, narrowest)


def judged(
    rows: Rows,
    narrowest: int | None = None,
    past: Sequence[Rows] = (),
    thresholds: Mapping[str, float] | None = None,
    trained: bool = True,
) -> dict[str, Any]:
    """Everything that a panel and its verdict say."""
    panel, history = panel_of(rows, narrowest), [panel_of(each, narrowest) for each in past]
    borders = Thresholds(**(thresholds or {}))  # type: ignore[arg-type]
    verdict = judge(panel, history, borders, trained)
    again = judge(Panel.from_dict(panel.as_dict()), history, borders, trained)
    said = verdict.as_dict()
    return {
        "panel": {key: each for key, each in panel.as_dict().items() if key != "measures"},
        "spectra": panel.spectra,
        "verdict": [said["kind"], said["severity"], said["probability"]],
        "evidence": {each.metric: list(vars(each).values())[1:] for each in verdict.evidence},
        "blemishes": [[odd.name, odd.value, odd.of, odd.says] for odd in verdict.blemishes],
        "words": [str(verdict), verdict.phrase, repr(panel), *str(panel).splitlines()],
        "border": [verdict.near_border, verdict.collapsed, panel.possible],
        "ways": [[each.weight, each.n, each.says, list(each.values.values())] for each in panel.hypotheses],
        "warnings": warnings(panel, history, borders),
        "from JSON": [again == verdict, as_verdict(said).phrase],
    }


def statistics(rows: Rows, **options: Any) -> dict[str, Any]:
    """What a pass over rows keeps."""
    found = seen(rows, **options)
    return {
        "facts": found.facts, "outliers": found.outlier_rows, "count": found.count,
        "alternatives": found.alternatives, "places": found.sample.places, "sample": found.sample.rows,
        "sketch": found.sketch.rows, "mean": found.moments.mean, "rows": found.moments.count,
        "scatter": found.moments.scatter, "middle": found.middle,
    }  # fmt: skip


HISTORIES: dict[str, tuple[Rows, list[Rows]]] = {
    "level falls": (randn(300, 16) + 7, [randn(300, 16) + mean for mean in (0.0, 1.0, 4.0)]),
    "level falls by less": (randn(300, 16) + 3, [randn(300, 16) + mean for mean in (1.5, 2.0, 2.5)]),
    "level is low and always was": (randn(300, 16) + 7, [randn(300, 16) + 7]),
    "level halves": (randn(300, 16) + 4, [randn(300, 16) + mean for mean in (0.5, 1.0, 2.0)]),
    "level rises": (randn(300, 16) + 1, [randn(300, 16) + mean for mean in (4.0, 3.0, 2.0)]),
    "rank falls": (power_law(2.7, 400, 32), [power_law(a, 400, 32) for a in (0.0, 1.0, 2.0)]),
    "rank falls fast": (power_law(2.5, 400, 32), [power_law(a, 400, 32) for a in (0.0, 0.5, 1.5)]),
    "rank falls by less": (power_law(1.0, 400, 32), [power_law(a, 400, 32) for a in (0.8, 0.9)]),
    "rank falls after a constant": (power_law(2.7, 400, 32), [randn(400, 32) + 90.0]),
    "rank rises": (power_law(2.0, 400, 32), [power_law(a, 400, 32) for a in (3.0, 2.5)]),
    "another width before": (randn(300, 16) + 7, [randn(300, 17)]),
    "other numbers of rows before": (power_law(2.8, 100, 32), [randn(900, 32)]),
}


def codes(scores: Rows, trained: bool = True, **thresholds: float) -> dict[str, Any]:
    usage = CodeUsage(scores.shape[1])
    for part in scores.split(70):
        usage.update(part)
    verdict = judge_codes(usage.result(), "codes", Thresholds(**thresholds), trained)  # type: ignore[arg-type]
    return {"usage": usage.result(), "verdict": verdict.as_dict(), "words": str(verdict)}


def _use(count: int, n: int, codes_: int, sharp: float) -> Rows:
    return sharp * torch.eye(codes_)[torch.arange(n) % count] + 0.1 * randn(n, codes_)


SCORES: dict[str, Rows] = {
    "all alike": torch.zeros(100, 16),
    **{f"{count} of 64 codes": _use(count, 200, 64, 20.0) for count in (1, 2, 3, 4, 10, 64)},
    **{f"sharpness {sharp}": _use(16, 200, 16, sharp) for sharp in (0.05, 0.3, 1.0, 3.0, 8.0)},
    "one code is often first": torch.cat([_use(1, 104, 16, 20.0), _use(16, 96, 16, 20.0)]),
    "two codes": _use(2, 100, 2, 9.0),
    "one of two codes": _use(1, 100, 2, 9.0),
    "more codes than images": _use(30, 40, 300, 20.0),
    "31 images": _use(16, 31, 16, 9.0),
    "three codes": _use(3, 90, 3, 0.5),
}

BORDERS: dict[str, dict[str, float]] = {
    "level 0.6": {"level": 0.6}, "share 0.5": {"centred_share": 0.5}, "rows 401": {"fewest_rows": 401},
    "rows 400": {"fewest_rows": 400}, "decay 0.1": {"decay": 0.1}, "no widths": {
        "level_width": 0, "copies_width": 0, "jump_width": 0, "within_width": 0, "decay_width": 0},
    "jump 0": {"jump": 0.0}, "all zero": {"level": 0, "centred_share": 0, "falling_level": 0, "decay": 0},
}  # fmt: skip

CASES: dict[str, Case] = {name: partial(judged, rows) for name, rows in CLOUDS.items()}
CASES |= {f"history: {name}": partial(judged, rows, None, past) for name, (rows, past) in HISTORIES.items()}
CASES |= {f"thresholds: {name}": partial(judged, CLOUDS["Gaussian"], None, (), of)
          for name, of in BORDERS.items()}  # fmt: skip
CASES |= {
    f"narrowest {width}": partial(judged, CLOUDS["wide rows"], width) for width in (1, 2, 24, 60, 96, 200)
}
CASES["untrained"] = partial(judged, CLOUDS["two directions"], trained=False)
CASES |= {
    f"statistics: {name}": partial(statistics, CLOUDS[name], capacity=40, stream=stream, first=first)
    for stream, (name, first) in enumerate({
        "Gaussian": 0, "5 of 400 far out": 100, "30 of 400 far out": 7, "4 rows off a plane": 3,
        "wide rows": 0, "integers": 0, "heavy tails": 0, "seven rows": 5, "layer of 40": 0,
        "a tight beginning": 0, "a wide end": 3,
    }.items())
}  # fmt: skip
CASES |= {f"codes: {name}": partial(codes, scores) for name, scores in SCORES.items()}
CASES["codes: untrained"] = partial(codes, SCORES["all alike"], trained=False)
CASES["codes: no width"] = partial(codes, SCORES["3 of 64 codes"], level_width=0.0, code_information=0.0)
CASES["moments alone"] = lambda: judge(Panel.from_moments("z", Moments.of(randn(300, 16)))).as_dict()
CASES["points alone"] = lambda: Panel.from_moments(
    "z", Moments.of(randn(300, 16)), points=randn(90, 16), sketch=randn(80, 8)
).as_dict()
