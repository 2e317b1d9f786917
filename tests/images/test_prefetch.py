"""Batches sent ahead: the same ones, in order, and never read before they have arrived."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from fullrank.images.loader import Batch, prefetch

META = torch.device("meta")


class Diary:
    """Stands in for a device's module and notes what happens when."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def Stream(self) -> Diary:
        return self

    def current_stream(self) -> Diary:
        return self

    def wait_stream(self, other: Diary) -> None:
        self.lines.append("wait")

    @contextmanager
    def stream(self, side: Diary) -> Iterator[None]:
        self.lines.append("send")
        yield
        self.lines.append("sent")


def batches(n: int, views: int = 0) -> Iterator[Batch]:
    for step in range(n):
        image = torch.full((2, 3, 4, 4), step, dtype=torch.uint8)
        yield step, (torch.tensor([step, step]), [image] * views if views else image)


@pytest.mark.parametrize("n", [0, 1, 4])
@pytest.mark.parametrize("views", [0, 2], ids=["images", "views"])
def test_every_batch_comes_once_and_in_order(n: int, views: int) -> None:
    ahead = list(prefetch(batches(n, views), torch.device("cpu")))
    assert [step for step, _ in ahead] == list(range(n))
    for (_, (indices, images)), (_, (same, theirs)) in zip(ahead, batches(n, views), strict=True):
        assert torch.equal(indices, same)
        torch.testing.assert_close(images, theirs, rtol=0, atol=0)


def test_a_batch_is_sent_while_the_one_before_is_used_and_waited_for_when_its_turn_comes() -> None:
    diary = Diary()
    for step, (indices, images) in prefetch(batches(3), META, diary):
        assert images.device == META  # type: ignore[union-attr]
        assert indices.device.type == "cpu"
        diary.lines.append(f"use {step}")
    assert [line for line in diary.lines if line != "sent"] == [
        "send", "send", "wait", "use 0", "send", "wait", "use 1", "wait", "use 2",
    ]  # fmt: skip


def test_what_is_wrong_with_a_batch_is_said_not_swallowed() -> None:
    def broken() -> Iterator[Batch]:
        yield from batches(2)
        raise ValueError("cannot be decoded")

    with pytest.raises(ValueError, match="cannot be decoded"):
        list(prefetch(broken(), META, Diary()))
