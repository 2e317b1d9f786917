"""CPLearn: codes of a large fixed dictionary, all used and agreed upon."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fullrank.errors import UsageError
from fullrank.methods._base import SMALL_BATCH_ADAM, Method, Step, check_views, register
from fullrank.methods._config import MethodConfig, follow_backbone
from fullrank.methods._cplearn_loss import cplearn_loss
from fullrank.methods._fixed_points import UNIFORM_CODES, FixedPoint, Situation
from fullrank.networks.codes import SignDictionary
from fullrank.networks.precision import in_full_precision
from fullrank.networks.processes import world


def cplearn_temperature(f: int, c: int, n: int, eps: float = 1e-8) -> float:
    """tau = f / (sqrt(n) log((1 - eps (c - 1)) / eps)), of the theory (2410.04959).

    Args:
        f: length of a code.
        c: number of codes, at most 1 + 1/eps.
        n: rows of a batch.
        eps: probability that a minimum leaves to each other code.

    Example:
        >>> round(cplearn_temperature(2048, 16384, 64), 4)
        13.8975
    """
    return f / (math.sqrt(n) * math.log((1.0 - eps * (c - 1)) / eps))


@in_full_precision
def _scores(e: Tensor, dictionary: SignDictionary, scale: float) -> Tensor:
    return scale * torch.cat([e @ w for _, w in dictionary.blocks(e)], dim=1)


def _own_codes(at: Situation) -> float | None:
    return max(math.log(at.config.num_codes / at.n), 0.0) if at.config.prior == "reverse" else None


@register("cplearn")
class CPLearn(Method):
    """CPLearn (Sansone et al., 2410.04959): collapse-proof without contrast.

    e = tanh(BN(linear(h))) is scored against a fixed dictionary W of c random sign vectors; the softmax of
    e W / tau assigns each image to codes, all codes must be used alike (prior), and views must agree.

    What keeps it from collapse: the prior excludes complete and cluster collapse; quasi-orthogonal codes,
    many more than dimensions, exclude dimensional collapse; many more codes than clusters exclude collapse
    within clusters. No stop-gradient, predictor or momentum target is needed.

    Where reference and paper differ: the reference embeds by tanh, the first paper by L2 normalisation to
    length sqrt(f) (`normalise`). The reference's scores are sqrt(n) larger than the theory's, which
    multiplies embeddings by 1/sqrt(n) (`temperature` `theory`); n is the number of rows of the forward call
    at hand, so that evaluation has other scores than training; here it is the training batch over all
    devices, remembered, or `temperature_rows`. The reference averages codes per device (`mean_of_codes`
    `device`) and gives NaN for a code without mass, which cannot happen here. The first paper's prior is
    forward and its invariance one-sided.

    Taps: backbone, projector (e), codes (scores; not of a training step, which never holds them all).
    """

    paper, year = "2410.04959", 2024
    mechanism = "uniform use of a large fixed dictionary"
    # Adam with coupled decay and small batches, as the reference trains CIFAR.
    small_image_defaults = {
        "optimizer": "adam",
        "lr": 1e-3,
        "weight_decay": 1e-4,
        "batch_size": 64,
        "warmup_epochs": -1.0,
        "views": "asymmetric",
    }
    small_batch_defaults = SMALL_BATCH_ADAM
    fixed_points = (
        FixedPoint(
            "uniform over codes",
            "beta ln c",
            lambda at: at.config.beta * math.log(at.config.num_codes),
            ("uniform-assignment",),
            UNIFORM_CODES,
        ),
        FixedPoint(
            "all on one code",
            "ln c",
            lambda at: math.log(at.config.num_codes) if at.config.prior == "reverse" else None,
            ("cluster", "complete"),
            "All images share one code: views agree, and the prior is at its worst.",
        ),
        FixedPoint(
            "a code for each image",
            "ln(c / n), at least 0",
            _own_codes,
            (),
            "The lowest value that a batch allows: every image has a code of its own, the same in all views.",
        ),
    )

    @dataclass(frozen=True)
    class Config(MethodConfig):
        """Options of CPLearn; the defaults are the reference's.

        Attributes:
            embedding_dim: f, width of the embedding and length of a code; 0: 2048, less for narrow backbones.
            num_codes: c, size of the dictionary; the larger the better, and more than f.
            dictionary_seed: decides the dictionary.
            normalise: embeddings by `tanh`, or by `l2` to length sqrt(f).
            temperature: `reference`, or `theory`, which also multiplies embeddings by 1/sqrt(n).
            temperature_rows: n in the temperature; 0 takes the rows of the training batch over all devices.
            eps: probability that the theory's minimum leaves to each other code, in (0, 1/c).
            prior: `reverse` KL(mean || uniform), the reference, or `forward`, the first paper.
            beta: weight of the invariance.
            mean_of_codes: over the rows of all devices (`global`), or of each (`device`, the reference).
        """

        not_negative = ("temperature_rows", "dictionary_seed")
        embedding_dim: int = follow_backbone(2048)
        num_codes: int = 16384
        dictionary_seed: int = 0
        normalise: Literal["tanh", "l2"] = "tanh"
        temperature: Literal["reference", "theory"] = "reference"
        temperature_rows: int = 0
        eps: float = 1e-8
        prior: Literal["reverse", "forward"] = "reverse"
        beta: float = 1.0
        mean_of_codes: Literal["global", "device"] = "global"

        def __post_init__(self) -> None:
            super().__post_init__()
            self.require(0 < self.eps * self.num_codes < 1, "eps", f"lies in (0, 1/{self.num_codes})")

    config: Config
    batch_rows: Tensor

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        f = config.embedding_dim
        self.projector = nn.Sequential(nn.Linear(feature_dim, f), nn.BatchNorm1d(f))
        self.dictionary = SignDictionary(f, config.num_codes, config.dictionary_seed)
        self.register_buffer("batch_rows", torch.tensor(0))
        self._batch_rows = 0  # the same, without asking a device

    def loss(self, views: Sequence[Tensor]) -> Step:
        """Views, each [n, 3, S, S], to prior and invariance."""
        check_views(views, self.views_needed)
        if self.training:
            self._batch_rows = len(views[0]) * world()[1]
            self.batch_rows.fill_(self._batch_rows)
        taps = [self._embed(view) for view in views]
        e = [tap["projector"] for tap in taps]
        config, scale = self.config, self._scale(len(views[0]))
        everywhere = config.mean_of_codes == "global"
        terms = cplearn_loss(e, self.dictionary, scale, config.beta, config.prior, everywhere)
        return Step(terms.pop("loss"), taps[0], terms)

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        """Images [n, 3, S, S] to h [n, F], e [n, f] and scores z [n, c]."""
        taps = self._embed(x)
        return {**taps, "codes": _scores(taps["projector"], self.dictionary, self._scale(len(x)))}

    def _embed(self, x: Tensor) -> dict[str, Tensor]:
        h = self.backbone(x)
        e = self.projector(h)
        e = e.tanh() if self.config.normalise == "tanh" else F.normalize(e, dim=1) * e.shape[1] ** 0.5
        return {"backbone": h, "projector": e}

    def _scale(self, rows: int) -> float:
        config = self.config
        n = config.temperature_rows or self._batch_rows or rows
        tau = cplearn_temperature(config.embedding_dim, config.num_codes, n, config.eps)
        return 1.0 / tau / (math.sqrt(n) if config.temperature == "theory" else 1.0)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *rest: Any) -> None:
        floats = state_dict.pop(prefix + "code_matrix", None)  # how the reference stores its dictionary
        if floats is not None:
            if floats.shape != self.dictionary.shape:
                raise UsageError(
                    f"the dictionary that is loaded has {tuple(floats.shape)} signs, not "
                    f"{self.dictionary.shape}: set embedding-dim and num-codes to its sizes"
                )
            state_dict[prefix + "dictionary.bits"] = self.dictionary.pack(floats)
            state_dict.setdefault(prefix + "batch_rows", self.batch_rows)  # which it does not know
        super()._load_from_state_dict(state_dict, prefix, *rest)
        self._batch_rows = int(self.batch_rows)
