"""Feature maps with images and classes, in a layout that FiftyOne imports.

`FiftyOneImageClassificationDataset`, as its documentation describes it, with the places beside it:

    F/labels.json    {"classes": [...], "labels": {NAME: {"label": "cat"}, ...}}; null where an image has none
    F/data.json      {NAME: file} where images lie in files of their own, else F/data/NAME.png
    F/places.npy     float64 [m, 2], in the order of the names, which is that of FiftyOne's samples
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from fullrank.encoders.runs import own_data, own_run
from fullrank.errors import UsageError, printable
from fullrank.features.maps import FeatureMap
from fullrank.features.subject import StoredSubject, kind_of, open_subject
from fullrank.images.opening import open_data
from fullrank.images.sources import Indices, LazySource, Source
from fullrank.images.walking import Files
from fullrank.options import SubjectOptions


def mapped_images(what: str | Path, split: str = "", data: str = "", download: bool = False) -> Source:
    """Open the images that stored features are of.

    Args:
        what: a folder that `fullrank embed` wrote.
        split: as in `read_features`.
        data: the images, as they were named then: a folder, a name, or the run whose images they are.
        download: fetch data that are not there.

    Raises:
        UsageError: embeddings without images, no `data`, or other images than the features are of.
    """
    subject = open_subject(what, SubjectOptions(), kind=kind_of(what))
    if not isinstance(subject, StoredSubject):
        raise UsageError(
            f"FiftyOne shows images, and {what} knows none: map a folder that `fullrank embed` wrote"
        )
    chosen, stored = subject.split(split)
    said = stored.provenance
    if not data:  # what a file names is not opened unasked
        named = printable(f"{said.get('data')}, or the run {said.get('subject')}")
        raise UsageError(f"add --data with the images that the features are of: {named}")
    limit = int(said.get("limit") or 0)
    run = own_run(data)
    opened = own_data(run.config(), limit, download) if run else _named(data, limit, download)
    source = opened.train if chosen == "train" else opened.held_out
    if len(source) != said.get("images"):
        raise UsageError(
            f"{data} has {len(source):,} {chosen} images, and the features are of {said.get('images')}"
        )
    if not _same_classes(source, stored.indices.numpy(), stored.labels, said.get("classes")):
        raise UsageError(f"{data} holds other images than the features are of: their classes differ")
    return source


def _same_classes(source: Source, indices: Indices, labels: Tensor | None, classes: Any) -> bool:
    theirs = (
        source.labels_at(indices)
        if len(indices) and 0 <= indices.min() <= indices.max() < len(source)
        else None
    )
    if labels is None or theirs is None:
        return labels is None and source.labels is None
    return bool((labels.numpy() == theirs).all()) and list(classes or []) == list(source.classes or [])


def _named(data: str, limit: int, download: bool) -> Any:
    return open_data(data, limit=limit or None, download=download)


def write_fiftyone(found: FeatureMap, images: Source, folder: Path) -> list[str]:
    """Write a map and its images into a folder; returns the names of what was written.

    Files of images are named, not copied; other images are written as PNG.

    Args:
        found: the map.
        images: that the indices of its points count.
        folder: which exists.

    Raises:
        UsageError: several points of one image, or indices of other images.
        ImageError: an image cannot be decoded.
    """
    indices = found.points.indices
    if len(np.unique(indices)) < len(indices):
        raise UsageError(
            "FiftyOne has one place an image, and these rows are of patches or views: embed images"
        )
    if len(indices) and not 0 <= indices.min() <= indices.max() < len(images):
        raise UsageError(f"the features are of other images than the {len(images):,} of {images.name}")
    order = np.argsort(indices)
    wide = len(str(len(images)))
    names = [f"{index:0{wide}d}" for index in indices[order].tolist()]
    labels = dict(zip(names, (_label(found, int(row)) for row in order), strict=True))
    classes = list(found.points.classes) if found.points.classes is not None else None
    whole = {"classes": classes, "labels": labels}
    (folder / "labels.json").write_text(json.dumps(whole, indent=1), encoding="utf-8")
    np.save(folder / "places.npy", found.places[order].astype(np.float64))
    numbered = dict(zip(names, indices[order].tolist(), strict=True))
    return ["labels.json", "places.npy", _write_images(numbered, images, folder)]


def _label(found: FeatureMap, row: int) -> dict[str, str] | None:
    labels, classes = found.points.labels, found.points.classes
    if labels is None or labels[row] < 0:
        return None
    label = int(labels[row])
    return {"label": classes[label] if classes is not None and label < len(classes) else str(label)}


def _write_images(numbered: dict[str, int], images: Source, folder: Path) -> str:
    """Write a list of the files of images, or the images; the name of either."""
    if isinstance(images, LazySource) and isinstance(images.items, Files):
        files = {name: str(images.items[int(images.index[i])].resolve()) for name, i in numbered.items()}
        (folder / "data.json").write_text(json.dumps(files, indent=1), encoding="utf-8")
        return "data.json"
    from PIL import Image

    (folder / "data").mkdir()
    for name, i in numbered.items():
        Image.fromarray(images.load(i).permute(1, 2, 0).numpy()).save(folder / "data" / f"{name}.png")
    return "data"
