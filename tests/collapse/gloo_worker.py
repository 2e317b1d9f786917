"""One process of `test_distributed`: observes its part of the rows and prints the report as JSON.

Usage: gloo_worker.py RANK WORLD RENDEZVOUS-FILE
"""

import json
import sys

import torch

from fullrank.collapse import CollapseMonitor, Moments


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    za = 0.3 + torch.randn(402, 24, generator=generator, dtype=torch.float64) * torch.linspace(2, 0.2, 24)
    return za, za + 0.1 * torch.randn(402, 24, generator=generator, dtype=torch.float64)


def main(rank: int, world: int, rendezvous: str) -> None:
    torch.set_num_threads(1)
    if world > 1:
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=world)
    za, zb = (z[rank::world] for z in rows())
    monitor = CollapseMonitor()
    for a, b in zip(za.split(50), zb.split(50), strict=True):
        monitor.observe({"projector": a}, pairs={"projector": (a, b)})
    if rank == 0:  # a tap that only this process has seen
        monitor.observe({"head": rows()[0][:100]})
    report = monitor.close().as_dict()
    bounded = CollapseMonitor(capacity=60)  # the sample of both streams keeps to its bound
    bounded.observe({"z": za})
    report["sampled"] = bounded.close().panels["z"].measures["uniformity"].n
    moments = Moments.of(za)
    moments.all_reduce()
    report["sums"] = [moments.count, *moments.unit.covariance.flatten().tolist()]
    far = rows()[0] + 1e6
    far[1::2] += 50  # so that the other process sees them around another shift
    moments = Moments.of(far[rank::world])
    moments.all_reduce()
    report["far"] = [*moments.singular_values(), *moments.unit.singular_values(centred=False)]
    crowd = torch.randn(1400, 80, generator=torch.Generator().manual_seed(0))
    crowd[:60] = torch.randn(80, generator=torch.Generator().manual_seed(8)) * 1e3  # all in the first process
    block = CollapseMonitor()
    block.observe({"z": torch.tensor_split(crowd, world)[rank]})
    panel = block.close()
    facts = panel.panels["z"].facts
    assert facts is not None
    report["outliers"] = [panel.verdict.kind, facts.outliers, panel.panels["z"].n]
    print(json.dumps(report))
    if world > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
