"""Refusals before the packages are imported, which takes seconds."""

from __future__ import annotations

from collections.abc import Sequence

from fullrank.errors import UsageError
from fullrank.untrusted.paths import did_you_mean, expand_user, require_existing

FILES = (
    *(".npy", ".npz", ".pt", ".pth", ".safetensors", ".parquet", ".pq", ".arrow", ".feather", ".ipc"),
    *(".csv", ".tsv", ".h5", ".hdf5", ".hdf", ".he5", ".zarr", ".ckpt", ".tar", ".bin"),
)
"""Endings of embeddings and checkpoints: a word that has one names a file."""
SUBJECT_FIRST = ("adapt", "audit", "compare", "embed", "export", "pick")
PROBES = ("linear", "knn", "cluster", "finetune", "all")
LIBRARIES = ("timm", "torchvision", "hf")


def refuse_early(name: str, words: Sequence[str]) -> None:
    """Refuse a subject that is a missing file, or lacks its images.

    Raises:
        DataError: there is no such file.
        UsageError: images are needed, or several subjects.
    """
    if name == "evaluate" and words and words[0] in PROBES:
        words = words[1:]
    elif name not in SUBJECT_FIRST:
        return
    if not words or words[0].startswith("-"):
        return
    what = words[0]
    if _is_file_name(what):
        require_existing(expand_user(what))
    if name == "adapt" and not any(word.partition("=")[0] == "--data" for word in words):
        from fullrank.adaptation.options import NO_DATA

        raise UsageError(NO_DATA)
    if name == "pick" and len(words) == 1 and what.partition(":")[0] not in LIBRARIES:
        path = expand_user(what)
        if not path.exists():
            several = "of encoders by name several are needed, and --data"
            raise UsageError(f"{what} does not exist{did_you_mean(path)}; {several}")


def _is_file_name(word: str) -> bool:
    """Whether a word is a path for certain, and no name, pattern or address."""
    if "://" in word or any(sign in word for sign in "*?[") or word.partition(":")[0] in LIBRARIES:
        return False
    return word.startswith(("/", "./", "../", "~")) or word.lower().endswith(FILES)
