"""`fullrank audit WHAT`: has it collapsed, how, and how does one know?"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from fullrank.cli.arguments import What, make_console, parse, showing_progress
from fullrank.coercion import as_name
from fullrank.errors import UnknownNameError, UsageError
from fullrank.options import split_names
from fullrank.report.audit.options import AuditOptions
from fullrank.terminal import say
from fullrank.untrusted.paths import expand_user

if TYPE_CHECKING:
    from fullrank.collapse.peers import Peers


@dataclass(frozen=True)
class Audit(AuditOptions):
    """Judge an embedding: whether it has collapsed, how, and by which evidence.

    WHAT is a file or folder of embeddings (.npy, .npz, .pt, .safetensors, .parquet, .csv, .h5, .zarr), a
    pattern or an address of such files (s3://bucket/features), a folder that `fullrank embed` wrote, or an
    encoder: a name of timm, torchvision or Hugging Face, a directory, a checkpoint, or a run directory.

    Example: fullrank audit features.npy --labels labels.csv --fail-on complete,dimensional

    Example: fullrank audit timm:resnet18 --data photos --layers all --download

    Attributes:
        what: embeddings or an encoder.
        layers: `all` looks behind every stage or block of an encoder.
        against: embeddings or an encoder to compare with; `untrained`: the same encoder with random weights.
        out: folder for audit.json and audit.html; empty: audits/NAME, one for each WHAT.
        json: print one object.
        fail_on: kinds of verdict, with commas between, that set exit code 3; `collapsed` is any collapse. The
            last verdict of a run itself counts, too.
        thresholds: a YAML or JSON file of thresholds; options win.
        page: write the page, not audit.json alone.
        figures: also draw the figures for a paper, as SVG, PDF and PNG, into the folder's figures/.
        processes: processes that share the files of a folder, each file read by one; 0: torchrun's,
            else one.
    """

    what: What = field(kw_only=True)
    layers: str = ""
    against: str = ""
    out: str = ""
    json: bool = False
    fail_on: str = ""
    thresholds: str = ""
    page: bool = True
    figures: bool = False
    processes: int = 0


def run(words: Sequence[str]) -> int:
    """Audit, print the verdict, and write it down."""
    args = parse(Audit, words, "fullrank audit")
    from fullrank.collapse.peers import Peers
    from fullrank.report.audit.subjects import read_thresholds

    if args.thresholds:
        known = Audit(what=args.what, threshold=read_thresholds(Path(args.thresholds)))
        args = parse(Audit, words, "fullrank audit", default=known)
    as_name(args.what, "WHAT is a file, a folder or an encoder")
    failing = kinds(args.fail_on)
    if not failing and any(word.partition("=")[0] in ("--fail-on", "--fail_on") for word in words):
        raise UsageError("--fail-on names no kind of verdict: take collapsed, or kinds with commas between")
    if args.layers not in ("", "all"):
        raise UsageError(f"--layers takes all, not {args.layers}; name single ones with --taps")
    if args.layers and args.taps:
        raise UsageError("--taps and --layers all exclude each other")
    args = replace(args, taps="all") if args.layers else args
    from fullrank.agreement import check_same_options
    from fullrank.features.embeddings import count_parts
    from fullrank.features.process_group import is_helper, sharing
    from fullrank.features.subject import kind_of

    if kind_of(args.what, args.data) != "embeddings":
        if is_helper():
            return 0  # what is not a file of embeddings is for one process
        return _audit(args, failing, Peers(alone=True))
    with sharing(["audit", *words], args.processes, lambda: count_parts(args.what)) as peers:
        check_same_options("audit", vars(args), peers)
        return _audit(args, failing, peers)


def _audit(args: Audit, failing: set[str], peers: Peers) -> int:
    """Audit together with other processes; the first one writes and prints."""
    from fullrank.encoders.runs import begins_loaded
    from fullrank.features.store import main_tap
    from fullrank.malloc import keep_freed_memory
    from fullrank.report.audit.folder import audit_folder, identity
    from fullrank.report.audit.page import as_object, write_audit
    from fullrank.report.audit.subjects import audit_against, audit_subject, refuse_against
    from fullrank.report.audit.terminal import print_audit
    from fullrank.report.audit.view import Against

    keep_freed_memory()
    refuse_against(args.against, args)
    out = audit_folder(args.what, args.out)
    with showing_progress(quiet=args.json or peers.rank > 0) as on_progress:
        views = audit_subject(args.what, args, None, on_progress, peers)
        main = main_tap(views)
        if peers.rank:
            return 0
        against = None
        if args.against:
            other = audit_against(args.what, args.against, args, main, on_progress)
            loaded = args.against == "untrained" and begins_loaded(args.what)
            against = Against("as loaded" if loaded else short_name(args.against), other)
        page = write_audit(
            views,
            out,
            title=short_name(args.what),
            subject=identity(args.what),
            against=against,
            thresholds=args.threshold,
            page=args.page,
            figures=args.figures,
        )
    if args.json:
        written = {"out": str(out), "page": str(page) if args.page else None, "subject": identity(args.what)}
        print(json.dumps(as_object(views, against) | written, allow_nan=False))
    else:
        print_audit(views, main, against, make_console(130))
        say(f"page    {page}" if page.suffix == ".html" else f"written {page}")
    return 3 if views[main].kinds & failing else 0


def kinds(text: str) -> set[str]:
    """The kinds of verdict that are named; raises UnknownNameError for what is none."""
    from fullrank.collapse.verdict import Kind

    known = list(get_args(Kind))
    chosen: set[str] = set()
    for name in split_names(text):
        if name == "collapsed":
            chosen |= set(known) - {"healthy", "not decidable"}
        elif name in known:
            chosen.add(name)
        else:
            raise UnknownNameError("kind of verdict in --fail-on", name, [*known, "collapsed"])
    return chosen


def short_name(what: str) -> str:
    """The name of a file or folder, or the name as it is."""
    path = expand_user(what)
    return path.resolve().name if path.exists() else what
