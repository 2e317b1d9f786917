"""A table beside the images names their classes, and one that does not fit them is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fullrank.errors import DataError
from fullrank.images.folders import open_image_folder


def images(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / name)
    return folder


def table(folder: Path, text: str, name: str = "labels.csv") -> Path:
    (folder / name).write_bytes(text.encode())
    return folder


THREE = ("a.png", "b.png", "c.png")


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("file,label\na.png,dog\nb.png,cat\nc.png,dog\n", "labels.csv"),
        ("a.png,dog\nb.png,cat\nc.png,dog\n", "labels.csv"),
        ("file_name,label\na.png,dog\nb.png,cat\nc.png,dog\n", "metadata.csv"),
        ("\ufeffFile,Label\r\na.png,dog\r\nb.png,cat\r\nc.png,dog\r\n", "labels.csv"),
        ("width,class,image\n8,dog,a.png\n8,cat,./b.png\n\n8,dog,c.png", "labels.csv"),
        ('path,label\n"a.png","dog"\nb.png , cat\nc.png,dog\n', "labels.csv"),
    ],
    ids=["header", "no header", "metadata.csv", "of a spreadsheet", "more columns", "quotes and blanks"],
)
def test_a_table_names_the_classes(tmp_path: Path, text: str, name: str) -> None:
    train, _, notes = open_image_folder(table(images(tmp_path, *THREE), text, name))
    assert train.classes == ["cat", "dog"]
    assert train.labels is not None and train.labels.tolist() == [1, 0, 1]
    assert f"labels are those of {name}" in notes


def test_numbers_are_class_numbers_and_nothing_is_no_label(tmp_path: Path) -> None:
    train, _, notes = open_image_folder(table(images(tmp_path, *THREE), "file,label\na.png,10\nb.png,\n"))
    assert train.classes is None
    assert train.labels is not None and train.labels.tolist() == [10, -1, -1]
    assert "labels are those of labels.csv, in which 2 of 3 images have none" in notes
    assert not any("left out" in note for note in notes)  # of the table that was read


def test_a_table_that_was_read_is_no_file_left_out_also_beside_held_out_images(tmp_path: Path) -> None:
    for part in ("train", "val"):
        table(images(tmp_path / part, *THREE), "file,label\na.png,cat\nb.png,dog\nc.png,cat\n")
        (tmp_path / part / "notes.txt").write_text("no image")
    train, held_out, notes = open_image_folder(tmp_path)
    assert held_out is not None
    assert [len(train.skipped), train.skipped is held_out.skipped] == [2, True]
    assert sum("notes.txt" in note for note in notes) == 1 and not any("labels.csv: " in n for n in notes)
    assert not any("labels.csv" in name for name in train.skipped)


def test_a_folder_of_which_some_images_lie_in_sub_folders_says_why_it_has_no_classes(tmp_path: Path) -> None:
    _, _, notes = open_image_folder(images(tmp_path, "cat/a.png", "dog/b.png", "c.png"))
    assert notes[0] == "the images are unlabelled, for some lie beside sub-folders with others"


@pytest.mark.parametrize("place", ["", "train/"])
def test_splits_share_their_classes(tmp_path: Path, place: str) -> None:
    images(tmp_path, "train/a.png", "train/b.png", "val/a.png", "val/b.png")
    if place:
        table(tmp_path / "train", "file,label\na.png,dog\nb.png,cat\n")
        table(tmp_path / "val", "file,label\na.png,dog\nb.png,new\n")
    else:
        rows = "train/a.png,dog\ntrain/b.png,cat\nval/a.png,dog\n"
        table(tmp_path, f"file,label\n{rows}")
    train, held_out, _ = open_image_folder(tmp_path)
    assert held_out is not None and held_out.labels is not None and train.labels is not None
    assert train.classes == held_out.classes == ["cat", "dog"]
    assert np.array_equal(train.labels, [1, 0]) and np.array_equal(held_out.labels, [1, -1])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\na.png,dog\ngone.png,cat\n", "names 1 of 2 files that are not there, as gone.png"),
        ("file,label\na.png,dog\na.png,cat\n", "line 3: a.png is named twice"),
        ("file,label\na.png,dog\n./a.png,dog\n", "line 3: a.png is named twice"),
        ("id,breed\na,dog\n", "begins with 'id,breed': .*column file"),
        ("file,breed\na.png,dog\n", "begins with 'file,breed': .*column label"),
        ("", "begins with ''"),
        ("file,label\na.png\n", "line 2: a file and a label are expected"),
        ("file,label\na.png,1.5\nb.png,1\nc.png,-7\n", None),
        ("file,label\na.png,-7\n", "holds the label -7"),
        ('file,label\n"a.png,dog\n', "is no table of labels"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_in_a_line(tmp_path: Path, text: str, said: str | None) -> None:
    folder = table(images(tmp_path, *THREE), text)
    if said is None:  # words, whatever they are made of
        assert open_image_folder(folder)[0].classes == ["-7", "1", "1.5"]
        return
    with pytest.raises(DataError, match=said) as caught:
        open_image_folder(folder)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    (images(tmp_path, *THREE) / "labels.csv").write_bytes(bytes(range(256)))
    with pytest.raises(DataError, match="is no table of labels"):
        open_image_folder(tmp_path)


def test_two_tables_are_one_too_many(tmp_path: Path) -> None:
    for name in ("labels.csv", "metadata.csv"):
        table(images(tmp_path, *THREE), "file,label\na.png,dog\n", name)
    with pytest.raises(DataError, match=r"has labels\.csv and metadata\.csv"):
        open_image_folder(tmp_path)


def test_a_table_of_other_things_than_labels_leaves_images_unlabelled(tmp_path: Path) -> None:
    table(images(tmp_path, *THREE), "file_name,text\na.png,a dog\n", "metadata.csv")
    train, _, notes = open_image_folder(tmp_path)
    assert train.labels is None and "the images are unlabelled" in notes


def test_folders_that_name_classes_go_before_a_table(tmp_path: Path) -> None:
    table(images(tmp_path, "cat/1.png", "dog/1.png"), "n01,tench\n")
    assert open_image_folder(tmp_path)[0].classes == ["cat", "dog"]
