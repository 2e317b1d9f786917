"""A catalogue of embeddings whose state is known because of how they were made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor


@dataclass(frozen=True)
class Made:
    """One case.

    Attributes:
        name: how it was made.
        right: the verdicts that are right, the first one above all.
        rows: [n, d], or scores over codes.
        scores: whether `rows` are such scores.
    """

    name: str
    right: tuple[str, ...]
    rows: Tensor
    scores: bool = False


def _rotation(d: int, generator: torch.Generator) -> Tensor:
    q, _ = torch.linalg.qr(torch.randn(d, d, generator=generator))
    return cast(Tensor, q)


def _power(n: int, d: int, exponent: float, g: torch.Generator) -> Tensor:
    scale = torch.arange(1, d + 1).pow(-exponent / 2)
    return torch.randn(n, d, generator=g) * scale @ _rotation(d, g)


def _student(n: int, freedom: float, g: torch.Generator) -> Tensor:
    chi = torch.stack([torch.randn(n, generator=g).square() for _ in range(int(freedom))]).sum(0) / freedom
    return chi.rsqrt()[:, None]


def embeddings(seed: int = 0) -> Iterator[Made]:
    """Rows at several n and d: healthy in many ways, and every collapse."""
    g = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    for n, d in ((1000, 64), (4096, 128), (4096, 512), (10000, 256)):
        at = f"n{n} d{d}"
        iso = randn(n, d)
        healthy = {
            "isotropic": iso,
            "isotropic bf16": iso.bfloat16().float(),
            "eigenvalues 1/sqrt(k)": _power(n, d, 0.5, g),
            "eigenvalues 1/k": _power(n, d, 1.0, g),
            "eigenvalues 1/k^1.5": _power(n, d, 1.5, g),
            "mean of 2 sd": iso + 2.0,
            "mean of 5 sd": iso + 5.0,
            "mean of 8 sd in one direction each sign": iso + 8.0 * randn(1, d).sign(),
            "heavy tails, 3 degrees": iso * _student(n, 3, g),
            "heavy tails per entry": torch.distributions.StudentT(5.0).sample((n, d)),
            "ReLU of a mixture": torch.relu(iso @ _rotation(d, g) + 0.3),
            "half of the units dead": iso * (torch.arange(d) < d // 2),
            "norms over two decades": iso * torch.logspace(-1, 1, n)[torch.randperm(n, generator=g)][:, None],
            "ten overlapping classes": 1.0 * randn(10, d)[torch.arange(n) % 10] + iso,
            "hundred overlapping classes": 0.8 * randn(100, d)[torch.arange(n) % 100] + iso,
            "one percent outliers": torch.where(torch.arange(n)[:, None] < n // 100, 20 * iso, iso),
            "curved, twenty latents": torch.tanh(randn(n, 20) @ randn(20, 256)) @ randn(256, d),
            "unit rows": torch.nn.functional.normalize(iso, dim=1),
            "scaled by a million": 1e6 * iso,
        }
        for name, rows in healthy.items():
            yield Made(f"{name}, {at}", ("healthy",), rows)
        constant = randn(1, d)
        for name, rows in {
            "constant": constant.expand(n, d),
            "zeros": torch.zeros(n, d),
            "constant and noise of 1e-3": constant + 1e-3 * iso,
            "constant and noise of 1e-2": constant + 1e-2 * iso,
            "constant and rank-4 noise": constant + 1e-2 * randn(n, 4) @ randn(4, d) / 2,
            "constant and noise, bf16": (constant + 1e-2 * iso).bfloat16().float(),
            "constant times a norm": constant * torch.rand(n, 1, generator=g).add(0.5),
        }.items():
            yield Made(f"{name}, {at}", ("complete",), rows)
        for rank in (1, 2, 3, max(d // 64, 4), max(d // 24, 5)):
            yield Made(f"rank {rank}, {at}", ("dimensional",), randn(n, rank) @ randn(rank, d))
            noisy = randn(n, rank) @ randn(rank, d) + 1e-3 * iso
            yield Made(f"rank {rank} and noise of 1e-3, {at}", ("dimensional",), noisy)
        yield Made(f"eigenvalues 1/k^4, {at}", ("dimensional",), _power(n, d, 4.0, g))
        ramp = randn(n, 3) @ randn(3, d) + 3.0
        yield Made(f"rank 3 and a mean of 3 sd, {at}", ("dimensional",), ramp)
        for count in (2, 3, 5, 10, 20, 50):
            for spread in (0.0, 0.01, 0.05):
                centres = randn(count, d)
                rows = centres[torch.randint(count, (n,), generator=g)] + spread * iso
                yield Made(f"{count} clusters, spread {spread}, {at}", ("cluster",), rows)
        for count, spread in ((10, 0.25), (20, 0.2), (100, 0.01), (100, 0.1)):
            centres = randn(count, d)
            rows = centres[torch.arange(n) % count] + spread * iso
            yield Made(f"{count} classes shrunk to {spread}, {at}", ("intra-cluster",), rows)
        uneven = torch.multinomial(torch.tensor([0.8, 0.1, 0.06, 0.04]), n, replacement=True, generator=g)
        yield Made(f"4 uneven clusters, {at}", ("cluster",), randn(4, d)[uneven] + 0.01 * iso)
    for n, d in ((64, 128), (64, 512), (128, 1024)):
        few = ("not decidable", "healthy")
        yield Made(f"isotropic, few rows, n{n} d{d}", few, randn(n, d))
        yield Made(f"eigenvalues 1/k, few rows, n{n} d{d}", few, _power(n, d, 1.0, g))
        constant = randn(1, d).expand(n, d) + 1e-3 * randn(n, d)
        yield Made(f"constant, few rows, n{n} d{d}", ("complete",), constant)
        yield Made(f"rank 1, few rows, n{n} d{d}", ("dimensional",), randn(n, 1) @ randn(1, d))
        clusters = randn(3, d)[torch.arange(n) % 3] + 0.01 * randn(n, d)
        yield Made(f"3 clusters, few rows, n{n} d{d}", ("cluster",), clusters)


def code_scores(seed: int = 0) -> Iterator[Made]:
    """Scores over codes: shared out, piled up, or the same for every image."""
    g = torch.Generator().manual_seed(seed)
    for n, k in ((2000, 16), (2000, 128), (2000, 4096)):
        at = f"n{n} K{k}"
        own = torch.randint(k, (n,), generator=g)
        sharp = 20.0 * torch.nn.functional.one_hot(own, k).float()
        noise = torch.randn(n, k, generator=g)
        yield Made(f"one code each, {at}", ("healthy",), sharp + noise, scores=True)
        yield Made(f"soft codes, {at}", ("healthy",), 2.5 * noise, scores=True)
        yield Made(f"one code for all, {at}", ("cluster",), 20.0 * torch.eye(k)[:1] + noise, scores=True)
        piled = 20.0 * torch.nn.functional.one_hot(own % 2, k).float() + noise
        right = "healthy" if k <= 2 else "cluster"
        yield Made(f"two codes for all, {at}", (right,), piled, scores=True)
        yield Made(f"all codes for each, {at}", ("uniform-assignment",), 0.01 * noise, scores=True)
        yield Made(f"exactly uniform, {at}", ("uniform-assignment",), torch.zeros(n, k), scores=True)
