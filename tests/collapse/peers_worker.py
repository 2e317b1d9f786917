"""One process of `test_peers`: hands tensors round and prints what came as JSON.

Usage: peers_worker.py RANK WORLD RENDEZVOUS-FILE
"""

import json
import sys
from typing import Any

import torch

from fullrank.collapse import peers as module
from fullrank.collapse import sampling
from fullrank.collapse.peers import Peers
from fullrank.collapse.sampling import Copies, Reservoir, row_hash
from fullrank.collapse.statistics import EmbeddingStatistics


def part(whole: torch.Tensor, rank: int, world: int) -> torch.Tensor:
    """A third of the rows for the last process, hardly any for the first."""
    ends = [0, *[3] * (world > 1), *(len(whole) * r // world for r in range(2, world)), len(whole)]
    return whole[ends[rank] : ends[rank + 1]]


def distances() -> torch.Tensor:
    return torch.rand(1001, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 9 * 1e3


def copied() -> torch.Tensor:
    rows = torch.randn(6000, 2, generator=torch.Generator().manual_seed(0))
    rows[100:400] = rows[0]
    return rows


def far_out() -> torch.Tensor:
    """Sorted blocks of other spreads, and a few rows far from all."""
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(4000, 16, generator=generator, dtype=torch.float64)
    rows *= torch.linspace(0.5, 2, 4000)[:, None]
    rows[1500:1560] *= 300
    return rows + 3


def main(rank: int, world: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    peers, found = Peers(), dict[str, Any]()
    module.AT_ONCE = 4096  # so that rows come in several rounds
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int64, torch.bool):
        rows = (torch.arange(3000).reshape(500, 3, 2) % 7).to(dtype)
        found[str(dtype)] = bool(torch.equal(peers.gather_rows(part(rows, rank, world)), rows))
    found["none"] = list(peers.gather_rows(torch.empty(0, 5)).shape)
    own = part(distances(), rank, world)
    found["smallest"] = [peers.kth_smallest(own, k) for k in (0, 1, 499, 500, 1000)]
    found["zeros"] = peers.kth_smallest(torch.zeros(rank, dtype=torch.float64), 0) if world > 1 else 0.0
    found["told"] = peers.tell({"rank": rank, "words": "\u00e4" * rank}) if world > 1 else []
    sampling._KEPT = 500  # hashes, so that there are more
    copies = Copies()
    copies.add(row_hash(part(copied(), rank, world)))
    copies.gather(peers)
    found["copies"] = [copies.rows, copies.distinct, copies.most]
    sample = Reservoir(2, 64)
    whole = copied()
    sample.add(part(whole, rank, world), part(torch.arange(len(whole)), rank, world))
    sample.gather(peers)
    found["sample"] = [sample.count, sample.places.tolist(), sample.rows.tolist()]
    rows, places = far_out(), torch.arange(4000)
    seen = EmbeddingStatistics(16, first=int(part(places, rank, world)[0]), expected=4000)
    first = EmbeddingStatistics(16)
    first.update(rows[:700])
    assert first.middle is not None
    seen.begin(*first.middle)
    for chunk in part(rows, rank, world).split(700):
        seen.update(chunk)
    seen.finish()
    found["facts"] = [seen.facts.outliers, seen.facts.n, seen.moments.count, seen.facts.distinct]
    found["farthest"] = seen.facts.farthest
    found["sampled"] = seen.sample.places.tolist()
    found["values"] = seen.moments.singular_values().tolist()
    print(json.dumps(found))
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
