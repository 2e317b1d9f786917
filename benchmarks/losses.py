"""CPLearn's loss with a large dictionary beside its plain form, and steps of the families beside SimSiam's.

Memory is what a process of its own holds at its peak beyond what it held before the dictionary was made.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable

import torch
from measuring import Row, beside, in_turns

from fullrank.malloc import keep_freed_memory
from fullrank.methods import build_method
from fullrank.methods._cplearn_loss import cplearn_loss
from fullrank.networks.backbones import build_backbone
from fullrank.networks.codes import SignDictionary

CODES, BATCH, WIDTH, SCALE = 100_000, 256, 2048, 0.07
MEMORY = """
import json, resource, sys
sys.path.insert(0, {here!r})
from losses import loss_step
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
step = loss_step({how!r})
value = step()
step()
print(json.dumps([peak() - before, value]))
"""
WITHIN = 0.9  # of the step of the method with the same passes through the backbone
BESIDE = {  # at the sizes of the references, which are the defaults
    "cplearn": "simsiam",
    "rdm_simsiam": "simsiam",
    "directpred": "byol",
    "directcopy": "byol",
    "isoloss": "byol",
}


def loss_step(how: str) -> Callable[[], float]:
    """Value and gradient of the loss of two views, `ours` or `plain`, from embeddings on."""
    torch.manual_seed(0)
    dictionary = SignDictionary(WIDTH, CODES, seed=0)
    e = [torch.randn(BATCH, WIDTH).tanh().requires_grad_() for _ in range(2)]
    w = None
    if how == "plain":
        w = torch.empty(WIDTH, CODES)
        for at, block in dictionary.blocks(w):
            w[:, at] = block

    def step() -> float:
        if w is None:
            loss = cplearn_loss(e, dictionary, SCALE)["loss"]
        else:
            loss = plain_loss([SCALE * (x @ w) for x in e])
        torch.autograd.grad(loss, e)
        return loss.item()

    return step


def plain_loss(z: list[torch.Tensor]) -> torch.Tensor:
    """The loss from scores [n, c] of two views, with every matrix of rows by codes in memory."""
    log_p = [view.log_softmax(dim=1) for view in z]
    means = torch.stack([view.logsumexp(dim=0) - math.log(len(view)) for view in log_p])
    prior = (means.exp() * (math.log(means.shape[1]) + means)).sum(dim=1).mean()
    a, b = log_p
    return prior - ((a.exp() * b).sum(dim=1).mean() + (b.exp() * a).sum(dim=1).mean()) / 2


def _memory(how: str) -> tuple[float, float]:
    code = MEMORY.format(here=__file__.rsplit("/", 1)[0], how=how)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    peak, value = json.loads(done.stdout)
    return peak, value


def _training_step(name: str, batch: int, size: int = 32) -> Callable[[], None]:
    """Forward, backward and optimiser of a method on views that are ready."""
    torch.manual_seed(0)
    backbone = build_backbone("resnet18", size)
    method = build_method(name, backbone.network, backbone.feature_dim)
    method = method.to(memory_format=torch.channels_last).train()
    params = [p for group in method.param_groups() for p in group.params]
    optimizer = torch.optim.SGD(params, lr=1e-3, momentum=0.9)
    views = [
        torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last) for _ in range(2)
    ]

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            loss = method.loss(views).loss
        loss.backward()
        method.after_backward()
        optimizer.step()
        optimizer.zero_grad()
        method.after_step(method.info)

    return step


def rows(repeats: int) -> list[Row]:
    """Memory and time of CPLearn's loss, then steps of the families at batch 64."""
    keep_freed_memory()
    what = f"CPLearn's loss, {CODES:,} codes, batch {BATCH}"
    (ours, value), (plain, same) = _memory("ours"), _memory("plain")
    note = f"losses {value:.6f} and {same:.6f}"
    table = [
        Row(f"{what}, memory", "plain", (ours / plain,), 0.35, True, "", ours, plain, "MB", note),
    ]
    seconds, _ = in_turns(repeats, {"ours": loss_step("ours"), "plain": loss_step("plain")})
    turns = tuple(o / p for o, p in zip(seconds["ours"], seconds["plain"], strict=True))
    own, other = (sorted(seconds[name])[repeats // 2] for name in ("ours", "plain"))
    table.append(Row(f"{what}, time", "plain", turns, 1.1, True, "", own, other, "s"))

    steps = {name: _training_step(name, 64) for name in ("simsiam", "byol", *BESIDE)}
    for step in steps.values():
        step()
    seconds, _ = in_turns(repeats, steps)
    for name, peer in (*BESIDE.items(), ("byol", "simsiam")):
        both = {"ours": seconds[name], f"step of {peer}": seconds[peer]}
        what, bar = f"step of {name}, resnet18, batch 64", WITHIN if name in BESIDE else None
        note = "" if bar else "both views once more, through the target"
        table.append(beside(what, both, f"step of {peer}", bar, work=64, measure="images/s", note=note))
    return table


if __name__ == "__main__":
    start = time.perf_counter()
    for row in rows(1):
        print(row.what, row.beside, row.value)
    print(f"{time.perf_counter() - start:.0f} s")
