"""Parquet of images whose labels, columns, files or descriptions are not what they say."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from faults.refusals import assert_refused
from fullrank.images.opening import open_data

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write(file: Path, labels: Any, kind: Any = None, said: Any = None) -> None:
    """Ten images with labels, and what the Hub says of the columns."""
    images = pa.array([{"bytes": png(i), "path": f"{i}.png"} for i in range(10)], IMAGE)
    table = pa.table({"image": images, "label": pa.array(labels, kind)})
    text = said if isinstance(said, str) else json.dumps({"info": {"features": said or {}}})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": text}), file)


NAMES = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": 7}}
LABELS: dict[str, tuple[list[Any], Any]] = {
    "beyond int64": ([2**64 - 1] * 10, pa.uint64()),
    "beyond every class": ([2**63 - 1] * 5 + [0] * 5, pa.int64()),
    "negative": ([-5] * 5 + [0] * 5, pa.int64()),
    "a decimal number": ([Decimal(10) ** 30] * 10, pa.decimal128(38)),
    "broken": ([1.5] * 10, pa.float64()),
    "NaN": ([float("nan")] * 10, pa.float64()),
    "a list": ([[1, 2]] * 10, pa.list_(pa.int64())),
    "a time": ([1] * 10, pa.timestamp("s")),
}
ADDRESSES = ("{}", "hub:{}")


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("labels", LABELS)
def test_a_label_that_is_no_class_is_named(tmp_path: Path, labels: str, address: str) -> None:
    write(tmp_path / "set" / "train-0.parquet", *LABELS[labels])
    with assert_refused("column 'label' holds the label .*: a label is a word, or the number of a class", 60):
        open_data(address.format(tmp_path / "set"))


def _no_names(folder: Path) -> None:
    write(folder / "train-0.parquet", list(range(10)), said=NAMES)


def _deep(folder: Path) -> None:
    write(folder / "train-0.parquet", list(range(10)), said="{" * 3000)


def _words_and_numbers(folder: Path) -> None:
    write(folder / "train-0.parquet", list(range(10)))
    write(folder / "train-1.parquet", ["cat"] * 10)


def _two_columns_of_one_name(folder: Path) -> None:
    images = pa.array([{"bytes": png(i), "path": ""} for i in range(10)], IMAGE)
    folder.mkdir()
    pq.write_table(pa.Table.from_arrays([images, images], ["image", "image"]), folder / "train-0.parquet")


def _nothing_there(folder: Path) -> None:
    (folder / "a" / "b" / "c\nd").mkdir(parents=True)
    write(folder / "a" / "b" / "c\nd" / "\x1b[31m.parquet", list(range(10)))


SETS: dict[str, tuple[Callable[[Path], None], str]] = {
    "names of classes are a number": (_no_names, "names of classes are damaged"),
    "a description of any depth": (_deep, "what .* says of its columns is nested more than 64 deep"),
    "words in one file, numbers in another": (_words_and_numbers, "'label'.*(words and 0|of same type|same)"),
    "two columns of one name": (_two_columns_of_one_name, "several columns called 'image'"),
    "files too far down": (_nothing_there, "no images|holds no files"),
}


@pytest.mark.parametrize("address", ADDRESSES)
@pytest.mark.parametrize("kind", SETS)
def test_a_set_that_is_not_what_it_says_is_one_line(tmp_path: Path, kind: str, address: str) -> None:
    make, words = SETS[kind]
    make(tmp_path / "set")
    with assert_refused(words, 60):
        open_data(address.format(tmp_path / "set"))


def test_a_link_to_nothing_among_the_files_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train-0.parquet", list(range(10)))
    (tmp_path / "train-1.parquet").symlink_to("nowhere")
    with assert_refused("train-1.parquet cannot be opened: No such file"):
        open_data(str(tmp_path))


@pytest.mark.parametrize("address", ADDRESSES)
def test_files_that_are_missing_by_their_numbers_are_counted(tmp_path: Path, address: str) -> None:
    for number in (0, 2):
        write(tmp_path / "set" / f"train-{number:05}-of-00003.parquet", list(range(10)))
    notes = open_data(address.format(tmp_path / "set")).notes
    assert any("2 of the 3 files" in note and "train-*-of-00003.parquet are there" in note for note in notes)


def test_a_readme_whose_aliases_explode_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "set" / "train-0.parquet", list(range(10)))
    lists = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    (tmp_path / "set" / "README.md").write_text("\n".join(["---", "a: &a [x]", *lists, "configs: *i", "---"]))
    with assert_refused("head of .*README.md is damaged: it holds more than 100,000 values", 60):
        open_data(f"hub:{tmp_path / 'set'}")
