"""Labels in tar shards: what is a number, what a word, and what is neither is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from fullrank.images.opening import open_data
from fullrank.images.shard_labels import UnusableLabelError, label_in
from images.shard_writer import Member, pixels, write_members

HUGE = b"9" * 6000


@pytest.mark.parametrize(
    ("suffix", "content", "label"),
    [
        ("cls", b"7", 7), ("cls", b" 07\n", 7), ("cls", b"+7", 7), ("cls", b"2147483647", (1 << 31) - 1),
        ("cls", b"1_0", "1_0"), ("cls", b"1.0", "1.0"), ("cls", "\u0661".encode(), "\u0661"),
        ("cls", b"dog", "dog"),
        ("cls", b"0" * 6000 + b"3", 3), ("json", b'{"label": 1}', 1), ("json", b'{"label": 1.0}', 1),
        ("json", b'{"label": 1e3}', 1000), ("json", b'{"label": "1"}', 1),
        ("json", b'{"class": "dog"}', "dog"),
        ("json", b'{"label": null}', None), ("json", b'{"caption": "x"}', None), ("json", b"{}", None),
    ],
)  # fmt: skip
def test_a_label_is_a_whole_number_or_a_word(suffix: str, content: bytes, label: object) -> None:
    got = label_in(suffix, content)
    assert got == label and type(got) is type(label)


@pytest.mark.parametrize(
    ("suffix", "content", "shown"),
    [
        ("cls", b"-1", "-1"), ("cls", b"2147483648", "2147483648"), ("cls", HUGE, "9" * 40 + "..."),
        ("cls", b"", "''"),
        ("json", b'{"label": -1}', "-1"), ("json", b'{"label": 1.5}', "1.5"),
        ("json", b'{"label": [1]}', "[1]"),
        ("json", b'{"label": true}', "True"), ("json", b'{"label": {"a": 1}}', "{'a': 1}"),
        ("json", b'{"label": 1e300}', "1" + "0" * 39 + "..."), ("json", b"[1", "[1"), ("json", b"5", "5"),
        ("json", b'{"label": ""}', "''"), ("json", b"\x1b[31m", "\\x1b[31m"),
    ],
)  # fmt: skip
def test_what_is_neither_is_refused_and_shown_in_brief(suffix: str, content: bytes, shown: str) -> None:
    with pytest.raises(UnusableLabelError) as refused:
        label_in(suffix, content)
    if shown.startswith("1000"):
        assert str(refused.value).startswith("1000") and len(str(refused.value)) < 50
    else:
        assert str(refused.value) == shown


def test_labels_that_are_passed_over_are_counted_in_one_note(tmp_path: Path) -> None:
    bad = {3: b"-1", 8: b"99999999999", 21: b""}
    members: list[Member] = []
    for i in range(40):
        members += [(f"{i:03}.ppm", pixels(i)), (f"{i:03}.cls", bad.get(i, b"1"))]
    path = write_members(tmp_path / "x.tar", members)
    data = open_data(f"shards:{path}")
    assert [note for note in data.notes if "usable" in note] == [
        f"3 of 40 images have no usable label, as {path} 003: -1"
    ]


def test_a_usable_label_in_the_json_makes_good_for_one_in_cls(tmp_path: Path) -> None:
    members: list[Member] = []
    for i in range(4):
        members += [(f"{i}.ppm", pixels(i)), (f"{i}.cls", b"-1"), (f"{i}.json", b'{"label": 2}')]
    data = open_data(f"shards:{write_members(tmp_path / 'x.tar', members)}")
    assert data.train.labels is not None and set(data.train.labels.tolist()) == {2}
    assert not any("usable" in note for note in data.notes)
