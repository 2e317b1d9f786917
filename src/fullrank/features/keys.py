"""Names of arrays: which of a file's are the embeddings, and which the labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from fullrank.errors import DataError, UnknownNameError
from fullrank.features.tables import Indices, Stored

EMBEDDING_NAMES = (
    *("embeddings", "embedding", "embeds", "embed", "features", "feature", "feats", "feat"),
    *("representations", "representation", "z", "x"),
)
LABEL_NAMES = ("labels", "label", "targets", "target", "y", "classes", "class", "fine_label")
LABEL_KINDS = ("integer", "float", "booleans", "text")
SHOWN = 8  # arrays that a message names


def is_label_name(name: str) -> bool:
    """Tell whether an array or a file is named as labels are.

    Example:
        >>> [name for name in ("labels", "val/targets", "y", "features") if is_label_name(name)]
        ['labels', 'val/targets', 'y']
    """
    words = re.split(r"[^a-z]+", name.lower().replace("fine_label", "label"))
    return any(word in LABEL_NAMES for word in words)


def choose_key(where: str, arrays: Mapping[str, Stored], key: str | None) -> str:
    """The name of the array that holds the embeddings.

    The key that was asked for; else the only matrix of numbers that is not named as labels are; else the only
    such matrix with a usual name (`EMBEDDING_NAMES`). Raises UnknownNameError without an array `key`, and
    DataError for no matrix or several that it could be.

    Example:
        >>> arrays = {"z": Stored((9, 4), np.dtype("f4")), "y": Stored((9,), np.dtype("i8"))}
        >>> choose_key("all.npz", arrays, None)
        'z'
    """
    if key is not None:
        if key not in arrays:
            raise UnknownNameError("key", key, arrays, f"in {where}")
        return key
    if not arrays:
        raise DataError(f"{where} holds no arrays")
    if len(arrays) == 1:
        return next(iter(arrays))  # whatever it is: what is wrong with it is said of it
    matrices = [
        name
        for name, stored in arrays.items()
        if len(stored.shape) == 2 and stored.kind in ("float", "integer") and not is_label_name(name)
    ]
    if len(matrices) == 1:
        return matrices[0]
    if not matrices:
        others = [name for name in arrays if not is_label_name(name)]
        if len(others) == 1:
            return others[0]
        raise DataError(f"{where} holds no matrix [n, d] of numbers: {_listed(arrays)}")
    usual = [name for name in matrices if re.split(r"[/.]", name)[-1].lower() in EMBEDDING_NAMES]
    if len(usual) == 1:
        return usual[0]
    several = {name: arrays[name] for name in usual or matrices}
    if sum(name.endswith(("weight", "bias", "running_mean")) for name in arrays) > len(arrays) / 2:
        raise DataError(
            f"{where} holds the weights of a model, not embeddings: give it as a model, with --data; "
            f"among them are {_listed(several)}"
        )
    raise DataError(f"{where} holds several matrices; choose one with --key: {_listed(several)}")


def label_key(arrays: Mapping[str, Stored], chosen: str, n: int) -> str | None:
    """The name of the labels beside the embeddings `chosen`, or None.

    Example:
        >>> arrays = {"z": Stored((9, 4), np.dtype("f4")), "y": Stored((9,), np.dtype("i8"))}
        >>> label_key(arrays, "z", 9), label_key(arrays, "z", 8)
        ('y', None)
    """
    parent = chosen.rpartition("/")[0]
    fitting = [
        name
        for name, stored in arrays.items()
        if is_label_name(name)
        and name != chosen
        and stored.shape in ((n,), (n, 1))
        and stored.kind in LABEL_KINDS
    ]
    beside = [name for name in fitting if name.rpartition("/")[0] == parent]
    chosen_labels = beside or fitting
    return chosen_labels[0] if len(chosen_labels) == 1 else None


def as_labels(where: str, values: Any) -> Indices:
    """Labels as int64 [n]: texts numbered in sorted order, missing ones -1.

    Raises:
        DataError: not one value a row, or values that are no labels.

    Example:
        >>> as_labels("y", ["dog", "cat", "dog"]).tolist(), as_labels("y", np.array([1.0, np.nan])).tolist()
        ([1, 0, 1], [1, -1])
    """
    array = np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{where} has the shape {list(array.shape)}: labels are one number or text a row")
    if array.dtype.kind == "O":
        missing = np.array([value is None for value in array])
        present = np.asarray([value for value in array if value is not None])
        if present.dtype.kind == "O":
            raise DataError(f"{where} mixes kinds of values: labels are whole numbers or texts")
        labels = np.full(len(array), -1, np.int64)
        labels[~missing] = as_labels(where, present)
        return labels
    if array.dtype.kind in "US":
        return np.unique(array, return_inverse=True)[1].astype(np.int64)
    if array.dtype.kind == "f":
        whole = np.where(np.isnan(array), -1, array)
        if not (np.isfinite(whole) & (whole == np.round(whole))).all():
            raise DataError(f"{where} holds fractions: labels are whole numbers or texts")
        return whole.astype(np.int64)
    if array.dtype.kind not in "iub":
        raise DataError(
            f"{where} holds {Stored(array.shape, array.dtype).kind}: labels are whole numbers or texts"
        )
    return array.astype(np.int64)


def _listed(arrays: Mapping[str, Stored]) -> str:
    shown = [f"{name} {stored}" for name, stored in list(arrays.items())[:SHOWN]]
    return ", ".join(shown) + (f", and {len(arrays) - SHOWN} more" if len(arrays) > SHOWN else "")
