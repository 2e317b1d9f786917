"""Tar shards: each image exactly once an epoch, over ranks and workers, also killed and resumed."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fullrank.errors import DataError, UsageError
from fullrank.images import tar_shards
from fullrank.images.data_order import DataOrder, shuffled_stream
from fullrank.images.loader import Batches, evaluation_batches
from fullrank.images.opening import open_data
from fullrank.images.sources import LazySource, Source
from fullrank.images.tar_index import open_tar_index
from images.shard_writer import numbers_of, pixels, write_members, write_shards

WORKER = Path(__file__).with_name("stream_worker.py")


def lazy(source: Source) -> LazySource:
    assert isinstance(source, LazySource)
    return source


def epoch(
    source: Source, batch: int, window: int = 0, rank: int = 0, world: int = 1, workers: int = 0
) -> list[int]:
    order = DataOrder(len(source), batch, 1, window=window, groups=source.groups)
    loader = Batches(source, batch, 0, rank, world, workers, order=order)
    return [n for _, (_, images) in loader.epoch(0) for n in numbers_of(images)]  # type: ignore[arg-type]


# ---------------------------------------------------------------- order


@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(lambda sizes: sum(sizes) >= 12),
    world=st.integers(1, 3),
    per_rank=st.integers(1, 3),
    window=st.integers(0, 20),
)
def test_each_image_comes_once_for_any_shards_and_ranks(
    sizes: list[int], world: int, per_rank: int, window: int
) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_shards(Path(name), sizes)
        train = open_data(f"shards:{name}", seed=1).train
        batch = world * per_rank
        seen = [epoch(train, batch, window, rank, world) for rank in range(world)]
        every = [n for part in seen for n in part]
        assert len({len(part) for part in seen}) == 1  # all ranks make the same number of steps
        assert len(set(every)) == len(every) == len(train) - len(train) % batch
        assert set(every) <= set(lazy(train).index.tolist())


@settings(max_examples=4, deadline=None)
@given(sizes=st.lists(st.integers(1, 30), min_size=2, max_size=5).filter(lambda sizes: sum(sizes) >= 40))
def test_the_order_is_the_same_for_any_number_of_workers(sizes: list[int]) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_shards(Path(name), sizes)
        train = open_data(f"shards:{name}").train
        assert (
            epoch(train, 4, 10, workers=0) == epoch(train, 4, 10, workers=1) == epoch(train, 4, 10, workers=3)
        )


@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    window=st.integers(1, 200),
    seed=st.integers(0, 99),
)
def test_a_window_reads_few_shards_at_a_time_and_every_image_once(
    sizes: list[int], window: int, seed: int
) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    order = shuffled_stream(groups, window, np.random.default_rng(seed))
    assert sorted(order.tolist()) == list(range(len(groups)))
    turns = [groups[i] for i in order]
    for shard in range(len(sizes)):
        places = [at for at, of in enumerate(turns) if of == shard]
        assert places[-1] - places[0] < sizes[shard] + 2 * window


def test_shards_come_in_another_order_every_epoch_and_seed_and_epoch_decide() -> None:
    groups = np.repeat(np.arange(20), 10)
    orders = [DataOrder(200, 10, 5, seed=s, window=15, groups=groups)(e) for s in (0, 1) for e in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    again = DataOrder(200, 10, 5, seed=1, window=15, groups=groups)(1)
    assert again.tolist() == orders[3].tolist()


def test_a_window_of_everything_mixes_all_shards() -> None:
    groups = np.repeat(np.arange(10), 100)
    first = shuffled_stream(groups, 100_000, np.random.default_rng(0))[:100]
    assert len(set(groups[first])) == 10


def test_a_window_without_shards_is_refused() -> None:
    with pytest.raises(UsageError, match="--shuffle-window belongs to images in shards"):
        DataOrder(20, 2, 1, window=5)
    with pytest.raises(UsageError, match="--shuffle-window belongs to --order iid"):
        DataOrder(20, 2, 4, "cumulative", window=5, groups=np.zeros(20, np.int64))


# ---------------------------------------------------------------- ranks that are killed


def stream(
    out: Path, address: str, rank: int, window: int, batch: int, start: int = 0
) -> subprocess.Popen[str]:
    words = [sys.executable, str(WORKER), address, *map(str, (rank, 2, 2, batch, window, start)), str(out)]
    path = os.pathsep.join([str(WORKER.parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=env, stderr=subprocess.PIPE, text=True, start_new_session=True)


def lines(out: Path) -> list[list[int]]:
    """Whole lines: a step and its images."""
    text = out.read_text() if out.exists() else ""
    return [[int(word) for word in line.split()] for line in text.split("\n")[:-1]]


def one_epoch_of_two_ranks(
    folder: Path, images: int, shards: int, batch: int, window: int
) -> tuple[str, str]:
    """Steps and images of the second rank, uninterrupted, and killed and resumed."""
    sizes = [images // shards + (1 if k % 2 else -1) for k in range(shards)]  # uneven
    address = f"shards:{folder}/data/part-{{00000..{shards - 1:05}}}.tar"
    write_shards(folder / "data", sizes)
    whole = [folder / f"whole-{rank}" for rank in (0, 1)]
    for process in [stream(out, address, rank, window, batch) for rank, out in enumerate(whole)]:
        assert process.wait(timeout=1500) == 0, process.stderr and process.stderr.read()
    train = lazy(open_data(address).train)
    steps = len(train) // batch
    seen = [n for out in whole for line in lines(out) for n in line[1:]]
    assert [len(lines(out)) for out in whole] == [steps, steps]
    assert len(seen) == len(set(seen)) == steps * batch and set(seen) <= set(train.index.tolist())

    killed = folder / "killed"
    process = stream(killed, address, 1, window, batch)
    while len(lines(killed)) < steps // 3 and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = lines(killed)
    killed.write_text("".join(" ".join(map(str, line)) + "\n" for line in done))
    assert 0 < len(done) < steps
    process = stream(killed, address, 1, window, batch, start=len(done))
    assert process.wait(timeout=1500) == 0
    return whole[1].read_text(), killed.read_text()


@pytest.mark.acceptance
@pytest.mark.slow
def test_five_thousand_images_over_two_ranks_and_two_workers_come_once_also_killed_and_resumed(
    tmp_path: Path,
) -> None:
    whole, resumed = one_epoch_of_two_ranks(tmp_path, 5_000, 20, 50, 0)
    assert resumed == whole


@pytest.mark.slow
@pytest.mark.parametrize("window", [0, 10_000])
def test_two_hundred_thousand_images_over_two_ranks_and_two_workers_come_once_also_killed_and_resumed(
    tmp_path: Path, window: int
) -> None:
    whole, resumed = one_epoch_of_two_ranks(tmp_path, 200_000, 100, 250, window)
    assert resumed == whole


# ---------------------------------------------------------------- what is in shards


def test_labels_from_cls_and_json_and_none(tmp_path: Path) -> None:
    members = [
        *(("a.ppm", pixels(0)), ("a.cls", b"2")),
        *(("b.json", b'{"label": 1, "caption": "x"}'), ("b.ppm", pixels(1))),
        *(
            ("c.ppm", pixels(2)),
            ("d.ppm", pixels(3)),
            ("d.json", b"[1"),
            ("e.ppm", pixels(4)),
            ("e.cls", b"-5"),
        ),
    ]
    path = write_members(tmp_path / "x.tar", members)
    labels = open_tar_index([path]).arrays["labels"]
    assert labels.tolist() == [2, 1, -1, -1, -1]


def test_words_for_labels_are_classes_and_held_out_ones_take_the_same_numbers(tmp_path: Path) -> None:
    for split, words in {"train": ["dog", "cat"], "val": ["dog", "owl"]}.items():
        members = [
            (f"{k:03}.{end}", pixels(k) if end == "ppm" else words[k % 2].encode())
            for k in range(20)
            for end in ("ppm", "cls")
        ]
        write_members(tmp_path / f"{split}-000.tar", members)
    data = open_data(f"shards:{tmp_path}")
    assert data.train.classes == data.held_out.classes == ["cat", "dog"]
    assert data.train.labels is not None and data.train.labels[:3].tolist() == [1, 0, 1]
    assert data.held_out.labels is not None and data.held_out.labels[:3].tolist() == [1, -1, 1]


def test_folders_of_shards_have_splits(tmp_path: Path) -> None:
    write_shards(tmp_path / "train", [10, 10])
    write_shards(tmp_path / "val", [7])
    data = open_data(f"shards:{tmp_path}")
    assert (len(data.train), len(data.held_out)) == (20, 7)


@pytest.mark.parametrize(
    "pattern",
    ["part-{00000..00002}.tar", "part-*.tar", "part-{00000,00001}.tar::{folder}/part-00002.tar", ""],
)
def test_patterns_are_written_as_webdataset_does(tmp_path: Path, pattern: str) -> None:
    write_shards(tmp_path, [5, 6, 7])
    data = open_data(f"shards:{tmp_path}/{pattern.replace('{folder}', str(tmp_path))}")
    assert len(data.train) + len(data.held_out) == 18


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("part-{00000..00009}.tar", "7 of 10 shards are not there: .*part-00003.tar"),
        ("part-{0000.tar", "not there|cannot be expanded"),
        ("nothing.tar", "the shard is not there"),
        ("none-*.tar", "names no file"),
        ("part-00000.tar::{folder}/part-00000.tar", "twice"),
        ("${UNSET}.tar", "cannot be expanded"),
    ],
)
def test_shards_that_are_not_there_are_named(tmp_path: Path, pattern: str, says: str) -> None:
    write_shards(tmp_path, [5, 6, 7])
    with pytest.raises(UsageError, match=says):
        open_data(f"shards:{tmp_path}/{pattern.replace('{folder}', str(tmp_path))}")


@pytest.mark.parametrize("address", ["https://host/x.tar", "pipe:cat x.tar", "s3://bucket/{0..3}.tar"])
def test_addresses_of_other_machines_and_commands_are_refused(address: str) -> None:
    with pytest.raises(UsageError, match="is no file of this machine"):
        open_data(f"shards:{address}")


def test_many_shards_are_read_with_few_files_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_shards, "MOST_OPEN", 2)
    write_shards(tmp_path, [5] * 8)
    train = lazy(open_data(f"shards:{tmp_path}").train)
    assert sorted(epoch(train, 1)) == train.index.tolist()
    assert len(train.items._open) <= 2  # type: ignore[attr-defined]


def test_a_pickle_holds_names_and_reads_the_same(tmp_path: Path) -> None:
    write_shards(tmp_path, [2_000])
    train = lazy(open_data(f"shards:{tmp_path}").train)
    assert len(pickle.dumps(train.items)) < 2_000
    assert numbers_of(pickle.loads(pickle.dumps(train)).load(5)[None]) == [int(train.index[5])]


def test_a_shard_that_was_written_anew_is_indexed_anew(tmp_path: Path) -> None:
    write_shards(tmp_path, [20, 20])
    before = len(open_data(f"shards:{tmp_path}").train)
    write_shards(tmp_path, [20, 30])
    assert (before, len(open_data(f"shards:{tmp_path}").train)) == (40 - 4, 50 - 5)


def test_evaluation_sees_all_images_in_order(tmp_path: Path) -> None:
    write_shards(tmp_path, [30, 25])
    train = lazy(open_data(f"shards:{tmp_path}").train)
    seen = [n for _, images in evaluation_batches(train, 8) for n in numbers_of(images)]
    assert seen == train.index.tolist()


def test_a_source_of_shards_is_never_decoded_as_a_whole(tmp_path: Path) -> None:
    write_shards(tmp_path, [40])
    data = open_data(f"shards:{tmp_path}", image_size=2)
    assert not data.train.in_memory and not data.held_out.in_memory


def test_an_address_of_nothing_is_one_line() -> None:
    with pytest.raises(UsageError, match="shards: names nothing"):
        open_data("shards:")
    with pytest.raises(DataError, match=r"holds no \.tar files"), tempfile.TemporaryDirectory() as name:
        open_data(f"shards:{name}")


def test_further_images_of_a_sample_are_counted_and_the_rule_is_named(tmp_path: Path) -> None:
    members = [
        (f"{i:03}.{side}.ppm", pixels(2 * i + s))
        for i in range(50)
        for s, side in enumerate(("left", "right"))
    ]
    write_members(tmp_path / "a.tar", members)
    data = open_data(f"shards:{tmp_path}")
    assert len(data.train) + len(data.held_out) == 50
    (note,) = [note for note in data.notes if "left out" in note]
    assert note.startswith("50 files are left out (a further image of its sample") and "first dot" in note
    assert "000.right.ppm" in note


def test_images_whose_names_agree_up_to_the_first_dot_are_refused_with_the_rule(tmp_path: Path) -> None:
    write_members(tmp_path / "a.tar", [(f"im.{i}.ppm", pixels(i)) for i in range(64)])
    with pytest.raises(DataError, match=r"63 files are left out \(a further image .* first dot.*im\.1\.ppm"):
        open_data(f"shards:{tmp_path}")


def test_of_very_many_further_images_all_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullrank.images.tar_index.MOST_NAMED", 10)
    monkeypatch.setattr("fullrank.images.tar_shards.MOST_NAMED", 10)
    write_members(tmp_path / "a.tar", [(f"{i}.{part}.ppm", pixels(i)) for i in range(40) for part in "ab"])
    assert "40 further images of samples are left out in all" in open_data(f"shards:{tmp_path}").notes


@pytest.mark.parametrize("shards", [1, 2])
def test_shards_without_images_are_named(tmp_path: Path, shards: int) -> None:
    for number in range(shards):
        write_members(tmp_path / f"{number}.tar", [("a.txt", b"no image")])
    with pytest.raises(DataError, match=r"no images in .*0\.tar") as caught:
        open_data(f"shards:{tmp_path}")
    assert ("2 shards" in str(caught.value)) == (shards == 2) and "1 shards" not in str(caught.value)
