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


def in_the_wild(seed: int = 0) -> Iterator[Made]:
    """What nobody rehearsed: points of any number, copies, outliers, narrow layers, few rows."""
    g = torch.Generator().manual_seed(seed)
    yield from _odd_rows(g)
    yield from _odd_spectra(g)


def _odd_rows(g: torch.Generator) -> Iterator[Made]:
    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    n, d, collapsed = 8000, 128, ("intra-cluster", "cluster")
    iso = randn(n, d)
    for count in (2, 5, 50, 150, 180, 250, 500, 1000, 2000):
        for spread in (0.0, 0.01, 0.05, 0.15):
            place = torch.randint(count, (n,), generator=g)
            yield Made(f"{count} points, spread {spread}", collapsed, randn(count, d)[place] + spread * iso)
    for share in (0.8, 0.9, 0.98):
        rows = iso.clone()
        rows[: int(share * n)] = rows[0]
        yield Made(f"{share:.0%} of the rows are one", ("complete", "cluster"), rows)
    for factor in (30.0, 1e3, 1e5, 1e8):
        rows = randn(4000, d)
        rows[17] *= factor
        yield Made(f"one row times {factor:g}", ("healthy",), rows)
    for share in (0.05, 0.3, 0.5):
        yield Made(f"{share:.0%} dead", ("healthy",), iso * (torch.arange(d) >= int(share * d)))
    for spread in (1e-5, 1e-3):
        rows = torch.nn.functional.normalize(randn(1, 64), dim=1) + spread * randn(20_000, 64)
        yield Made(f"a mean of one, spread {spread}", ("complete",), rows)


def _odd_spectra(g: torch.Generator) -> Iterator[Made]:
    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g)

    n, d = 8000, 128
    for exponent in (3.0, 3.5, 5.0):
        rows = randn(n, d) * torch.arange(1, d + 1).pow(-exponent / 2)
        yield Made(f"eigenvalues 1/k^{exponent}", ("dimensional", "complete"), rows)
    for rank in (6, 10, 12, 14):
        yield Made(f"rank exactly {rank} of {d}", ("dimensional",), randn(n, rank) @ randn(rank, d))
    for inside in (48, 64, 192):
        hidden = torch.relu(randn(4000, 64) @ randn(64, inside) / 8)
        yield Made(f"a head {inside} wide inside", ("healthy",), hidden @ randn(inside, 2048))
    for rows_ in (64, 100, 300):
        for exponent, right in ((0.0, "healthy"), (1.0, "healthy"), (2.0, "healthy"), (4.0, "dimensional")):
            rows = randn(rows_, 2048) * torch.arange(1, 2049).pow(-exponent / 2) @ _orthogonal(2048)
            yield Made(f"eigenvalues 1/k^{exponent}, {rows_} rows of 2048", (right,), rows)


def _orthogonal(d: int) -> Tensor:
    """A Hadamard matrix at unit length: quick for a large d, a power of two."""
    matrix = torch.ones(1, 1)
    while len(matrix) < d:
        top = torch.cat([matrix, matrix], dim=1)
        matrix = torch.cat([top, torch.cat([matrix, -matrix], dim=1)])
    return cast(Tensor, matrix / d**0.5)


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
