"""A method that takes one view, or a backbone's tokens, keeps the promises of every method."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest
from torch import Tensor, nn

from fullrank.cli.listing import _taps
from fullrank.errors import UsageError
from fullrank.methods import METHODS, Method, MethodConfig, Step, build_method
from fullrank.networks.backbones import features_and_tokens
from methods import test_every_method as contract
from methods.shrunk import WIDTH, backbone

PROMISES = [
    test
    for name, test in vars(contract).items()
    if name.startswith("test_") and list(inspect.signature(test).parameters) == ["name"]
]


class FirstToken(Method):
    """Predicts an image's first token from all of its tokens (toy of no paper).

    What keeps it from collapse: nothing.
    """

    paper, year, mechanism = "no paper", 2026, "nothing"
    views_needed, needs_tokens = 1, True

    @dataclass(frozen=True)
    class Config(MethodConfig):
        """Options of the toy.

        Attributes:
            pred_hidden_dim: width of the predictor.
        """

        pred_hidden_dim: int = 64

    config: Config

    def __init__(self, backbone: nn.Module, feature_dim: int, config: Config) -> None:
        super().__init__(backbone, feature_dim, config)
        hidden = config.pred_hidden_dim
        self.predictor = nn.Sequential(nn.Linear(feature_dim, hidden), nn.Linear(hidden, feature_dim))

    def loss(self, views: Sequence[Tensor]) -> Step:
        taps, predictions = self.encode(views, "predictor")
        firsts = [features_and_tokens(self.backbone, view, self.feature_dim)[1][:, 0] for view in views]
        losses = [(p - z).square().mean() for p, z in zip(predictions, firsts, strict=True)]
        return Step(sum(losses[1:], losses[0]) / len(losses), taps)

    def embed(self, x: Tensor) -> dict[str, Tensor]:
        h, tokens = features_and_tokens(self.backbone, x, self.feature_dim)
        return {"backbone": h, "predictor": self.predictor(tokens).mean(dim=1)}


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(FirstToken, "name", "toy", raising=False)
    monkeypatch.setitem(METHODS._items, "toy", FirstToken)
    return "toy"


@pytest.mark.parametrize("promise", PROMISES, ids=lambda test: test.__name__.removeprefix("test_"))
def test_it_keeps_what_every_method_promises(promise: Callable[[str], None], toy: str) -> None:
    promise(toy)


def test_a_backbone_without_tokens_is_refused_where_they_are_needed(toy: str) -> None:
    with pytest.raises(UsageError, match="toy needs a backbone with tokens"):
        build_method(toy, backbone(), WIDTH)


def test_its_taps_are_listed(toy: str) -> None:
    assert _taps(toy) == ["backbone", "predictor"]
