"""One process of `test_processes_and_precision`: collectives and their gradients, as tensors in a file.

Usage: processes_worker.py RANK WORLD RENDEZVOUS-FILE OUTPUT-FILE
"""

import sys

import torch
from torch import Tensor

from fullrank.networks.codes import log_mean_of_codes
from fullrank.networks.momentum import Queue
from fullrank.networks.processes import (
    CpuSyncBatchNorm,
    from_first_process,
    gather_rows,
    mean_over_processes,
    own_rows,
    sum_over_processes,
    world,
)


def functions_of_the_global_batch(x: Tensor) -> dict[str, Tensor]:
    """Scalars that every process computes from its rows [b, d] and must agree on."""
    whole = gather_rows(x)
    weights = torch.linspace(-1, 1, whole.numel(), dtype=x.dtype).view_as(whole)
    count = len(x) * world()[1]
    return {
        "gather_rows": (whole @ whole.T).square().mean() + (weights * whole.sin()).sum(),
        "sum_over_processes": sum_over_processes(x.exp().sum(dim=0)).square().sum() / count,
        "mean_over_processes": mean_over_processes(x.mean(dim=0)).pow(3).sum(),
        "gather_columns": gather_rows(x.T.contiguous().T[:, 1:]).cos().prod(dim=1).sum(),
        "log_mean_of_codes": (log_mean_of_codes(x.log_softmax(dim=1)) * weights[0]).sum(),
        "log_mean_of_codes_far": (log_mean_of_codes((900.0 * x).log_softmax(dim=1)) * 1e-3).sum(),
    }


def main(rank: int, size: int, rendezvous: str, output: str) -> None:
    torch.set_num_threads(1)
    if size > 1:
        torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=size)
    assert world() == (rank, size)
    generator = torch.Generator().manual_seed(0)
    whole = torch.randn(8, 5, generator=generator, dtype=torch.float64)
    x = whole.chunk(size)[rank].clone().requires_grad_()
    results: dict[str, object] = {}
    for name, value in functions_of_the_global_batch(x).items():
        gradient = torch.autograd.grad(value, x)[0] / size  # as distributed wrappers average
        with torch.no_grad():
            results[name] = {"value": value.detach(), "gradient": gather_rows(gradient)}
    results["own_rows"] = gather_rows(own_rows(whole))
    torch.manual_seed(rank)
    mine = torch.randn(3, 4).T  # not contiguous
    results["from_first_process"] = from_first_process(mine)
    torch.manual_seed(rank)
    results["untouched"] = torch.equal(mine, torch.randn(3, 4).T)
    queue = Queue(10, 5).double()
    queue.push(x)
    queue.push(x + 1)
    results["queue"] = queue.rows
    layer = CpuSyncBatchNorm(5).double()
    normalised = layer(x)
    gradient = torch.autograd.grad((normalised**3).sum(), x)[0]
    with torch.no_grad():
        results["batch_norm"] = {
            "value": gather_rows(normalised),
            "gradient": gather_rows(gradient),
            "mean": layer.running_mean,
            "variance": layer.running_var,
        }
    torch.save(results, output)
    if size > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
