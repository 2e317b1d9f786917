"""Maps for FiftyOne: its documented layout, and its own importer where the package is."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fullrank.errors import UsageError
from fullrank.features.fiftyone import write_fiftyone
from fullrank.features.maps import FeatureMap, Points
from fullrank.images.opening import open_data
from fullrank.images.sources import MemorySource

INDICES = np.array([11, 3, 7])  # not in order
LABELS = np.array([1, -1, 0])


def a_map(indices: np.ndarray = INDICES, labels: np.ndarray | None = LABELS) -> FeatureMap:
    places = np.stack([indices, -indices], 1).astype(float)
    return FeatureMap(
        places, ("x", "y"), Points(torch.zeros(len(indices), 2), indices, labels, ["cat", "dog"])
    )


def memory() -> MemorySource:
    values = torch.arange(12, dtype=torch.uint8)[:, None, None, None]
    return MemorySource(name="grey", images=values.expand(-1, 3, 4, 5).contiguous())


def read(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "labels.json").read_text())
    return values


def test_every_image_has_its_class_and_none_where_it_has_none(tmp_path: Path) -> None:
    write_fiftyone(a_map(), memory(), tmp_path)
    assert read(tmp_path) == {
        "classes": ["cat", "dog"],
        "labels": {"03": None, "07": {"label": "cat"}, "11": {"label": "dog"}},
    }


def test_images_in_memory_are_written_without_loss_under_their_names(tmp_path: Path) -> None:
    assert write_fiftyone(a_map(), memory(), tmp_path) == ["labels.json", "places.npy", "data"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["03.png", "07.png", "11.png"]
    assert np.array(Image.open(tmp_path / "data" / "07.png")).tolist() == np.full((4, 5, 3), 7).tolist()


def test_places_are_in_the_order_of_the_names(tmp_path: Path) -> None:
    write_fiftyone(a_map(), memory(), tmp_path)
    assert np.load(tmp_path / "places.npy").tolist() == [[3, -3], [7, -7], [11, -11]]


def test_files_of_images_are_named_and_not_copied(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for i in range(60):  # of two sizes, so that they are not decoded into memory
        Image.new("RGB", (40 + i % 2, 40)).save(tmp_path / "photos" / f"{i}.png")
    images = open_data(str(tmp_path / "photos")).train
    (tmp_path / "F").mkdir()
    assert write_fiftyone(a_map(np.array([5, 2]), None), images, tmp_path / "F")[-1] == "data.json"
    files = json.loads((tmp_path / "F" / "data.json").read_text())
    assert {name: Path(file).resolve() for name, file in files.items()} == {
        f"{i:02d}": Path(images.where(i)).resolve() for i in (2, 5)
    }


@pytest.mark.parametrize(
    ("indices", "says"),
    [([3, 3], "one place an image"), ([3, 12], "other images"), ([-1, 3], "other images")],
)
def test_rows_that_are_not_one_an_image_are_refused(indices: list[int], says: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=says):
        write_fiftyone(a_map(np.array(indices), None), memory(), tmp_path)


def test_the_importer_of_fiftyone_reads_what_was_written(tmp_path: Path) -> None:
    """Its importer alone, which needs no database."""
    pytest.importorskip("fiftyone")
    write_fiftyone(a_map(), memory(), tmp_path)
    importer = import_module("fiftyone.utils.data").FiftyOneImageClassificationDatasetImporter(str(tmp_path))
    importer.setup()
    found = [(Path(path).name, label and label.label) for path, _, label in importer]
    assert found == [("03.png", None), ("07.png", "cat"), ("11.png", "dog")]
    assert importer.get_dataset_info() == {"classes": ["cat", "dog"]}
