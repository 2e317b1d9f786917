"""Names of tar shards: each file once, however it is spelt, and no more of them than can be read."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fullrank.errors import DataError, UsageError
from fullrank.images.opening import open_data
from fullrank.images.shard_names import MOST_NAMES, count_names, expanded
from images.shard_writer import pixels, write_members, write_shards


def linked(folder: Path) -> None:
    (folder / "latest.tar").symlink_to("part-00001.tar")


def linked_first(folder: Path) -> None:
    (folder / "a.tar").symlink_to("part-00000.tar")


def hard_linked(folder: Path) -> None:
    os.link(folder / "part-00000.tar", folder / "same.tar")


def looped(folder: Path) -> None:
    (folder / "loop").symlink_to(".")


def looped_above(folder: Path) -> None:
    (folder / "above").symlink_to("..")
    write_shards(folder.parent, [5], prefix="others")


def linked_folder(folder: Path) -> None:
    (folder / "inside").mkdir()
    (folder / "part-00001.tar").rename(folder / "inside" / "x.tar")
    (folder / "again").symlink_to("inside")


@pytest.mark.parametrize(
    ("spoil", "passed_over"),
    [
        (linked, "latest.tar"),
        (linked_first, "a.tar"),
        (hard_linked, "same.tar"),
        (looped, ""),
        (looped_above, ""),
        (linked_folder, "again/x.tar"),
    ],
)
def test_a_folder_gives_each_shard_once(
    tmp_path: Path, spoil: Callable[[Path], None], passed_over: str
) -> None:
    folder = tmp_path / "shards"
    write_shards(folder, [20, 20])
    spoil(folder)
    data = open_data(f"shards:{folder}")
    assert len(data.train) + len(data.held_out) == 40
    says = f"1 other name of a shard is passed over: {folder / passed_over}"
    assert (says in data.notes) == bool(passed_over)


@pytest.mark.parametrize(
    "second", ["a/../a/part-00000.tar", "a//part-00000.tar", "link.tar", "b/part-00000.tar", "hard.tar"]
)
def test_a_pattern_that_names_a_shard_twice_is_refused_in_any_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_shards(Path("a"), [10])
    Path("link.tar").symlink_to("a/part-00000.tar")
    Path("b").symlink_to("a")
    os.link("a/part-00000.tar", "hard.tar")
    with pytest.raises(UsageError, match=r"names a/part-00000.tar twice.*once an epoch") as refused:
        open_data(f"shards:a/part-00000.tar::{second}")
    assert "\n" not in str(refused.value)


NAMES = st.recursive(
    st.sampled_from(
        ["x", "{0..3}", "{08..11}", "{9..1..3}", "{4..4}", "{-2..2}", r"\{a\,b\}", "{y}", "a,b", ""]
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: "{" + ",".join(parts) + "}"),
        st.lists(inner, min_size=1, max_size=2).map("".join),
    ),
    max_leaves=6,
)


@given(NAMES)
def test_as_many_names_are_counted_as_braces_expand_to(pattern: str) -> None:
    shardlists = pytest.importorskip("webdataset.shardlists")
    assert count_names(pattern) == len(shardlists.expand_urls(pattern))


@pytest.mark.parametrize(
    ("pattern", "many"),
    [
        ("{0..99999999999}", "100,000,000,000"),
        ("{0..999}{0..999}{0..999}", "1,000,000,000"),
        ("{a,{0..9999999999}b}}", "10,000,000,001"),  # nor where a brace has no partner
        ("{0..999999}::{0..999999}", "2,000,000"),
        ("{0..9}" * 40, "more than 10^15"),
    ],
)
def test_more_names_than_can_be_meant_are_refused_and_not_made(pattern: str, many: str) -> None:
    with pytest.raises(UsageError) as refused:
        expanded(pattern)
    assert f"expands to {many} names, and at most {MOST_NAMES:,} are taken" in str(refused.value)


@pytest.mark.parametrize("address", ["{}::", "::{}", "{}::::{}", "{}:: "])
def test_an_empty_part_is_refused_by_name(tmp_path: Path, address: str) -> None:
    path = write_shards(tmp_path, [10])[0]
    with pytest.raises(UsageError, match="has an empty part: `::` stands between two patterns"):
        open_data("shards:" + address.replace("{}", str(path)))


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("a\0b", r"a\x00b has a NUL in it"),
        ("\0", r"\x00 has a NUL in it"),
        ("a.tar::b\0.tar", "has a NUL in it"),
        ("~nobody-of-this-name/x.tar", "the shard is not there: ~nobody"),
        ("x" * 5000, "the shard is not there: xxx"),
        ("{0..3", "cannot be expanded: Unbalanced braces"),
        ("{0.." + "9" * 5000 + "}", "cannot be expanded"),
        ("\x1b[31mred.tar", r"\x1b[31mred.tar"),
    ],
)
def test_an_address_that_names_no_file_is_refused_in_a_line(address: str, says: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_data(f"shards:{address}")
    assert says in str(refused.value) and str(refused.value).isprintable()


def test_a_long_pattern_is_no_name_that_is_too_long(tmp_path: Path) -> None:
    paths = write_shards(tmp_path, [1] * 60)
    data = open_data("shards:{" + ",".join(map(str, paths)) + "}")
    assert len(data.train) + len(data.held_out) == 60


def test_samples_of_one_key_are_said_to_be(tmp_path: Path) -> None:
    path = write_members(tmp_path / "x.tar", [("a.ppm", pixels(i)) for i in range(40)])
    with pytest.raises(
        DataError, match=r"1 image; .*39 files are left out \(a second .ppm of the same sample\)"
    ):
        open_data(f"shards:{path}")
