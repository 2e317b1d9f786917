"""Data sets of the Hugging Face Hub, read in place from their parquet files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from fullrank.coercion import load_yaml
from fullrank.errors import DataError, UsageError, first_line, require_packages
from fullrank.images.folders import HELD_OUT_NAMES
from fullrank.images.parquet import image_columns, in_row_groups, notes_on_indexes, notes_on_missing
from fullrank.images.parquet_rows import LARGEST_GROUP, open_parquet_file
from fullrank.images.sources import LazySource
from fullrank.untrusted.parsing import read_text, refusing
from fullrank.untrusted.paths import expand_user

ADDRESS = re.compile(r"(?P<name>[^@]+?)(@(?P<split>[\w.-]+))?")


def open_hub(address: str) -> tuple[str, LazySource, LazySource | None, list[str]]:
    """Open a data set of the Hub by what stands behind `hub:`.

    That is `OWNER/NAME`, `OWNER/NAME/CONFIG`, either with `@SPLIT`, or a folder of this machine as `datasets`
    lays them out (`./folder`, `/data/folder`). Without a split, `train` is the training set (or the only one
    there is), and the first of `val`, `valid`, `validation`, `test` is held out. Row groups are read where
    they lie, one request each; nothing but an index and the labels is kept on this machine.

    Returned are a name, the training images, the held-out ones or None, and notes.

    Raises:
        UsageError: an address of another form, or no such split.
        DataError: it is not there, not to be reached, may not be read, or holds no parquet.
    """
    require_packages("datasets", "pyarrow")
    repo, config, split = parse_address(address)
    splits = _splits(repo, config, address)
    train, held = _chosen(splits, split, address)
    files = splits[train]
    columns = image_columns(files[0], open_parquet_file(files[0]).schema_arrow)
    name = repo.rstrip("/").rpartition("/")[2]
    source = _opened(f"{name}/{train}", files, columns, columns[2])
    held_out = _opened(f"{name}/{held}", splits[held], columns, source.classes) if held else None
    labelled = f"labels from {columns[1]!r}" if columns[1] else "unlabelled"
    notes = [f"{len(source):,} images are read in place from column {columns[0]!r}, {labelled}"]
    notes += notes_on_missing([file for each in splits.values() for file in each])
    return name, source, held_out, notes + notes_on_indexes(source, held_out)


def parse_address(address: str) -> tuple[str, str | None, str | None]:
    """Repository (or folder), configuration and split of an address.

    Example:
        >>> parse_address("ILSVRC/imagenet-1k"), parse_address("a/b/small@train"), parse_address("./b@test")
        (('ILSVRC/imagenet-1k', None, None), ('a/b', 'small', 'train'), ('./b', None, 'test'))
    """
    found = ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(f"hub:{address} is no address; what is meant is as hub:OWNER/NAME/CONFIG@SPLIT")
    name, split = found["name"], found["split"]
    if name.startswith((".", "/", "~")):
        return str(expand_user(name)) if name.startswith("~") else name, None, split
    parts = name.split("/")
    if len(parts) > 3 or not all(parts):
        raise UsageError(f"hub:{address} is no address; what is meant is as hub:OWNER/NAME/CONFIG@SPLIT")
    return "/".join(parts[:2]), parts[2] if len(parts) == 3 else None, split


def _splits(repo: str, config: str | None, address: str) -> dict[str, list[str]]:
    """Parquet files of each split."""
    import datasets

    if Path(repo).is_dir():
        _require_sound_card(Path(repo))
    try:
        builder = datasets.load_dataset_builder(repo, config)
        files = {
            str(split): list(map(str, paths))
            for split, paths in (builder.config.data_files or {}).items()
            if paths
        }
    except Exception as error:  # each layer has its own for no network, no such name, no permission
        raise DataError(f"hub:{address} cannot be opened: {_reason(error)}") from error
    others = sorted({path.rpartition(".")[2] for paths in files.values() for path in paths} - {"parquet"})
    if others or not files:
        kinds = ", ".join(f".{kind[:20]}" for kind in others[:3]) or "no files"
        raise DataError(
            f"hub:{address} holds {kinds} and is read in place from .parquet alone: download it and pass the "
            f"folder, or its tar shards as shards:PATTERN"
        )
    return files


def _require_sound_card(folder: Path) -> None:
    """Raise DataError for a README whose head is no YAML, or asks for too much of it."""
    if (card := folder / "README.md").is_file():
        head = re.match(r"\s*---[^\n]*\n(.*?)\n---", read_text(card), re.DOTALL)
        with refusing(f"the head of {card} is damaged"):
            load_yaml(head[1] if head else "")


def _reason(error: Exception) -> str:
    kind, said = type(error).__name__, first_line(error, 160)
    if "NotFound" in kind and "file" not in said.lower():
        return (
            f"there is no such data set, or it is private or gated: mind the spelling, accept its terms on "
            f"its page, and log in with `hf auth login` or HF_TOKEN ({said})"
        )
    if isinstance(error, ConnectionError) or "Offline" in kind or "Couldn't reach" in said:
        return f"the Hub cannot be reached ({said}); a folder with its parquet files is --data FOLDER"
    if "401" in said or "403" in said or "gated" in said.lower():
        return f"it may not be read: accept its terms on its page, and log in with `hf auth login` ({said})"
    return said


def _chosen(splits: dict[str, list[str]], split: str | None, address: str) -> tuple[str, str]:
    """The split to train on, and the one that is held out or nothing."""
    if split is not None:
        if split not in splits:
            raise UsageError(f"hub:{address} has no split {split!r}; it has {', '.join(splits)}")
        return split, ""
    if "train" not in splits:
        if len(splits) > 1:
            raise UsageError(f"hub:{address} has no split 'train'; take one with @: {', '.join(splits)}")
        return next(iter(splits)), ""
    return "train", next((name for name in HELD_OUT_NAMES if name in splits), "")


def _opened(name: str, files: list[str], columns: Any, classes: list[str] | None) -> LazySource:
    from dataclasses import replace

    source = in_row_groups(name, files, columns, classes)
    if source is None:
        raise DataError(
            f"{files[0]}: its row groups take more than {LARGEST_GROUP / 1e6:.0f} MB, and each is read as a "
            f"whole: write them smaller, or download the files and pass the folder"
        )
    return replace(source, streamed=True)
