"""`fullrank evaluate PROBE WHAT`: what a representation is worth."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from fullrank.cli.arguments import parse
from fullrank.errors import UnknownNameError, UsageError

if TYPE_CHECKING:
    from fullrank.evaluation.result import EvaluationResult
    from fullrank.evaluation.subject import Subject

HELP = """\
usage: fullrank evaluate PROBE WHAT [OPTIONS]

What a representation is worth. WHAT is a run, an encoder (a name of timm, torchvision or Hugging Face, a
checkpoint) with --data, a folder of `fullrank embed`, or a file of embeddings with labels.

probes:
  linear    a linear classifier: logistic regression on features, or trained as a paper does it (--protocol)
  knn       k nearest neighbours; k is chosen on training rows
  cluster   clusters against classes: k-means, or a method's own codes
  finetune  the encoder trained on with a classifier, on 1 %, 10 % and all of the labels
  all       linear, knn and cluster for every encoder that a run kept, in one table

`fullrank evaluate PROBE --help` tells a probe's options, with an example.
Results are printed and written beside a run, in RUN/evaluations."""


@dataclass(frozen=True)
class Common:
    """What is evaluated.

    Attributes:
        what: a run, an encoder, a folder of `fullrank embed`, or a file of embeddings.
        data: images for an encoder: a folder, or a name of `fullrank list data`. A run has its own.
        tap: where to look into an encoder: features, a layer, or a run's projector, predictor, target, codes.
        key: the array, where a file holds several.
        labels: a file with the labels of a file of embeddings.
        test: a file of test embeddings; empty: a fifth of the rows is held out.
        test_labels: a file with their labels.
        limit: training images, at most, and as many test images; 0: all.
        image_size: side in pixels that an encoder is fed with; 0: its own.
        batch_size: images at once.
        legacy_batchnorm: BatchNorms take their statistics from each batch of 64, as in CPLearn's evaluations.
        download: fetch weights or data that are not there.
        untrained: an encoder of that name with random weights: what to hold a trained one against.
        seed: of everything random.
        out: folder for the result; empty: RUN/evaluations, or evaluations/NAME.
        json: print one object.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    data: str = ""
    tap: str = ""
    key: str = ""
    labels: str = ""
    test: str = ""
    test_labels: str = ""
    limit: int = 0
    image_size: int = 0
    batch_size: int = 256
    legacy_batchnorm: bool = False
    download: bool = False
    untrained: bool = False
    seed: int = 0
    out: str = ""
    json: bool = False

    def subject(self) -> Subject:
        """What the evaluation room calls it."""
        from fullrank.evaluation.subject import Subject

        return Subject(**{field.name: getattr(self, field.name) for field in fields(Subject)})


@dataclass(frozen=True)
class Linear(Common):
    """A linear classifier on features.

    Logistic regression on features of un-augmented images (its penalty chosen on held-out training rows), or
    with --protocol the classifier that a paper trains on random crops before the frozen encoder: simsiam, li,
    solo, rdm-byol, rdm-simsiam. An interrupted protocol goes on where it was.

    Example: fullrank evaluate linear runs/first

    Example: fullrank evaluate linear timm:resnet18 --data photos --protocol simsiam --download

    Attributes:
        protocol: logistic, or a paper's.
        cs: inverse penalties to choose from, with commas between, as scikit-learn's C; empty: the usual ones.
        epochs: of a protocol; 0: the paper's.
        lr: of a protocol, for 256 images; 0: the paper's.
        protocol_batch: images per step of a protocol; 0: the paper's.
        precision: of the encoder under a protocol: fp32 or bf16.
    """

    protocol: str = "logistic"
    cs: str = ""
    epochs: int = 0
    lr: float = 0.0
    protocol_batch: int = 0
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class Knn(Common):
    """k nearest neighbours among training rows.

    k, and the temperature or plain majority, are chosen on a tenth of the training rows that is held out for
    it, never on test rows. The search is exact.

    Example: fullrank evaluate knn runs/first --metric cosine

    Attributes:
        metric: cosine or l2.
        ks: neighbours to choose from, with commas between; empty: 1 to 200.
        temperatures: of votes weighted by exp(cosine / T), likewise; empty: 0.02 to 0.5.
        legacy: li (majority of k = 1 to 255, the best k on the test rows) or solo (solo-learn's weights,
            k = 20).
    """

    metric: Literal["cosine", "l2"] = "cosine"
    ks: str = ""
    temperatures: str = ""
    legacy: Literal["", "li", "solo"] = ""


@dataclass(frozen=True)
class Cluster(Common):
    """Clusters against classes: NMI, AMI, ARI, accuracy and purity on test rows.

    Example: fullrank evaluate cluster runs/first --clusters 12

    Example: fullrank evaluate cluster runs/cplearn --tap codes

    Attributes:
        by: kmeans of the tap, codes (argmax of scores over codes or prototypes), or legacy (argmax of plain
            features, as CPLearn's script does for SwAV and Barlow Twins); auto: codes for that tap, else
            kmeans.
        clusters: of k-means; 0: as many as there are classes.
    """

    by: Literal["auto", "kmeans", "codes", "legacy"] = "auto"
    clusters: int = 0


@dataclass(frozen=True)
class Finetune(Common):
    """The encoder trained on with a classifier, on shares of the labels.

    Example: fullrank evaluate finetune runs/first --shares 1,10 --epochs 20

    Attributes:
        shares: of the labels in percent, with commas between.
        epochs: passes over the labelled images; 0: 30.
        lr: of the classifier, for 256 images; the encoder has a tenth; 0: 0.1.
        precision: fp32 or bf16.
    """

    shares: str = "1,10,100"
    epochs: int = 0
    lr: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"


@dataclass(frozen=True)
class All(Common):
    """Linear, k-NN and clustering for every encoder that a run kept (`train --keep-every N`), in one table.

    Example: fullrank evaluate all runs/first
    """


def run(words: Sequence[str]) -> int:
    """Evaluates, prints, and writes the result down."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0
    if words[0] not in PROBES:
        raise UnknownNameError("probe", words[0], PROBES)
    kind, command = PROBES[words[0]]
    return command(parse(kind, words[1:], f"fullrank evaluate {words[0]}"))


def run_linear(args: Linear) -> int:
    """Logistic regression, or a paper's protocol."""
    from fullrank.evaluation import probing
    from fullrank.evaluation.result import place
    from fullrank.evaluation.supervised import PROTOCOLS

    if args.protocol == "logistic":
        for name in ("epochs", "lr", "protocol_batch"):
            if getattr(args, name):
                raise UsageError(
                    f"--{name.replace('_', '-')} belongs to a --protocol: {', '.join(PROTOCOLS)}"
                )
        given = {"cs": numbers(args.cs, "--cs")} if args.cs else {}
        return on_features(args, lambda features: probing.linear(features, seed=args.seed, **given))
    if args.protocol not in PROTOCOLS:
        raise UnknownNameError("protocol", args.protocol, ["logistic", *PROTOCOLS])
    protocol = PROTOCOLS[args.protocol].changed(args.epochs, args.lr, args.protocol_batch)
    state = place(args.what, args.out) / f".linear-{args.protocol}.partial.pt"
    return on_images(
        args,
        lambda model, data, progress: probing.trained_linear(
            args.what, model, data, protocol, called=args.protocol, seed=args.seed, state=state,
            progress=progress, precision=args.precision,
        ),
    )  # fmt: skip


def run_knn(args: Knn) -> int:
    """k nearest neighbours."""
    from fullrank.evaluation import probing

    if args.legacy:
        kind: Any = args.legacy
        return on_features(args, lambda features: probing.legacy_knn(features, kind=kind, metric=args.metric))
    ks = [int(k) for k in numbers(args.ks, "--ks", whole=True)] if args.ks else None
    temperatures = numbers(args.temperatures, "--temperatures") if args.temperatures else None
    return on_features(
        args,
        lambda features: probing.knn(
            features, metric=args.metric, ks=ks, temperatures=temperatures, seed=args.seed
        ),
    )


def run_cluster(args: Cluster) -> int:
    """Clusters against classes."""
    from fullrank.evaluation import probing

    by = args.by if args.by != "auto" else ("codes" if args.tap == "codes" else "kmeans")
    return on_features(
        args,
        lambda features: probing.cluster(features, by=by, clusters=args.clusters or None, seed=args.seed),
    )


def run_finetune(args: Finetune) -> int:
    """Fine-tuning on shares of the labels."""
    from fullrank.evaluation import probing
    from fullrank.evaluation.supervised import FINETUNING

    protocol = FINETUNING.changed(args.epochs, args.lr)
    shares = [share / 100 for share in numbers(args.shares, "--shares")]
    return on_images(
        args,
        lambda model, data, progress: probing.tuned(
            args.what, model, data, shares, protocol=protocol, seed=args.seed, progress=progress,
            precision=args.precision,
        ),
    )  # fmt: skip


def run_all(args: All) -> int:
    """The three probes for every encoder, as a table."""
    from fullrank.cli.audit import showing_progress
    from fullrank.evaluation import probing
    from fullrank.evaluation.result import place
    from fullrank.evaluation.table import evaluate_all
    from fullrank.training.run_dir import write_atomically

    probes = {
        "linear": lambda features: probing.linear(features, seed=args.seed),
        "knn": lambda features: probing.knn(features, seed=args.seed),
        "cluster": lambda features: probing.cluster(features, seed=args.seed),
    }
    with showing_progress(quiet=args.json) as progress:
        rows = evaluate_all(args.subject(), probes, progress)
    folder = place(args.what, args.out)
    for worth in rows[-1].worth.values():
        worth.write(folder)
    found = {"subject": args.what, "rows": [row.as_dict() for row in rows]}
    path = folder / "all.json"
    write_atomically(path, json.dumps(found, indent=2).encode())
    if args.json:
        print(json.dumps({**found, "written": str(path)}))
        return 0
    from fullrank.report.evaluation import epochs_table

    show(epochs_table(rows), rows[-1].worth.values(), path)
    return 0


PROBES: dict[str, tuple[type[Any], Callable[[Any], int]]] = {
    "linear": (Linear, run_linear),
    "knn": (Knn, run_knn),
    "cluster": (Cluster, run_cluster),
    "finetune": (Finetune, run_finetune),
    "all": (All, run_all),
}


def on_features(args: Common, probe: Callable[[Any], EvaluationResult]) -> int:
    """Opens or computes features, probes them, and tells."""
    from fullrank.cli.audit import showing_progress
    from fullrank.evaluation.subject import open_features

    with showing_progress(quiet=args.json) as progress:
        features = open_features(args.subject(), progress)
        if progress:
            progress("probing", 0, 0)
        worth = probe(features)
    return tell(args, worth)


def on_images(args: Common, probe: Callable[[Any, Any, Any], EvaluationResult]) -> int:
    """Opens an encoder and its images, trains on them, and tells."""
    from fullrank.cli.audit import showing_progress
    from fullrank.evaluation.subject import open_encoder_and_data

    if args.tap not in ("", "features"):
        raise UsageError("a classifier trained on images stands on the encoder's features: leave --tap out")
    model, data = open_encoder_and_data(args.subject())
    with showing_progress(quiet=args.json) as progress:
        worth = probe(model, data, progress)
    return tell(args, worth)


def tell(args: Common, worth: EvaluationResult) -> int:
    """Writes a result down and prints it."""
    from fullrank.evaluation.result import place

    path = worth.write(place(args.what, args.out))
    if args.json:
        print(json.dumps({**worth.as_dict(), "written": str(path)}))
        return 0
    from fullrank.report.evaluation import result_table

    show(result_table(worth), [worth], path)
    return 0


def show(table: Any, worths: Any, path: Path) -> None:
    """Prints a table, what was assumed, and where it is written."""
    from rich.console import Console

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=130, highlight=False)
    console.print(table)
    for note in dict.fromkeys(note for worth in worths for note in worth.notes):
        console.print(f"note    {note}", markup=False)
    print(f"written {path}")


def numbers(text: str, option: str, whole: bool = False) -> list[float]:
    """Positive numbers with commas between.

    Example:
        >>> numbers("1, 10", "--shares")
        [1.0, 10.0]
    """
    found = []
    for word in text.split(","):
        try:
            value = float(word)
        except ValueError:
            raise UsageError(f"{option} takes numbers with commas between, not {word.strip()!r}") from None
        if not value > 0 or (whole and not value.is_integer()):
            raise UsageError(f"{option} takes positive {'whole ' * whole}numbers, not {word.strip()}")
        found.append(value)
    return found
