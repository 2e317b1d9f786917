"""`fullrank evaluate PROBE WHAT`: quality of a representation by its labels."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from fullrank import api
from fullrank.cli.arguments import What, make_console, parse, showing_progress
from fullrank.errors import UnknownNameError
from fullrank.options import (
    ClusterOptions,
    EvaluateOptions,
    FinetuneOptions,
    KnnOptions,
    LinearOptions,
)
from fullrank.terminal import say

HELP = """\
usage: fullrank evaluate PROBE WHAT [OPTIONS]

Quality of a representation by its labels. WHAT is a run, an encoder (a name of timm, torchvision or Hugging
Face, a checkpoint) with --data, a folder of `fullrank embed`, or a file of embeddings with labels.

probes:
  linear    a linear classifier: logistic regression on features, or trained as a paper does it (--protocol)
  knn       k nearest neighbours; k is chosen on training rows
  cluster   clusters against classes: k-means, or a method's own codes
  finetune  the encoder trained on with a classifier, on 1 %, 10 % and all of the labels
  all       linear, knn and cluster for every encoder that a run kept, in one table

`fullrank evaluate PROBE --help` tells a probe's options, with an example. With --slurm it is a job of SLURM:
--slurm --help.
Results are printed and written beside a run, in RUN/evaluations."""


@dataclass(frozen=True)
class Command:
    """Options of every probe on the command line.

    Attributes:
        what: a run, an encoder, a folder of `fullrank embed`, or a file of embeddings.
        out: folder for the result; empty: RUN/evaluations, or evaluations/NAME.
        json: print one object.
    """

    what: What = field(kw_only=True)
    out: str = ""
    json: bool = False


@dataclass(frozen=True)
class Linear(LinearOptions, Command):
    """A linear classifier on features.

    Logistic regression on features of un-augmented images (its penalty chosen on held-out training rows), or
    with --protocol the classifier that a paper trains on random crops before the frozen encoder: simsiam, li,
    solo, rdm-byol, rdm-simsiam. An interrupted protocol goes on where it was.

    Example: fullrank evaluate linear runs/first

    Example: fullrank evaluate linear timm:resnet18 --data photos --protocol simsiam --download
    """


@dataclass(frozen=True)
class Knn(KnnOptions, Command):
    """k nearest neighbours among training rows.

    k, and the temperature or plain majority, are chosen on a tenth of the training rows that is held out for
    it, never on test rows. The search is exact.

    Example: fullrank evaluate knn runs/first --metric cosine
    """


@dataclass(frozen=True)
class Cluster(ClusterOptions, Command):
    """Clusters against classes: NMI, AMI, ARI, accuracy and purity on test rows.

    Example: fullrank evaluate cluster runs/first --clusters 12

    Example: fullrank evaluate cluster runs/cplearn --tap codes
    """


@dataclass(frozen=True)
class Finetune(FinetuneOptions, Command):
    """The encoder trained on with a classifier, on shares of the labels.

    Example: fullrank evaluate finetune runs/first --shares 1,10 --epochs 20
    """


@dataclass(frozen=True)
class All(EvaluateOptions, Command):
    """Linear, k-NN and clustering for every encoder of a run, in one table.

    Example: fullrank evaluate all runs/first
    """


PROBES: dict[str, type[Any]] = {
    "linear": Linear, "knn": Knn, "cluster": Cluster, "finetune": Finetune, "all": All,
}  # fmt: skip


def run(words: Sequence[str]) -> int:
    """Evaluate, print the result, and write it down."""
    if not words or words[0] in ("-h", "--help"):
        print(HELP)
        return 0
    probe: Any = words[0]
    if probe not in PROBES:
        raise UnknownNameError("probe", probe, PROBES)
    args = parse(PROBES[probe], words[1:], f"fullrank evaluate {probe}")
    from fullrank.agreement import check_same_options
    from fullrank.features.process_group import is_helper, sharing
    from fullrank.features.writing import processes

    protocol = getattr(args, "protocol", "logistic")
    if probe in ("finetune", "all") or protocol != "logistic":
        if is_helper():
            return 0
        if processes()[1] > 1:
            what = f"evaluate {probe}" + ("" if protocol == "logistic" else f" --protocol {protocol}")
            say(f"note    {what} is done by one process: the others are not needed", sys.stderr)
        return _evaluate(probe, args)
    with sharing(["evaluate", *words]) as peers:
        check_same_options(f"evaluate {probe}", vars(args), peers)
        return _evaluate(probe, args, peers.rank > 0)


def _evaluate(probe: Any, args: Any, helps: bool = False) -> int:
    """Evaluate; a process that helps another one leaves printing and writing to it."""
    from fullrank.evaluation.result import result_folder
    from fullrank.features.folders import identity
    from fullrank.report.evaluation import epochs_table, result_table

    folder = result_folder(args.what, args.out)
    with showing_progress(quiet=args.json or helps) as on_progress:
        if probe == "all":
            rows = api.evaluate("all", args.what, args, on_progress=on_progress)
            results, table = list(rows[-1].results.values()), epochs_table(rows)
            printed = {"subject": args.what, "rows": [row.as_dict() for row in rows]}
        else:
            results = [api.evaluate(probe, args.what, args, out=args.out, on_progress=on_progress)]
            table, printed = result_table(results[0]), results[0].as_dict()
    if helps:
        return 0
    what = identity(args.what)
    path = [result.write(folder, what) for result in results][-1]
    if probe == "all":
        from fullrank.atomic import write_atomically

        path = folder / "all.json"
        write_atomically(path, json.dumps({**printed, "what": what}, indent=2).encode())
    if args.json:
        print(json.dumps({**printed, "what": what, "written": str(path)}))
        return 0
    console = make_console(130)
    console.print(table)
    for note in dict.fromkeys(note for result in results for note in result.notes):
        console.print(f"note    {note}", markup=False)
    say(f"written {path}")
    return 0
