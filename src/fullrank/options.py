"""Options of commands, for Python and the command line alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

from fullrank.coercion import coerce
from fullrank.errors import UnknownNameError, UsageError
from fullrank.ranges import Numbers, check_numbers

OnProgress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how far it is, and how far it goes (0: not known)."""

Names: TypeAlias = str | tuple[str, ...]
"""Names in a tuple, or in one text with commas between, as a command line has them."""


MAX_PIXELS = 2**27
"""Of one image, where nothing else is said: larger ones are skipped and named."""
MOST_VIEWS = 100  # of an image; all pairs of them are compared


def split_names(names: Names) -> tuple[str, ...]:
    """The single names.

    Example:
        >>> split_names("features, layer4"), split_names(("layer1",))
        (('features', 'layer4'), ('layer1',))
    """
    words = names.split(",") if isinstance(names, str) else names
    return tuple(word.strip() for word in words if word.strip())


def new_folder(out: Path | str) -> Path:
    """The path of a folder to be made; raises UsageError where one is there."""
    folder = Path(out)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} exists already: take another --out")
    return folder


@dataclass(frozen=True)
class Options:
    """Options that can be given by name; numbers that nothing can hold are refused."""

    def __post_init__(self) -> None:
        check_numbers(self)

    def changed(self, **changes: Any) -> Self:
        """The same with other values; None leaves what is there.

        Raises UnknownNameError for what is no option, UsageError for a value of a wrong kind.

        Example:
            >>> SubjectOptions().changed(limit=9).limit
            9
        """
        standing = {name: getattr(self, name, None) for name, value in changes.items() if value is None}
        return replace(self, **coerce(type(self), changes | standing, "option"))


@dataclass(frozen=True)
class EncoderOptions(Options):
    """How an encoder is opened.

    Attributes:
        image_size: side in pixels that an encoder is fed with; 0: its own.
        untrained: an encoder of that name with random weights; of a run the network that it began with.
        download: fetch weights or data that are not there.
    """

    image_size: int = 0
    untrained: bool = False
    download: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if getattr(self, "batch_size", 1) < 1:
            raise UsageError(f"batch size {getattr(self, 'batch_size', 1)} is not positive")
        if getattr(self, "max_pixels", 1) < 1:
            raise UsageError(f"--max-pixels {getattr(self, 'max_pixels', 1)} is not positive")

    def opening(self) -> dict[str, Any]:
        """Keyword arguments of `open_encoder`."""
        return {
            "image_size": self.image_size or None,
            "pretrained": not self.untrained,
            "download": self.download,
        }


@dataclass(frozen=True)
class CheckpointOptions(EncoderOptions):
    """How an encoder in a checkpoint of any library is opened.

    Attributes:
        arch: architecture of a checkpoint that does not tell it.
        prefix: prefix of the encoder's weights in a checkpoint that holds several.
        stem: a ResNet's 3x3 stem, which checkpoints do not tell: cifar, cifar-pad2 (solo-learn's).
    """

    arch: str = ""
    prefix: str = ""
    stem: Literal["auto", "imagenet", "cifar", "cifar-pad2"] = "auto"

    def opening(self) -> dict[str, Any]:
        """Keyword arguments of `open_encoder`."""
        more = {"arch": self.arch or None, "prefix": self.prefix or None, "stem": self.stem}
        return super().opening() | more


@dataclass(frozen=True)
class SubjectOptions(EncoderOptions):
    """How embeddings, stored features or an encoder with its images are opened.

    Attributes:
        data: images for an encoder: a folder, or a name of `fullrank list data`. A run has its own.
        key: the array, where a file holds several.
        labels: a file with a class per row of a file of embeddings.
        limit: images for an encoder, at most, a fixed random choice; 0: all.
        max_pixels: pixels of one image, at most; larger ones are skipped and named.
        max_bytes: memory that a file of embeddings may take at once, where it cannot be mapped or streamed;
            0: half of what is free.
    """

    data: str = ""
    key: str = ""
    labels: str = ""
    limit: int = 0
    max_pixels: int = MAX_PIXELS
    max_bytes: int = 0


@dataclass(frozen=True)
class EvaluateOptions(SubjectOptions):
    """How an encoder or its features are evaluated.

    Attributes:
        tap: layer of an encoder (tap): features, a layer, or a run's projector, predictor, target, codes.
        test: a file of test embeddings; empty: a fifth of the rows is held out.
        test_labels: a file with their labels.
        limit: training images or rows, at most, and as many test ones; 0: all.
        batch_size: images at once.
        legacy_batchnorm: BatchNorms take their statistics from each batch of 64, as in CPLearn's evaluations.
        seed: seed of everything random.
    """

    tap: str = ""
    test: str = ""
    test_labels: str = ""
    batch_size: int = 256
    legacy_batchnorm: bool = False
    seed: int = 0


@dataclass(frozen=True)
class LinearOptions(EvaluateOptions):
    """A linear classifier on features.

    Attributes:
        protocol: logistic, or a paper's: simsiam, li, solo, rdm-byol, rdm-simsiam.
        cs: inverse penalties to choose from, with commas between, as scikit-learn's C; empty: the usual ones.
        epochs: epochs of a protocol; 0: the paper's.
        lr: learning rate of a protocol, for 256 images; 0: the paper's.
        protocol_batch: images per step of a protocol; 0: the paper's.
        precision: of the encoder under a protocol: fp32 or bf16.
    """

    protocol: str = "logistic"
    cs: Numbers = ""
    epochs: int = 0
    lr: float = 0.0
    protocol_batch: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class KnnOptions(EvaluateOptions):
    """k nearest neighbours among training rows.

    Attributes:
        metric: what makes neighbours near: cosine or l2.
        ks: numbers of neighbours to choose from, with commas between; empty: 1 to 200.
        temperatures: T of votes weighted by exp(cosine / T), to choose from likewise; empty: 0.02 to 0.5.
        legacy: li (majority of k = 1 to 255, the best k on the test rows) or solo (solo-learn's weights,
            k = 20).
    """

    metric: Literal["cosine", "l2"] = "cosine"
    ks: Numbers = ""
    temperatures: Numbers = ""
    legacy: Literal["", "li", "solo"] = ""


@dataclass(frozen=True)
class ClusterOptions(EvaluateOptions):
    """Clusters against classes.

    Attributes:
        by: kmeans of the tap, codes (argmax of scores over codes or prototypes), or legacy (argmax of plain
            features, as CPLearn's script does for SwAV and Barlow Twins); auto: codes for that tap, else
            kmeans.
        clusters: clusters of k-means; 0: as many as there are classes.
    """

    by: Literal["auto", "kmeans", "codes", "legacy"] = "auto"
    clusters: int = 0


@dataclass(frozen=True)
class FinetuneOptions(EvaluateOptions):
    """An encoder trained on with a classifier.

    Attributes:
        shares: shares of the labels in percent, with commas between.
        epochs: passes over the labelled images; 0: 30.
        lr: learning rate of the classifier, for 256 images; the encoder has a tenth; 0: 0.1.
        precision: fp32 or bf16.
    """

    shares: Numbers = "1,10,100"
    epochs: int = 0
    lr: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class EmbedOptions(CheckpointOptions):
    """How features are written.

    Attributes:
        data: images: a folder, or a name of `fullrank list data`; empty: those of the run.
        split: train and test (held-out) images, with commas between.
        taps: layer outputs (taps), with commas between: features (what the encoder puts out), all (every
            layer too), names of layers, and for a run projector, predictor, target and codes.
        format: format of the files: safetensors, parquet, or npy (memory maps).
        views: augmented views of each image; 0: each image once, as it is.
        view_preset: how they are augmented (`fullrank list views`); empty: as the run does, or the data's
            own way, else simsiam.
        seed: seed of the augmentation.
        tokens: what becomes of a transformer's tokens at inner layers: mean or class.
        limit: images of a split, at most; 0: all.
        batch_size: images at once.
        workers: processes that decode images which do not fit in memory.
        max_pixels: pixels of one image, at most; larger ones are skipped and named.
        device: as cuda:1 or cpu; empty: a GPU where there is one.
    """

    data: str = ""
    split: Names = "train,test"
    taps: Names = "features"
    format: Literal["safetensors", "parquet", "npy"] = "safetensors"
    views: int = 0
    view_preset: str = ""
    seed: int = 0
    tokens: Literal["mean", "class"] = "mean"
    limit: int = 0
    batch_size: int = 256
    workers: int = 0
    max_pixels: int = MAX_PIXELS
    device: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        for split in split_names(self.split):
            if split not in ("train", "test"):
                raise UnknownNameError("split", split, ("train", "test"))
        if not split_names(self.split):
            raise UsageError("no split is named; take train, test or both")
        if self.view_preset and not self.views:
            raise UsageError("--view-preset says how to augment: add --views with a number of views")


@dataclass(frozen=True)
class ExportOptions(CheckpointOptions):
    """How an encoder is exported, or how features are drawn as a map.

    Attributes:
        map: how features come on a plane: pca, or umap (needs its package).
        tap: which features are mapped; empty: what the encoder puts out.
        split: train or test, of a folder of features; empty: test where it is there.
        limit: points on the map, at most, chosen at random.
        seed: seed of that choice, and of UMAP.
        data: for --to fiftyone, the images that the features are of: a folder, a name of `fullrank list
            data`, or the run whose images they are.
    """

    map: Literal["pca", "umap"] = "pca"
    tap: str = ""
    split: str = ""
    limit: int = 5000
    seed: int = 0
    data: str = ""


@dataclass(frozen=True)
class CompareOptions(Options):
    """How runs and encoders are compared.

    Attributes:
        data: images that every encoder sees, a folder or a name of `fullrank list data`; empty: those that
            all runs were trained on.
        names: names of the arms, with commas between, in the order in which these are given.
        queries: held-out images, at most: their features are audited and k-NN names their labels.
        bank: training images among which k-NN seeks neighbours, at most.
        k: neighbours of k-NN.
        measure: send the images through every encoder; without it runs are shown as they were logged.
        untrained: encoders by name with random weights; of a run the network that it began with.
        download: fetch weights or data that are not there.
    """

    data: str = ""
    names: Names = ""
    queries: int = 2048
    bank: int = 10000
    k: int = 20
    measure: bool = True
    untrained: bool = False
    download: bool = False


@dataclass(frozen=True)
class PickOptions(CheckpointOptions):
    """How encoders are ranked without labels.

    Attributes:
        data: images that every encoder sees, a folder or a name of `fullrank list data`; empty: the held-out
            images of the runs.
        images: held-out images, at most.
        views: augmented views of each image.
        view_preset: how they are augmented (`fullrank list views`); empty: as the runs do, or the data's own
            way, else simsiam.
        every_checkpoint: of several runs all encoders that they kept, not the one that each left.
        seed: seed of the choice of images and of the views.
        batch_size: images at once.
        max_pixels: pixels of one image, at most; larger ones are skipped and named.
        device: as cuda:1 or cpu; empty: a GPU where there is one.
    """

    data: str = ""
    images: int = 400
    views: int = 6
    view_preset: str = ""
    every_checkpoint: bool = False
    seed: int = 0
    batch_size: int = 256
    max_pixels: int = MAX_PIXELS
    device: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.views < 2:
            raise UsageError(
                f"--views is {self.views}: two views or more of an image tell what an encoder keeps"
            )
        if self.views > MOST_VIEWS:
            raise UsageError(f"--views is {self.views:,}: {MOST_VIEWS} of an image are the most")
        if self.images < 1:
            raise UsageError(f"--images is {self.images}, and must be positive")
