"""Measures of two branches beyond the monitor: the loss's input, view variance."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from fullrank.collapse.metrics.level import level_of_rows
from fullrank.labs._common.trained import held_out_batches, reopen
from fullrank.networks.backbones import features_and_tokens
from fullrank.training.setup import Setup, generator_of

IMAGES = 512


def level_and_shape(rows: Tensor) -> dict[str, Any]:
    """Level and shape of rows, side by side: neither shows collapse alone.

    Args:
        rows: one for each image, [n, d].

    Returns:
        `level` (spread of unit rows times the root of d, 1 where isotropic), `centred_share` (variance
        between images over the second moment, in [0, 1]), `rank` (effective rank, centred; None where all
        rows are one), `singular_values` centred and `singular_values_uncentred`, over the root of n.

    Example:
        >>> found = level_and_shape(torch.ones(8, 4))
        >>> found["level"], found["centred_share"], found["rank"]
        (0.0, 0.0, None)
        >>> round(level_and_shape(torch.cat([torch.eye(4), -torch.eye(4)]))["rank"], 3)
        4.0
    """
    z = rows.double()
    centred = z - z.mean(0)
    moment = z.square().sum()
    share = float(centred.square().sum() / moment) if moment > 0 else 0.0
    scale = math.sqrt(len(z))
    values = [torch.linalg.svdvals(x) / scale for x in (centred, z)]
    rank = None
    if share > 1e-12:
        eigenvalues = values[0].square()
        q = eigenvalues / eigenvalues.sum()
        rank = float(torch.exp(-(q[q > 0] * q[q > 0].log()).sum()))
    return {
        "level": float(level_of_rows(rows.float())) if share > 1e-12 else 0.0,
        "centred_share": share if share > 1e-12 else 0.0,
        "rank": rank,
        "singular_values": values[0].tolist(),
        "singular_values_uncentred": values[1].tolist(),
    }


def softmax_use(logits: Tensor) -> dict[str, float]:
    """Softmax use over ln K: `marginal`, mean `conditional` entropy, `information`.

    One answer for all: marginal 0. No answer: conditional 1. What answers say about the input is the
    difference of the two, in [0, 1].

    Args:
        logits: [m, K].

    Example:
        >>> softmax_use(1e3 * torch.eye(4))
        {'marginal': 1.0, 'conditional': 0.0, 'information': 1.0}
    """
    log_p = logits.double().log_softmax(1)
    p, most = log_p.exp(), math.log(logits.shape[1])
    mean = p.mean(0)
    marginal = float(-(mean * mean.clamp_min(1e-300).log()).sum()) / most
    conditional = float(-(p * log_p).sum(1).mean()) / most
    return {"marginal": marginal, "conditional": conditional + 0.0, "information": marginal - conditional}


def seen_by_the_loss(run: Path) -> dict[str, Any]:
    """Level, shape and use of student and teacher outputs, before and after training.

    An image's row is its mean over patch tokens, which takes the positions' own share out: of the logits, as
    the tutorial draws them, and of the softmax, which is what the loss sees. `tokens` are the tutorial's own
    rows, every token by itself.
    """
    found: dict[str, Any] = {}
    for time in ("untrained", "trained"):
        s = reopen(run, trained=time == "trained")
        for side in ("student", "teacher"):
            logits = _logits(s, side)
            answers = _answers(s, side, logits)
            found[f"{time} {side}"] = {
                "logits": level_and_shape(logits.mean(1)),
                "softmax": level_and_shape(answers.softmax(2).mean(1)),
                "tokens": _values(logits.flatten(0, 1)),
                "use": softmax_use(answers.flatten(0, 1)),
            }
        found[f"{time} distance"] = _distance(s)
    return found


def _answers(s: Setup, side: str, logits: Tensor) -> Tensor:
    """Logits as the loss's softmax takes them: scaled, the teacher's also centred."""
    method: Any = s.method
    centre: Tensor = method.centre.cpu() if side == "teacher" else torch.zeros(1)
    temperature: float = getattr(method.config, f"{side}_temperature")
    return (logits - centre) / temperature


def _values(rows: Tensor) -> dict[str, list[float]]:
    """Singular values, centred and not, by d x d second moments: tokens are many."""
    z = rows.double()
    moments = {"centred": torch.cov(z.T, correction=0), "uncentred": z.T @ z / len(z)}
    return {
        name: torch.linalg.eigvalsh(m).flip(0).clamp_min(0).sqrt().tolist() for name, m in moments.items()
    }


@torch.no_grad()
def _logits(s: Setup, side: str) -> Tensor:
    """Outputs of one side's head on held-out images as they are, [n, tokens, K]."""
    method: Any = s.method
    backbone, head = (
        (method.backbone, method.projector)
        if side == "student"
        else (method.target["backbone"], method.target["projector"])
    )
    rows = []
    for images in held_out_batches(s, IMAGES):
        _, tokens = features_and_tokens(backbone, s.views.clean(images), method.feature_dim)
        rows.append(head(tokens).float().cpu())
    return torch.cat(rows)


def _distance(s: Setup) -> float:
    method: Any = s.method
    pairs = [
        (own.detach().double(), other.detach().double())
        for name in method.target
        for own, other in zip(
            getattr(method, name).parameters(), method.target[name].parameters(), strict=True
        )
    ]
    apart = sum(float((own - other).square().sum()) for own, other in pairs)
    return math.sqrt(apart / sum(float(own.square().sum()) for own, _ in pairs))


def variance_within(encodings: Tensor) -> float:
    """V = mean over images and views of |u_iv - mean_v u_iv|^2, in [0, 1].

    Of encodings [views, n, d], where u has length one (2204.00613).

    Example:
        >>> variance_within(torch.stack([torch.eye(3), -torch.eye(3)]))
        1.0
    """
    u = normalize(encodings.double(), dim=2)
    return float((u - u.mean(0)).square().sum(2).mean())


@torch.no_grad()
def encoding_variance(run: Path, views: int = 8, images: int = 256) -> dict[str, float]:
    """Variance of held-out encodings over `views` per image, by side of the loss."""
    s = reopen(run)
    method: Any = s.method
    mean_of = getattr(method.config, "mean_encoding", "none")
    roles = method.roles or ("both",) * len(s.views.roles)
    places = {
        side: [place for place, role in enumerate(roles) if role in ("both", side)]
        for side in ("source", "target")
    }
    batch = next(iter(held_out_batches(s, images)))
    found: dict[str, list[Tensor]] = {"source": [], "target": []}
    for view in range(views):
        params = s.views.sample(
            len(batch), batch.shape[2], batch.shape[3], generator_of(s.config.seed, 5, view)
        )
        made = s.views(batch, params)
        for side, encode in (("source", lambda x: method.embed(x)["projector"]), ("target", _target(method))):
            own = places[side] if mean_of == side else [places[side][view % len(places[side])]]
            found[side].append(torch.stack([encode(made[place]).float() for place in own]).mean(0).cpu())
    return {side: variance_within(torch.stack(rows)) for side, rows in found.items()}


def _target(method: Any) -> Any:
    if hasattr(method, "encode_target"):
        return method.encode_target
    return lambda x: method.embed(x).get("target", method.embed(x)["projector"])
