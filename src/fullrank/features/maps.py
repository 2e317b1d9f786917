"""Features on a plane: principal axes, or UMAP where its package is."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fullrank.errors import DataError, UsageError
from fullrank.features.embeddings import Rows
from fullrank.features.subject import StoredSubject, kind_of, open_subject
from fullrank.options import SubjectOptions

Reduction: TypeAlias = Literal["pca", "umap"]


@dataclass(frozen=True)
class Points:
    """Features for a map: rows [m, d] with their images and labels."""

    rows: Tensor
    indices: np.ndarray
    labels: np.ndarray | None = None
    classes: Sequence[str] | None = None
    name: str = ""


@dataclass(frozen=True)
class FeatureMap:
    """Places [m, 2] of features on a plane, and the names of its axes."""

    places: np.ndarray
    axes: tuple[str, str]
    points: Points


def read_features(
    what: str | Path, tap: str = "", split: str = "", most: int = 5000, seed: int = 0
) -> Points:
    """Read a random choice of saved features.

    Args:
        what: a folder that `fullrank embed` wrote, or a file or folder of embeddings.
        tap: which of the features; "" is `features`, or the only one. In a file, the array.
        split: of stored features; "" is test where it is there, else train.
        most: rows to take, chosen by the seed.
    """
    if most < 2:
        raise UsageError(f"a map of {most} points shows nothing: take at least 2")
    rng = np.random.default_rng(seed)
    kind = kind_of(what)
    if kind == "encoder":
        raise UsageError(f"{what} is an encoder: write its features with `fullrank embed`, then map those")
    subject = open_subject(what, SubjectOptions(key=tap), kind=kind)
    if isinstance(subject, StoredSubject):
        chosen, stored = subject.split(split)
        name = tap or ("features" if "features" in stored.rows else next(iter(stored.rows)))
        matrix = stored.rows[name]
        kept = torch.from_numpy(_choice(rng, len(matrix), most))
        return Points(
            matrix[kept],
            stored.indices[kept].numpy(),
            None if stored.labels is None else stored.labels[kept].numpy(),
            stored.provenance.get("classes"),
            f"{name} of {stored.provenance['subject']}, {chosen} images",
        )
    if split:
        raise UsageError(f"--split is for folders that `fullrank embed` wrote, and {what} is none")
    assert isinstance(subject, Rows)
    index = _choice(rng, subject.n, most)
    labels = None if subject.labels is None or (subject.labels < 0).all() else subject.labels[index]
    return Points(subject.rows(index).float(), index, labels, None, Path(what).name)


def _choice(rng: np.random.Generator, n: int, most: int) -> np.ndarray:
    return np.arange(n) if n <= most else np.sort(rng.choice(n, most, replace=False))


def map_features(points: Points, how: Reduction = "pca", seed: int = 0) -> FeatureMap:
    """Place rows on a plane.

    Args:
        points: the rows.
        how: `pca`, the two axes of largest variance; `umap` (McInnes et al. 1802.03426) with its defaults,
            which keeps neighbours and neither distances nor sizes.
        seed: of UMAP.
    """
    rows = points.rows.double().numpy()
    if not np.isfinite(rows).all():
        raise DataError(
            f"{int((~np.isfinite(rows)).any(1).sum())} rows are not finite: they have no place on a map"
        )
    if len(rows) < 2 or not np.ptp(rows, axis=0).any():
        raise DataError("all rows are the same: a map would be one point (complete collapse)")
    if how == "umap":
        return FeatureMap(_umap(rows, seed), ("UMAP 1", "UMAP 2"), points)
    from sklearn.decomposition import PCA

    pca: Any = PCA(min(2, *rows.shape), svd_solver="full")
    places = pca.fit_transform(rows)
    shares = [*pca.explained_variance_ratio_, 0.0][:2]
    if places.shape[1] == 1:
        places = np.concatenate([places, np.zeros_like(places)], 1)
    axes = (f"principal axis 1 ({shares[0]:.0%} of the variance)", f"principal axis 2 ({shares[1]:.0%})")
    return FeatureMap(places, (axes[0].replace("%", " %"), axes[1].replace("%", " %")), points)


def _umap(rows: np.ndarray, seed: int) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that TensorFlow is not installed, which nothing here needs
            import umap
    except ImportError as error:
        raise UsageError("UMAP needs its package; pip install 'fullrank[umap]', or take pca") from error
    if len(rows) < 4:
        raise UsageError(f"UMAP needs at least 4 rows, and there are {len(rows)}: take pca")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a seed means one thread
        made = umap.UMAP(n_neighbors=min(15, len(rows) - 1), random_state=seed)
        places: np.ndarray = made.fit_transform(rows.astype(np.float32))
    return places


def write_csv(features: FeatureMap, path: Path) -> None:
    """Write one line a point: index, x, y, and label and class where there are labels.

    Example:
        >>> import tempfile
        >>> points = Points(torch.eye(2), np.array([4, 9]), np.array([1, -1]), ["cat", "dog"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_csv(FeatureMap(np.eye(2), ("x", "y"), points), Path(folder, "m.csv"))
        ...     print(Path(folder, "m.csv").read_text().strip())
        index,x,y,label,class
        4,1,0,1,dog
        9,0,1,,
    """
    points = features.points
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "x", "y", *(["label", "class"] if points.labels is not None else [])])
        for k, (x, y) in enumerate(features.places):
            line = [str(points.indices[k]), f"{x:.6g}", f"{y:.6g}"]
            if points.labels is not None:
                label = int(points.labels[k])
                known = points.classes is not None and 0 <= label < len(points.classes)
                line += [str(label) if label >= 0 else "", points.classes[label] if known else ""]  # type: ignore[index]
            writer.writerow(line)
