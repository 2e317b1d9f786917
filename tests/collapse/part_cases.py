"""Parts that measures and verdicts are made of: k-means, samples, intervals, scores, advice, audits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any, get_args

import numpy as np
import torch

from collapse.inputs import drawn
from collapse.metric_cases import _or_error
from collapse.verdict_cases import CLOUDS, points, randn
from fullrank.collapse import CollapseMonitor, Moments, Thresholds, Verdict, cumulative_curve
from fullrank.collapse.alternatives import Alternative
from fullrank.collapse.audit import audit
from fullrank.collapse.blemishes import ADVICE, Blemish, RowFacts, blemishes, of_living, with_outlier_rows
from fullrank.collapse.decay import corrected, decay_of, exponent, reading, readings
from fullrank.collapse.diagnostics import diagnose, predictor_spectrum
from fullrank.collapse.kmeans import in_fixed_order, kmeans, sample_kmeans, squared_distances
from fullrank.collapse.label_free import label_free_measures
from fullrank.collapse.label_free_score import Relation, read_weights, score_encoders, transformed
from fullrank.collapse.leave_one_out import Removal, roots_below
from fullrank.collapse.metrics import METRICS
from fullrank.collapse.metrics._spectrum import isotropic_singular_values, relative_spectrum
from fullrank.collapse.metrics.clusters import directions, project
from fullrank.collapse.metrics.codes import unique_prototypes
from fullrank.collapse.metrics.gaussian import sigreg, standardised_rows, visreg_centre
from fullrank.collapse.metrics.mixture import (
    component_entropies,
    entropy_by_sampling,
    fit_mixture,
    legacy_log_spectrum,
    log_density,
    scale_and_pad,
)  # fmt: skip
from fullrank.collapse.metrics.ranks import matrix_entropy
from fullrank.collapse.metrics.views import lidar_eigenvalues
from fullrank.collapse.nearest_rows import middle_of, more, nearest_rows
from fullrank.collapse.peers import Peers
from fullrank.collapse.phase import with_phase
from fullrank.collapse.row_sums import RowSums
from fullrank.collapse.sampling import Copies, Reservoir, row_hash, row_keys
from fullrank.collapse.similarity import linear_cka, neighbour_sets, shared_neighbours, view_coherence
from fullrank.collapse.spectrum_ends import abrupt_end, standing_out
from fullrank.collapse.statistics import beside, off_plane
from fullrank.collapse.taps import with_differing_tap
from fullrank.collapse.thresholds import beyond
from fullrank.collapse.treatments import PROOFS, TREATMENTS, Proof, advice_on, changed_settings, ranked
from fullrank.collapse.verdict import Kind
from recorded import Case

Z = drawn(60, 6, seed=1) * torch.linspace(3, 0.3, 6).double() + 2
KINDS = ("healthy", "complete", "dimensional", "cluster", "intra-cluster", "uniform-assignment")


def clusterings() -> Iterator[Any]:
    rows = points(7, 500, 4, 0.6, seed=3)
    for k, seed, restarts, steps in (
        (1, 0, 1, 3),
        (2, 1, 1, 300),
        (7, 0, 3, 300),
        (9, 5, 1, 2),
        (40, 2, 1, 50),
    ):
        yield kmeans(rows.double(), k, seed=seed, restarts=restarts, steps=steps)
    yield kmeans(rows.double(), 4, tolerance=0.0)
    yield kmeans(rows.double(), 4, tolerance=0.2)
    yield kmeans(rows.double(), 3, start=rows[:3].double() + 1, steps=1)
    yield kmeans(rows[:5].double(), 5)
    yield from (
        sample_kmeans(rows.double(), k, seed, steps) for k, seed, steps in ((3, 0, 50), (7, 2, 1), (5, 1, 0))
    )
    yield sample_kmeans(rows[:2].double().repeat(3, 1), 4)
    yield squared_distances(rows[:3], rows[3:5]), in_fixed_order(rows[:6].double())


def _settled(rows: torch.Tensor) -> RowSums:
    sums = RowSums.of(rows[:20])
    sums.add(rows[20:33])
    other = RowSums.of(rows[33:])
    sums.merge(other)
    return sums


def sums_of_rows() -> Iterator[Any]:
    wide = drawn(9, 40, seed=2)
    for rows in (Z, Z + 1e6, wide, wide + 50, Z[:1], torch.ones(5, 3).double(), Z * 1e-9 + 1, wide[:1]):
        sums = _settled(rows) if len(rows) > 40 else RowSums.of(rows)
        yield {name: getattr(sums, name) for name in (
            "count", "total", "mean", "scatter", "scatters", "outer", "squares", "outer_norm_squared",
            "second_moment", "constant", "covariance", "variances", "centred_share")}  # fmt: skip
        yield [sums.singular_values(), sums.singular_values(centred=False)]
        yield [sums.decomposed(centred, rows[:4]) for centred in (True, False) if not sums.constant]
    moments = Moments.of(Z.float())
    yield moments.state_dict()
    counts, means = torch.tensor([60.0, 0.0, 20.0]).double(), Z[:3]
    moments.merge_means(counts, means, means.flip(1))
    yield moments.count, moments.mean, moments.scatter


def rows_left_out() -> Iterator[Any]:
    for rows in (Z, drawn(9, 40, seed=2), Z + 100, Z[:, :1], Z[:3]):
        removal = Removal(Moments.of(rows), rows[:5])
        yield removal.centred.round(4), removal.uncentred.round(4)
    yield roots_below(torch.tensor([9.0, 4.0, 1.0, 0.0]).double(), drawn(5, 4).square()).numpy().round(4)


def samples() -> Iterator[Any]:
    for capacity, stream, chunk in ((5, 0, 100), (5, 1, 7), (40, 2, 1), (200, 0, 30)):
        sample = Reservoir(2, capacity, stream)
        for part in torch.arange(200.0).reshape(100, 2).split(chunk):
            sample.add(part)
        yield sample.places.tolist()[:20], sample.rows, sample.count
    integers = torch.arange(-6, 6).reshape(4, 3)
    for z in (integers, integers.float(), integers.double() / 7, integers.half(), integers[:, :1]):
        yield [str(key) for key in row_hash(z).tolist()], [str(key) for key in row_keys([z, z]).tolist()]
    copies = Copies()
    for part in (torch.arange(1000) % 37).split(90):
        copies.add(row_hash(part[:, None]))
    yield copies.rows, copies.distinct, copies.most
    yield Peers(alone=True).kth_smallest(Z[:, 0].abs(), 17)


def neighbours() -> Iterator[Any]:
    for rows in (Z, Z + 1e7, Z.float(), 1e-6 * Z):
        yield [found.numpy() for found in nearest_rows(rows[:11], rows, 4)]
    yield nearest_rows(Z[:11], torch.cat([Z, Z[:9]]), 4)[0]
    yield middle_of(Z), [more(k, 100) for k in (1, 8, 16, 95)]


def decays() -> Iterator[Any]:
    values = {"erank_centred": 5.0, "rankme_unit": 6.5, "participation_ratio": 2.5, "numerical_rank": 11.0}
    for left, n, possible in product((None, *values), (20, 63, 64, 1000), (1, 2, 32)):
        yield decay_of({name: each for name, each in values.items() if name != left}, n, possible)
    yield [corrected(p, n) for p, n in product((1.0, 2.5, 30.0), (2, 3, 4, 5, 40))]
    for measure, n in product(("effective_rank", "participation_ratio"), (10, 31, 32, 500)):
        yield [exponent(measure, value, n, 16) for value in (0.5, 1.0, 3.0, 12.0, 16.0, 40.0)]
        yield [reading(measure, a, n, 16) for a in (0.0, 0.1, 2.9, 7.9, 9.0)], readings(measure, n, 16)


def ends() -> Iterator[Any]:
    flat = np.linspace(2, 1, 64)
    for k, rest, step, n in product((31, 32, 50), (3, 30), (1e-7, 0.03, 0.04), (38, 60, 1000)):
        yield abrupt_end(np.array([*flat[:k], *rest * [step]]), n)
    for k, strength, rest in product((1, 3, 31, 32), (20.0, 33.0, 50.0, 300.0), (5, 63)):
        yield standing_out(np.array([*k * [strength], *rest * [1.0]]))
    yield [standing_out(np.zeros(4)), standing_out(np.ones(1)), abrupt_end(np.empty(0), 5)]
    yield [beyond(v, b, w) for v, b, w in product((0.0, 1.0, 1.2), (1.0,), (0.0, 0.1, 1.0))]
    yield [beside(share) for share in (0.0, 0.01, 0.05, 0.08, 0.1, 0.3)]
    yield [
        isotropic_singular_values(n, d, c)
        for n, d, c in ((9, 4, True), (4, 9, False), (1, 3, True), (2, 2, True))
    ]
    yield relative_spectrum(np.array([1.0, 3.0]), 4), relative_spectrum(np.zeros(2))


def oddities() -> Iterator[Any]:
    """Blemishes at both sides of what they are told from."""
    plain = RowFacts(1000, 1000, 1)
    changes: list[dict[str, Any]] = [
        *(
            {"distinct": 1000 - copied, "most_copies": most}
            for copied, most in ((9, 2), (10, 2), (10, 3), (999, 1000))
        ),
        *({"outliers": out, "farthest": far} for out, far in ((1, 12.34), (2, 0.0), (1500, 1e6))),
        *({"off_plane": off} for off in (1, 2)),
        *({"far": far} for far in (1, 400)),
        *({"dead": dead} for dead in (1, 100, 101, 199, 200)),
        *({"twins": twins} for twins in (1, 2, 50)),
        *({"one_sided": sided, "dead": dead} for sided, dead in ((99, 0), (100, 0), (1, 199), (1, 198))),
        *({"values": values} for values in (2, 256)),
    ]
    for change in changes:
        facts = replace(plain, **change)
        found = blemishes(facts, 200, 200, None)
        yield found, of_living(found), facts.copied_share
    for narrowest, rank, clustered in product(
        (None, 100, 199, 200), (None, 24.9, 25.0, 49.8), (0.0, 0.19, 0.2)
    ):
        yield [str(odd) for odd in blemishes(plain, 200, 150, narrowest, clustered, rank)]
    for rank in (499.0, 500.0, 500.5, 501.0):
        yield [odd.as_dict() for odd in blemishes(plain, 600, 600, None, rank=rank)]
    odd = [
        Blemish("outliers", 5, 400, "5 rows", ""),
        Blemish("outliers", 1, 400, "more", ""),
        Blemish("far", 1, 2, "f", ""),
    ]
    for rows, name in product(
        ([], [7], [1, 2, 3], [1, 2, 3, 4], list(range(2000))), (None, "cat {}.png".format, "row {}".format)
    ):
        yield [each.says for each in with_outlier_rows(odd, rows, name)]
    yield ADVICE, RowFacts.from_dict({"n": 3, "distinct": 2, "most_copies": 2, "unknown": 1})


def rows_off_a_plane() -> Iterator[Any]:
    """Of widths and numbers of directions around the most that are looked for."""
    for n, d, k, off in product((63, 64, 200), (3, 4, 8, 9, 20, 130), (1, 2, 3, 5, 31, 32), (1, 29, 31)):
        if k < d:
            plane = drawn(n, k, seed=2) @ drawn(k, d, seed=3)
            plane[:off] = drawn(off, d, seed=4) * 2
            yield off_plane(plane).nonzero()[:, 0].sum()


def ways() -> Iterator[Any]:
    for rows, weight in ((Z, 0.3), (CLOUDS["4 directions 40.0 times as strong"], 0.6), (Z[:, :1], 1.0)):
        for unit in (False, True):
            found = Alternative.of(Moments.of(rows), weight, "said", unit)
            yield found, list(found.split(rows.shape[1]))
    low = Alternative(
        0.5, 90, {"erank_centred": 9.0, "rankme_unit": 8.0, "numerical_rank": None}, "", 1, 0.75
    )
    yield (
        list(low.split(64)),
        list(replace(low, signal=9).split(64)),
        list(replace(low, signal=8, says="x").split(64)),
    )


def phases() -> Iterator[Any]:
    sick = Verdict("dimensional", "z", "3 of 9; transient: before", probability=0.6)
    yield with_phase(Verdict("healthy", "z", "fine"), 1).phase
    for panels, progress, dip in product((1, 2, 3, 30), (None, 0.05, 0.1, 0.2, 0.21), (0.0, 0.1, 0.5)):
        yield with_phase(sick, panels, progress, dip).phase
    for now, best in product((None, 0.0, 0.6, 0.605, 0.606, 1.0), (None, 0.6)):
        yield with_phase(sick, 9, accuracy=now, best_accuracy=best).why
    for now, untrained in product((None, 0.59, 0.6), (None, 0.0, 0.57, 0.58, 0.59)):
        yield with_phase(sick, 9, accuracy=now, best_accuracy=0.6, untrained=untrained).why
    for before in (None, 0.6, 0.65, 0.651, 0.9):
        found = with_phase(sick, 9, before=before)
        yield found.why, found.phase, found.phrase, str(found)
    yield [_or_error(partial(with_phase, sick, 9, accuracy=accuracy)) for accuracy in (-0.01, 1.01)]


JUDGED: tuple[Kind, ...] = ("healthy", "cluster", "not decidable")


def taps() -> Iterator[Any]:
    for kinds in product(JUDGED, repeat=3):
        verdicts = {tap: Verdict(kind, tap, "") for tap, kind in zip("abc", kinds, strict=True)}
        yield {
            tap: [odd.says for odd in each.blemishes] for tap, each in with_differing_tap(verdicts).items()
        }
    yield with_differing_tap({"a": Verdict("healthy", "a", ""), "b": Verdict("cluster", "b", "")})


def borders() -> Iterator[Any]:
    """Verdicts near a border, whether they say so, and as JSON has them."""
    for kind, p in product(JUDGED, (None, 0.0, 0.24, 0.25, 0.5, 0.75, 0.76, 1.0)):
        verdict = Verdict(kind, "z", "why", (), 0.5, p)
        yield str(verdict), verdict.near_border, verdict.collapsed, verdict.as_dict()
    for bad in (-0.1, math.inf, math.nan, True, "0.1", None):
        yield _or_error(lambda bad=bad: Thresholds(level=bad))
    yield Thresholds(), Thresholds(level=0.0).levels()


def answers() -> Iterator[Any]:
    settings = {
        "lr": 4.0,
        "batch_size": 64,
        "epochs": 3,
        "options.tau_base": 0.9,
        "options.temperature": 0.01,
    }
    usual = {"lr": 0.5, "batch_size": 256, "options.tau_base": 0.99, "options.temperature": 0.1}
    for name, treatment in TREATMENTS.items():
        given = {**{need: settings.get(need, 1.0) for need in treatment.needs}, **settings, **treatment.where}
        given |= {each: 8 for each in treatment.changes if each not in given}
        proof = PROOFS.get(name)
        yield name, changed_settings(treatment, given, usual), changed_settings(treatment, {}, usual)
        yield str(proof), proof and proof.proven
    yield [found.name for found in ranked(TREATMENTS.values())]
    names = list(TREATMENTS)
    for cured, of, every in product((0, 1, 2, 4), (4, 9), (2, 3, 5)):
        known = {name: Proof(cured * (n % 2), of, 0.1 * n) for n, name in enumerate(names[::every])}
        yield [names.index(found.name) for found in ranked(TREATMENTS.values(), known)]
    proofs = [Proof(cured, of, 0.1 * cured - 0.1) for cured, of in ((1, 1), (2, 3), (2, 4), (3, 5), (3, 6))]
    yield [[proof.proven, str(proof)] for proof in proofs]
    yield {kind: [[found.name, found.standing, found.proof] for found in advice_on([kind])] for kind in KINDS}
    yield [found.name for found in advice_on(KINDS[1:3], most=2)]


def encoders() -> Iterator[Any]:
    image, noise = randn(40, 1, 6).double(), randn(40, 3, 6, seed=1).double()
    found = [label_free_measures(image + s * noise, rows) for s, rows in ((0.5, None), (1.0, Z), (3.0, None))]
    found += [label_free_measures(torch.ones(8, 2, 3)), label_free_measures(image + 1.05 * noise)]
    yield found
    relations = get_args(Relation)
    yield [score_encoders(found, relation, within) for relation in relations for within in (0.5, 1.0, 5.0)]
    yield score_encoders(found[:1]), read_weights()
    names, values = list(found[0]), (0.0, 0.001, 0.3, 0.997, 4.0, math.nan)
    yield [[name, transformed(name, value)] for name, value in product(names, values)]
    yield neighbour_sets(Z).sum(0), shared_neighbours(neighbour_sets(Z), neighbour_sets(Z.flip(1).square()))
    yield view_coherence(image + 0.7 * noise), linear_cka(Z, Z[:, :2].square()), linear_cka(Z, 0 * Z)


def diagnosed() -> Iterator[Any]:
    p = Z.flip(1) * 0.5 + 0.1 * drawn(60, 6, seed=4)
    yield predictor_spectrum(Z, p), predictor_spectrum(Z[:4], p[:4]), predictor_spectrum(0 * Z, p)
    found = diagnose(
        {"projector": Z, "predictor": p, "backbone": Z[:9]}, {"projector": (Z, p), "backbone": (Z[:2], p[:2])}
    )
    yield found.as_dict(), found.spectra, diagnose({"projector": Z}).as_dict()


def mixtures() -> Iterator[Any]:
    mixture = fit_mixture(points(3, 200, 4, 0.3).double(), 3, seed=1, iterations=7)
    yield mixture, log_density(Z[:5, :4], mixture), component_entropies(mixture.variances)
    yield (
        component_entropies(mixture.variances, 9),
        entropy_by_sampling(mixture, 50, 3, 2),
        entropy_by_sampling(mixture, 50, 1, 0),
    )
    yield (
        fit_mixture(Z, 2, tol=0.5),
        fit_mixture(Z, 2, floor=0.5),
        scale_and_pad(Z, 9),
        legacy_log_spectrum(Z, 8),
    )


def functions() -> Iterator[Any]:
    """What no metric passes on: curves, parts, options."""
    values = np.array([4.0, 2.0, 1.0, 0.0])
    yield (
        cumulative_curve(values),
        cumulative_curve(values, 6),
        [matrix_entropy(values, a, 5) for a in (0.5, 1.0, 3.0)],
    )
    yield unique_prototypes(Z[:12].float(), 0.2, 5), unique_prototypes(torch.cat([Z, Z[:3]]).float())
    yield (
        sigreg(Z, 9, 5, 2.0, 1),
        standardised_rows(Z),
        visreg_centre(Z),
        lidar_eigenvalues(Z.reshape(20, 3, 6), 0.01, False),
    )
    generator = torch.Generator().manual_seed(0)
    yield project(randn(5, 65), generator), directions(70, generator), project(randn(5, 64), generator)


def monitored() -> Iterator[Any]:
    monitor = CollapseMonitor(every=2, capacity=50, diagnostics_every=2)
    for epoch in range(4):
        z = randn(90, 12, seed=epoch) + 2.0**epoch
        yield monitor.step({"projector": z, "codes": z, "one": z[:1]})
        for part in (z[:40], z[40:]):
            taps = {
                "backbone": part.repeat(1, 2),
                "projector": part,
                "predictor": part.flip(1) / 2,
                "target": part + 1,
            }
            monitor.observe(taps | {"codes": 9 * part}, {"projector": (part, part + 0.1 * part.flip(0))})
        report = monitor.close(trained=epoch > 0)
        said = report.as_dict()
        yield {key: said.get(key) for key in ("usage", "warnings", "diagnostics", "rank_difference")}
        yield {tap: str(verdict) for tap, verdict in report.verdicts.items()}, str(report).splitlines()
    yield {tap: [panel.value("level") for panel in panels] for tap, panels in monitor.history.items()}


def audited(**options: Any) -> Any:
    result = audit(**options)
    found = {key: value for key, value in result.as_dict().items() if key not in ("seconds", "evidence")}
    return found | {"places": result.places, "sample": result.sample}


def _listed(part: Callable[[], Iterator[Any]]) -> list[Any]:
    return list(part())


_PARTS = (
    clusterings, sums_of_rows, rows_left_out, samples, neighbours, decays, ends, oddities,
    rows_off_a_plane, ways, phases, taps, borders, answers, encoders, diagnosed, mixtures,
    functions, monitored,
)  # fmt: skip
CASES: dict[str, Case] = {part.__name__: partial(_listed, part) for part in _PARTS}
LABELS = [5 * (row % 3) for row in range(90)]
_FAR = randn(90, 5) * torch.where(torch.arange(90) == 41, 1e4, 1.0)[:, None]
CASES |= {
    "audit": lambda: audited(rows=points(3, 90, 5, 0.7), labels=LABELS, sample=70, origin="here"),
    "audit of an outlier": lambda: audited(rows=_FAR.numpy(), metrics=["level"], row_name="image {}".format),
    "audit of codes": lambda: audited(rows=4 * randn(90, 5), codes=True, tap="codes"),
    "audit of few rows": lambda: audited(
        rows=randn(31, 40), metrics=["erank_centred", "uniformity"], narrowest=9
    ),
    "audit of every range": lambda: audited(
        rows=randn(40, 3) + 9, metrics=[m for m in METRICS if METRICS[m].needs == "moments"]
    ),
}
