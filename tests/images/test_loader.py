import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from fullrank.errors import DataError, UsageError
from fullrank.images.batch_loaders import worker_count
from fullrank.images.folders import open_image_folder
from fullrank.images.loader import Batches, evaluation_batches
from fullrank.images.sources import LazySource, MemorySource, Source


@pytest.fixture
def memory() -> MemorySource:
    images = torch.arange(23, dtype=torch.uint8)[:, None, None, None].expand(23, 3, 6, 6).clone()
    return MemorySource(name="grey", images=images)


@pytest.fixture
def lazy(tmp_path: Path) -> LazySource:
    """23 images of several sizes; all pixels of image i are i."""
    for i in range(23):
        Image.new("RGB", (6 + i % 3, 8), (i, i, i)).save(tmp_path / f"{i:02}.png")
    source, _, _ = open_image_folder(tmp_path)
    return LazySource(name="grey", items=source.items, index=source.index, usual_size=(6, 6), tolerance=1)


@pytest.fixture(params=["memory", "lazy"])
def source(request: pytest.FixtureRequest) -> Source:
    made: Source = request.getfixturevalue(request.param)
    return made


class Corners:
    """Two views, of two sizes, that also say what they were asked for."""

    def __call__(self, image: Tensor, index: int, epoch: int, position: int) -> list[Tensor]:
        asked = torch.tensor([index, epoch, position], dtype=torch.uint8)[:, None, None].expand(3, 2, 2)
        return [image[:, :4, :4], asked]


def indices_of(loader: Batches, epoch: int, start_step: int = 0) -> list[list[int]]:
    return [indices.tolist() for _, (indices, _) in loader.epoch(epoch, start_step)]


def test_images_are_those_of_the_indices(source: Source) -> None:
    for step, (indices, images) in Batches(source, 5, seed=0).epoch(0):
        assert 0 <= step < 4
        assert isinstance(images, Tensor)
        assert images.shape == (5, 3, 6, 6) and images.dtype == torch.uint8
        assert (images[:, 0, 0, 0] == indices).all()


def test_epochs_are_full_different_and_repeatable(source: Source) -> None:
    loader, again = Batches(source, 5, seed=0), Batches(source, 5, seed=0)
    first = indices_of(loader, 0)
    assert len(first) == len(loader) == 4
    assert len({i for batch in first for i in batch}) == 20
    assert first != indices_of(loader, 1)
    assert first == indices_of(again, 0) == indices_of(loader, 0)
    assert first != indices_of(Batches(source, 5, seed=1), 0)


def test_memory_and_lazy_share_one_order(memory: MemorySource, lazy: LazySource) -> None:
    assert indices_of(Batches(memory, 5, seed=0), 3) == indices_of(Batches(lazy, 5, seed=0), 3)


def test_two_ranks_in_turn_are_one(source: Source) -> None:
    whole = indices_of(Batches(source, 6, seed=0), 2)
    left, right = (indices_of(Batches(source, 6, seed=0, rank=rank, world_size=2), 2) for rank in (0, 1))
    assert whole == [a + b for a, b in zip(left, right, strict=True)]


def test_a_start_step_is_a_skip_that_decodes_nothing(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = Batches(source, 5, seed=0)
    whole, loaded = indices_of(loader, 1), list[int]()
    original = LazySource.load

    def load(self: LazySource, i: int) -> Any:
        loaded.append(i)
        return original(self, i)

    monkeypatch.setattr(LazySource, "load", load)
    assert [step for step, _ in loader.epoch(1, start_step=2)] == [2, 3]
    assert sorted(loaded) in ([], sorted(whole[2] + whole[3]))
    assert indices_of(loader, 1, start_step=2) == whole[2:]
    assert indices_of(loader, 1, start_step=4) == []
    with pytest.raises(UsageError, match="no step 5 in an epoch of 4 steps"):
        loader.epoch(1, start_step=5)


def test_workers_change_nothing_and_outlive_a_broken_off_epoch(lazy: LazySource) -> None:
    plain, worked = (Batches(lazy, 4, seed=0, workers=n, crop=Corners()) for n in (0, 1))
    next(iter(worked.epoch(0)))  # broken off with batches under way
    for epoch in (0, 1):
        for (_, one), (_, other) in zip(plain.epoch(epoch), worked.epoch(epoch), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_crop_is_told_index_epoch_and_global_position(lazy: LazySource) -> None:
    for rank in (0, 1):
        loader = Batches(lazy, 6, seed=0, rank=rank, world_size=2, crop=Corners())
        for step, (indices, (views, asked)) in loader.epoch(9):
            assert views.shape == (3, 3, 4, 4)
            positions = asked[:, :, 0, 0].tolist()
            assert positions == [[i, 9, 6 * step + 3 * rank + k] for k, i in enumerate(indices.tolist())]


def test_another_order_can_be_given(memory: MemorySource) -> None:
    loader = Batches(memory, 2, seed=0, order=lambda epoch: np.array([epoch] * 4))
    assert indices_of(loader, 7) == [[7, 7], [7, 7]]


def test_sizes_that_cannot_be(memory: MemorySource) -> None:
    with pytest.raises(UsageError, match="batch size 24 is larger than the 23 training images"):
        Batches(memory, 24, seed=0)
    with pytest.raises(
        UsageError, match="batch size 7 cannot be shared by 2 processes; use a multiple of 2, as 6"
    ):
        Batches(memory, 7, seed=0, world_size=2)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_is_replaced_and_counted(lazy: LazySource, workers: int) -> None:
    Path(lazy.where(11)).write_text("not an image")
    loader = Batches(lazy, 23, seed=0, workers=workers)
    for epoch in (0, 1):  # counted once, however often it is met
        ((_, (indices, images)),) = loader.epoch(epoch)
        assert sorted(indices.tolist()) == sorted([*range(11), 12, *range(12, 23)])
        assert isinstance(images, Tensor)
        assert (images[:, 0, 0, 0] == indices).all()
    assert loader.corrupt == {11}


@pytest.mark.filterwarnings("error")
def test_as_many_processes_as_cores_are_no_reason_for_a_warning(
    lazy: LazySource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    assert [worker_count(n) for n in (-1, 0, 3)] == [2, 0, 3]
    Batches(lazy, 4, seed=0, workers=-1)


def test_too_many_corrupt_images_stop_the_training(lazy: LazySource) -> None:
    for i in (11, 12):
        Path(lazy.where(i)).write_bytes(b"")
    with pytest.raises(
        DataError, match=r"grey: 2 of 23 images cannot be decoded: .*11.png, .*12.png"
    ) as stopped:
        list(Batches(lazy, 23, seed=0).epoch(0))
    assert "\n" not in str(stopped.value)


def test_evaluation_is_in_order_and_complete(source: Source) -> None:
    ranks = [evaluation_batches(source, 4, image_size=4, rank=rank, world_size=3) for rank in range(3)]
    parts = [batch for rank in ranks for batch in rank]
    indices, images = torch.cat([i for i, _ in parts]), torch.cat([x for _, x in parts])
    assert indices.tolist() == list(range(23))
    assert images.shape == (23, 3, 4, 4)
    assert (images[:, 1, 2, 2] == indices).all()


def test_evaluation_leaves_out_what_is_corrupt(lazy: LazySource) -> None:
    Path(lazy.where(4)).write_bytes(b"")
    seen = [i for indices, _ in evaluation_batches(lazy, 1) for i in indices.tolist()]
    assert seen == [*range(4), *range(5, 23)]


def test_evaluation_crops_the_centre() -> None:
    ramp = torch.arange(8, dtype=torch.uint8).mul(10).expand(1, 3, 8, 8).contiguous()
    source = MemorySource(name="ramp", images=ramp)
    ((_, images),) = evaluation_batches(source, 1, image_size=4, crop_ratio=0.5)
    assert images[0, 0, 0].tolist() == [20, 30, 40, 50]


def test_an_unknown_size_is_one_clear_line(lazy: LazySource) -> None:
    sizeless = LazySource(name="many", items=lazy.items, index=lazy.index)
    with pytest.raises(UsageError, match="many does not say how large its images are"):
        evaluation_batches(sizeless, 4)


def test_a_dropped_loader_lets_its_workers_go_at_once(lazy: LazySource) -> None:
    loader = Batches(lazy, 4, seed=0, workers=1)
    list(loader.epoch(0))
    gone = weakref.ref(loader)
    del loader
    assert gone() is None  # no cycle: waiting for the collector would cost seconds per loader
