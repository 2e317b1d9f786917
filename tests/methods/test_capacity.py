"""To ask how many directions a tap can have changes nothing of a method."""

from __future__ import annotations

import pytest
import torch

from fullrank.errors import UnknownNameError
from fullrank.methods import METHODS
from methods.shrunk import method


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("training", [True, False])
def test_a_method_is_afterwards_as_it_was(name: str, training: bool) -> None:
    m = method(name).train(training)
    before = {key: value.clone() for key, value in m.state_dict().items()}
    modes = [part.training for part in m.modules()]
    backbone = m.backbone
    m.capacities()
    assert m.backbone is backbone
    assert [part.training for part in m.modules()] == modes
    assert all(torch.equal(before[key], value) for key, value in m.state_dict().items())


@pytest.mark.parametrize("name", METHODS)
def test_a_tap_is_asked_for_by_its_name(name: str) -> None:
    m = method(name)
    assert {tap: m.capacity(tap) for tap in m.capacities()} == m.capacities()
    with pytest.raises(UnknownNameError, match="did you mean 'backbone'"):
        m.capacity("backbones")
