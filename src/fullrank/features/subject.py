"""Opening an encoder with its images, stored features, or embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fullrank.coercion import as_name
from fullrank.collapse.peers import Peers
from fullrank.encoders.encoder import Encoder
from fullrank.encoders.initial import open_initial_weights
from fullrank.encoders.libraries import refuse_unknown_name
from fullrank.encoders.opening import is_encoder, open_encoder
from fullrank.encoders.runs import open_with_taps, own_data, own_run
from fullrank.errors import UnknownNameError, UsageError
from fullrank.features.embeddings import Rows, is_frame, open_embeddings
from fullrank.features.shard_files import is_address, is_pattern
from fullrank.features.store import SPLITS, Stored, is_stored, open_stored
from fullrank.images.opening import open_data
from fullrank.images.skipped import said_before
from fullrank.images.sources import Data
from fullrank.launchers import launched_processes
from fullrank.options import MAX_PIXELS, EncoderOptions, SubjectOptions
from fullrank.untrusted.paths import expand_user

Kind: TypeAlias = Literal["encoder", "stored", "embeddings"]


@dataclass(frozen=True)
class EncoderSubject:
    """An encoder and its images; `own` tells whether its run was trained on these."""

    encoder: Encoder
    data: Data
    own: bool


@dataclass(frozen=True)
class StoredSubject:
    """Stored features; `named` is the split of a path like FOLDER/train, else ""."""

    folder: Path
    named: str
    splits: Mapping[str, Stored]

    def split(self, wanted: str = "") -> tuple[str, Stored]:
        """The wanted split, else the named one, else test images where they are there."""
        name = wanted or self.named or list(self.splits)[-1]
        if name not in self.splits:
            raise UnknownNameError("split", name, self.splits, f"in {self.folder}")
        return name, self.splits[name]


def kind_of(what: Any, data: str = "") -> Kind:
    """Tell an encoder, a folder of stored features and embeddings apart.

    With `data`, the images for an encoder, a path where nothing is was meant as a name.

    Example:
        >>> kind_of("timm:resnet18"), kind_of("features.npy"), kind_of("resnet10tt", data="shapes")
        ('encoder', 'embeddings', 'encoder')
    """
    if isinstance(what, Rows | Tensor | np.ndarray | list | tuple) or is_frame(what):
        return "embeddings"
    if is_address(what) or (is_pattern(what) and not data):
        return "embeddings"
    takes = "a matrix [n, d], a file or folder, or the name of an encoder is taken"
    path = expand_user(as_name(what, takes))
    if _stored_at(path) is not None:
        return "stored"
    return "encoder" if is_encoder(what) or (data and not path.exists()) else "embeddings"


def _stored_at(path: Path) -> tuple[Path, str] | None:
    """A folder of stored features, and the split that the path names in it."""
    if is_stored(path):
        return path, ""
    inside = path.is_dir() and path.name in SPLITS and is_stored(path.parent)
    return (path.parent, path.name) if inside else None


def open_subject(
    what: Any,
    options: SubjectOptions,
    taps: Sequence[str] | None = None,
    *,
    kind: Kind | None = None,
    more_images: bool = False,
    peers: Peers | None = None,
) -> EncoderSubject | StoredSubject | Rows:
    """Open whatever was named.

    Args:
        what: a matrix; a file or folder of embeddings; a folder that `fullrank embed` wrote; a run; or an
            encoder by name or checkpoint.
        taps: layer outputs of an encoder that are wanted; None is its features.
        kind: as `kind_of` says, where that was asked already.
        more_images: whether `limit` may take more images than a run was trained on.
        peers: processes that share the rows of files of embeddings.

    Raises:
        DataError, UnknownNameError: missing or damaged; no such name.
        UsageError: the options do not fit what was named.
    """
    kind = kind or kind_of(what, options.data)
    if kind == "encoder":
        return open_encoder_subject(
            what, options, taps, options.data, options.limit, options.max_pixels, more_images=more_images
        )
    if kind == "stored":
        folder, named = _stored_at(expand_user(what)) or (Path(), "")
        return StoredSubject(folder, named, open_stored(folder))
    return open_embeddings(what, options.key or None, options.max_bytes, peers)


def check_untrained(what: str | Path) -> None:
    """Refuse --untrained for what is neither a run nor the name of an encoder."""
    if own_run(what) is None and expand_user(what).exists():
        raise UsageError(f"--untrained is for runs and encoders by name; {what} brings its weights along")


def open_encoder_subject(
    what: str | Path,
    options: EncoderOptions,
    taps: Sequence[str] | None,
    data: str,
    limit: int,
    max_pixels: int = MAX_PIXELS,
    *,
    more_images: bool = False,
) -> EncoderSubject:
    """Open an encoder and images: those of `data`, else those of its run."""
    what = as_name(what, "an encoder is a run, a checkpoint or a name")
    run = own_run(what)
    refuse_unknown_name(str(what))
    if run is None and not data and not expand_user(what).exists() and not is_encoder(what):
        open_encoder(what)  # which says that there is none
    if run is None and not data:
        raise UsageError(
            "an encoder needs images: add --data with a folder, or a name of `fullrank list data`"
        )
    if options.untrained:
        check_untrained(what)
    begin = open_initial_weights if options.untrained else None
    with torch.random.fork_rng(devices=[]):
        if options.untrained and (found := launched_processes()) and found.world > 1:
            torch.manual_seed(0)  # each process opens its own, and all are to have the same
        encoder = open_with_taps(what, taps, begin, **options.opening())
    if run is None or data:
        images = open_data(data, limit=limit or None, download=options.download, max_pixels=max_pixels)
        return EncoderSubject(encoder, images, own=False)
    config = run.config()
    if max_pixels != MAX_PIXELS:
        config = replace(config, max_pixels=max_pixels)
    if more_images and limit:
        config = replace(config, limit=limit)
    images = own_data(config, limit, options.download)
    if not limit:  # all else was said when it was trained
        images = replace(images, notes=said_before(images.skipped, run.path))
    return EncoderSubject(encoder, images, own=True)
