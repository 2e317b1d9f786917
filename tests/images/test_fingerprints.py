"""A fingerprint tells images from others by what is known of them without reading each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fullrank.images.fingerprints import difference, fingerprint_of
from fullrank.images.opening import open_data
from fullrank.images.sources import MemorySource
from images.shard_writer import pixels, write_members, write_shards

Change = Callable[[Path], object]


def shards(folder: Path) -> str:
    for number in range(3):
        names = range(20 * number, 20 * number + 20)
        write_members(folder / f"part-{number}.tar", [(f"{i:03}.ppm", pixels(i, 2 + number)) for i in names])
    return f"shards:{folder}"


def files(folder: Path) -> str:
    for number in range(40):
        place = folder / "ab"[number % 2] / f"{number:03}.ppm"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(pixels(number, 2))
    return str(folder)


def swap(one: Path, two: Path) -> None:
    kept = one.read_bytes()
    one.write_bytes(two.read_bytes())
    two.write_bytes(kept)


CHANGES: dict[str, tuple[Callable[[Path], str], Change, str]] = {
    "a shard replaced": (shards, lambda f: shutil.copy(f / "part-2.tar", f / "part-0.tar"), "part-0.tar"),
    "two shards swapped": (shards, lambda f: swap(f / "part-0.tar", f / "part-1.tar"), "part-0.tar and 1"),
    "a shard renamed": (shards, lambda f: (f / "part-1.tar").rename(f / "part-7.tar"), "part-7.tar is new"),
    "a file renamed": (files, lambda f: (f / "a" / "000.ppm").rename(f / "a" / "900.ppm"), "names of files"),
    "a file replaced": (files, lambda f: (f / "a" / "000.ppm").write_bytes(pixels(0, 5)), "sizes of files"),
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_other_images_of_the_same_number_are_told_apart_and_named(what: str, tmp_path: Path) -> None:
    make, change, named = CHANGES[what]
    address = make(tmp_path / "data")
    before = open_data(address)
    change(tmp_path / "data")
    now = open_data(address)
    assert len(now.train) == len(before.train)
    assert named in difference(before.fingerprint, now.fingerprint)


@pytest.mark.parametrize("make", [shards, files])
def test_the_same_images_elsewhere_have_the_same_fingerprint(
    make: Callable[[Path], str], tmp_path: Path
) -> None:
    before = open_data(make(tmp_path / "data")).fingerprint
    shutil.copytree(tmp_path / "data", tmp_path / "moved")
    now = open_data(make(tmp_path / "moved")).fingerprint
    assert before and difference(before, now) == ""


def test_one_pixel_of_images_in_memory_is_noticed() -> None:
    images = torch.zeros(9, 3, 4, 4, dtype=torch.uint8)
    before = fingerprint_of(MemorySource(name="black", images=images))
    images[7, 1, 2, 3] = 1
    assert fingerprint_of(MemorySource(name="black", images=images)) != before


def test_a_choice_of_images_depends_on_what_it_is_chosen_from(tmp_path: Path) -> None:
    write_shards(tmp_path, [40, 30])
    few, all_of_them = (open_data(f"shards:{tmp_path}", limit=limit) for limit in (10, None))
    assert few.fingerprint == all_of_them.fingerprint and len(few.train) == 10
