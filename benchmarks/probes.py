"""Probes beside scikit-learn and faiss: how long they take, and whether they find the same.

Usage: python benchmarks/probes.py [--features FOLDER] [--full] [--repeats 5] [--threads 1] [--json FILE]

FOLDER holds train.safetensors and test.safetensors with `features` and `labels`, as `fullrank embed` writes
them; without it rows are drawn around fifty centres, with correlated columns and 512 of them. 10,000 rows and
2,000 queries, or with `--full` as many as there are, 50,000 and 10,000. Every row of the table is measured in
one run: ours and its peers take turns, and medians are compared. A row that misses its bar is marked `short`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

import faiss
import torch
from measuring import Row, beside, in_turns, machine, table, versions
from safetensors.torch import load_file
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from sklearn.neighbors import NearestNeighbors
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional as F

from fullrank.probes import cluster_agreement, fit_logistic, kmeans, nearest

K, CLUSTERS, C, TOLERANCE = 20, 100, 1.0, 1e-5
NEIGHBOUR_BARS = {"faiss flat": 1.3, "scikit-learn brute": 1.0, "ours, plain": 1.0}
SOME = 20_000  # rows for the logistic regression of `make bench`


def made(n: int, seed: int, d: int = 512, classes: int = 10) -> tuple[Tensor, Tensor]:
    """Rows around five centres a class, with columns that are correlated and of falling size."""
    generator, fixed = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(0)
    place = torch.randint(5 * classes, (n,), generator=generator)
    z = torch.randn(5 * classes, d, generator=fixed)[place] + 4 * torch.randn(n, d, generator=generator)
    axes, _ = torch.linalg.qr(torch.randn(d, d, generator=fixed))
    return (z * torch.arange(1, d + 1) ** -0.5) @ axes + 1, place % classes


def read(folder: Path, split: str) -> tuple[Tensor, Tensor]:
    """Features and labels of a split."""
    tensors = load_file(folder / f"{split}.safetensors")
    return tensors["features"].float(), tensors["labels"].long()


def rows_of(
    what: str, seconds: Mapping[str, Sequence[float]], bars: Mapping[str, float], same: Mapping[str, str]
) -> list[Row]:
    """A row of the table for every peer."""
    return [
        beside(what, seconds, peer, bar, note=same[peer]) for peer, bar in bars.items() if peer in seconds
    ]


def logistic(train: Tensor, labels: Tensor, test: Tensor, asked: Tensor, repeats: int) -> list[Row]:
    """One fit on standardised features in single precision, to the same tolerance of the same gradient."""
    mean, spread = train.mean(0), train.std(0, correction=0)
    x, tested = (train - mean) / spread, ((test - mean) / spread).numpy()
    rows, y = x.numpy(), labels.numpy()

    seconds, found = in_turns(
        repeats,
        {
            "ours": lambda: fit_logistic(x, labels, C, tolerance=TOLERANCE),
            "scikit-learn": lambda: LogisticRegression(C=C, tol=TOLERANCE, max_iter=10_000).fit(rows, y),
        },
    )
    fit, theirs = found["ours"][-1], found["scikit-learn"][-1]
    ours, _ = fit.accuracy(torch.from_numpy(tested), asked)
    same = f"top-1 {ours:.2%} and {float(theirs.score(tested, asked.numpy())):.2%}, "
    same += f"{fit.evaluations} and {int(theirs.n_iter_[0])} steps"
    return rows_of("logistic regression", seconds, {"scikit-learn": 5.0}, {"scikit-learn": same})


def neighbours(
    bank: Tensor, queries: Tensor, repeats: int, peers: Sequence[str] = tuple(NEIGHBOUR_BARS)
) -> list[Row]:
    """The 20 nearest by cosine, beside some of the peers; rows are of unit length already, for all."""
    bank, queries = F.normalize(bank, dim=1), F.normalize(queries, dim=1)

    def flat() -> Tensor:
        index = faiss.IndexFlatIP(bank.shape[1])
        index.add(bank.numpy())
        return torch.from_numpy(index.search(queries.numpy(), K)[1])

    def brute() -> Tensor:
        search = NearestNeighbors(n_neighbors=K, algorithm="brute", metric="euclidean").fit(bank.numpy())
        return torch.from_numpy(search.kneighbors(queries.numpy(), return_distance=False))

    ways = {
        "ours": lambda: nearest(queries, bank, K)[1],
        "ours, plain": lambda: nearest(queries, bank, K, backend="plain")[1],
        "faiss flat": flat,
        "scikit-learn brute": brute,
    }
    seconds, found = in_turns(repeats, {name: ways[name] for name in ("ours", *peers)})
    last = {name: outcomes[-1] for name, outcomes in found.items()}

    def agree(rows: Tensor) -> str:
        """Neighbours that are the same, and by how much worse those are that are not."""
        shared = (rows[:, :, None] == last["ours"][:, None]).any(2).double().mean()
        cosines = [
            (bank[r].double() @ queries[:, :, None].double())[:, :, 0].sort(1).values
            for r in (rows, last["ours"])
        ]
        return f"{float(shared):.3%} the same, cosines to {float((cosines[0] - cosines[1]).abs().max()):.0e}"

    return rows_of(
        "20 nearest neighbours", seconds, NEIGHBOUR_BARS, {name: agree(last[name]) for name in peers}
    )


def clusters(rows: Tensor, repeats: int) -> list[Row]:
    """A hundred clusters, one start each; a turn has its own seed, the same for all."""
    turn = {"ours": 0, "scikit-learn": 0, "faiss": 0}
    inertia: dict[str, list[float]] = {name: [] for name in turn}

    def next_seed(name: str) -> int:
        turn[name] += 1
        return turn[name]

    def ours() -> None:
        inertia["ours"].append(kmeans(rows, CLUSTERS, seed=next_seed("ours")).inertia)

    def sklearn() -> None:
        found = KMeans(CLUSTERS, n_init=1, random_state=next_seed("scikit-learn")).fit(rows.numpy())
        inertia["scikit-learn"].append(float(found.inertia_))

    def by_faiss() -> None:
        options = {"seed": next_seed("faiss"), "max_points_per_centroid": len(rows)}
        found = faiss.Kmeans(rows.shape[1], CLUSTERS, **options)
        found.train(rows.numpy())
        inertia["faiss"].append(float(found.obj[-1]))

    seconds, _ = in_turns(repeats, {"ours": ours, "scikit-learn": sklearn, "faiss": by_faiss})
    mean = {name: statistics.mean(values) for name, values in inertia.items()}
    same = {name: f"inertia of ours {mean['ours'] / mean[name]:.4f} of theirs" for name in mean}
    return rows_of(f"k-means, k = {CLUSTERS}", seconds, {"scikit-learn": 4.0, "faiss": 0.9}, same)


def scores(rows: Tensor, labels: Tensor) -> str:
    """Whether NMI and ARI are scikit-learn's."""
    assigned = kmeans(rows, CLUSTERS).nearest
    found, pair = cluster_agreement(assigned, labels), (labels.numpy(), assigned.numpy())
    gap = max(
        abs(found.nmi - float(normalized_mutual_info_score(*pair))),
        abs(found.ari - float(adjusted_rand_score(*pair))),
    )
    return f"NMI {found.nmi:.4f} and ARI {found.ari:.4f}: {gap:.0e} from scikit-learn's"


def rows(repeats: int) -> list[Row]:
    """What `make bench` shows: made rows, at all threads."""
    (train, labels), (test, asked) = made(50_000, 1), made(10_000, 2)
    return [
        *logistic(train[:SOME], labels[:SOME], test, asked, repeats),
        *neighbours(train, test, repeats, ["faiss flat"]),
        *clusters(train, repeats),
    ]


def main() -> None:
    """Measures and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--features", default="")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", default="", help="logistic, neighbours or clusters")
    parser.add_argument("--json", default="")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    faiss.omp_set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    n, m = (50_000, 10_000) if args.full else (10_000, 2_000)
    if args.features:
        (train, labels), (test, asked) = (read(Path(args.features), split) for split in ("train", "test"))
        train, labels, test, asked = train[:n], labels[:n], test[:m], asked[:m]
    else:
        (train, labels), (test, asked) = made(n, 1), made(m, 2)
    found: list[Row] = []
    with threadpool_limits(args.threads):
        if args.only in ("", "logistic"):
            found += logistic(train, labels, test, asked, args.repeats)
        if args.only in ("", "neighbours"):
            found += neighbours(train, test, args.repeats)
        if args.only in ("", "clusters"):
            found += clusters(train, args.repeats)
        compared = scores(train, labels)
    print(f"{len(train)} rows, {len(test)} queries, {train.shape[1]} columns, {args.threads} thread(s)\n")
    print(f"{table(found)}\n{compared}")
    if args.json:
        about = {
            "date": date.today().isoformat(),
            "machine": machine(),
            "threads": args.threads,
            "versions": versions(),
            "features": Path(args.features).name or "made",
            "rows": len(train),
            "queries": len(test),
            "columns": train.shape[1],
            "repeats": args.repeats,
        }
        lines = [row.as_dict() for row in found]
        Path(args.json).write_text(json.dumps({**about, "table": lines, "scores": compared}, indent=1) + "\n")


if __name__ == "__main__":
    main()
