"""One process of `test_shared`: probes of its part of the rows; prints what they find as JSON.

Usage: shared_worker.py RANK WORLD RENDEZVOUS-FILE
"""

import json
import sys
from typing import Any

import torch
from torch import Tensor

from fullrank.collapse.peers import Peers
from fullrank.errors import UsageError
from fullrank.probes.clusters import by_kmeans
from fullrank.probes.knn import knn_probe
from fullrank.probes.logistic import logistic_probe


def made(n: int, seed: int) -> tuple[Tensor, Tensor]:
    """Overlapping classes sorted by class, some rows without a label."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) * 5 // n
    centres = 1.2 * torch.randn(5, 12, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    rows = centres[labels] + torch.randn(n, 12, generator=generator, dtype=torch.float64)
    labels[::17] = -1
    return rows, labels


def main(rank: int, world: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    peers, found = Peers(), dict[str, Any]()
    train, test = ([torch.tensor_split(x, world)[rank] for x in made(n, s)] for n, s in ((701, 0), (203, 1)))
    for metric in ("cosine", "l2"):
        knn = knn_probe(*test, *train, metric=metric, peers=peers)
        found[f"knn {metric}"] = [vars(knn.best), [vars(row) for row in knn.table]]
        found[f"sizes {metric}"] = [knn.bank, knn.queries, knn.chosen_on, knn.classes]
    fitted = logistic_probe(*train, *test, cs=(0.01, 1.0), tolerance=1e-9, peers=peers)
    found["linear"] = [fitted.top1, fitted.top5, fitted.train_top1, *(vars(each) for each in fitted.tried)]
    found["weights"] = fitted.fit.weights.tolist()
    found["linear sizes"] = [fitted.train, fitted.test, fitted.held_out, fitted.fit.converged]
    clusters = by_kmeans(train[0], train[1], unit=False, peers=peers)
    found["clusters"] = [clusters.inertia, vars(clusters.agreement)]
    lost = (train[0], torch.full_like(train[1], -1))  # no label anywhere: all say so, none waits
    try:
        knn_probe(*lost, *lost, peers=peers)
    except UsageError as error:
        found["error"] = str(error)
    some = train if rank == 0 else (train[0], torch.full_like(train[1], -1))
    found["labels of one"] = knn_probe(*test, *some, peers=peers).classes
    print(json.dumps(found))
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
