"""`fullrank audit WHAT`: has it collapsed, how, and how does one know?"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, get_args

import tyro

from fullrank.cli.arguments import parse
from fullrank.collapse.thresholds import Thresholds
from fullrank.errors import UnknownNameError, UsageError


@dataclass(frozen=True)
class Audit:
    """Judges an embedding: whether it has collapsed, how, and by which evidence.

    WHAT is a file or folder of embeddings (.npy, .npz, .pt, .safetensors, .parquet, .h5, .zarr), a folder
    that `fullrank embed` wrote, or an encoder: a name of timm, torchvision or Hugging Face, a directory, a
    checkpoint, or a run directory.

    Example: fullrank audit features.npy --labels labels.csv --fail-on complete,dimensional

    Example: fullrank audit timm:resnet18 --data photos --layers all --download

    Attributes:
        what: embeddings or an encoder.
        data: images for an encoder: a folder, or a name of `fullrank list data`. A run directory has its own.
        key: the array, where a file holds several.
        labels: a file with a class per row, for metrics of classes and the colours of the map.
        codes: rows are scores (logits) over codes or prototypes.
        taps: layers of an encoder, or taps that were stored, with commas between; `features` is what an
            encoder puts out.
        layers: `all` looks behind every stage or block of an encoder.
        against: embeddings or an encoder to compare with; `untrained`: the same encoder with random weights.
        untrained: an encoder of that name with random weights.
        image_size: side in pixels that an encoder is fed with; 0: its own.
        out: folder for audit.json, audit.html and figures; empty: audits/NAME.
        json: print one object.
        fail_on: kinds of verdict, with commas between, that set exit code 3; `collapsed` is any collapse.
        sample: rows that are compared with each other.
        metrics: names of metrics, with commas between; empty: all that apply, but for three slow ones.
        limit: images for an encoder, at most; 0: all.
        split: `train` or `held-out` images; empty: held-out ones of a run's own data
            and of stored features, else train.
        threshold: what the verdict depends on.
        thresholds: a YAML or JSON file of them; options win.
        download: fetch weights or data that are not there.
        page: write the page and the figures, not audit.json alone.
    """

    what: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="WHAT")]
    data: str = ""
    key: str = ""
    labels: str = ""
    codes: bool = False
    taps: str = ""
    layers: str = ""
    against: str = ""
    untrained: bool = False
    image_size: int = 0
    out: str = ""
    json: bool = False
    fail_on: str = ""
    sample: int = 2048
    metrics: str = ""
    limit: int = 0
    split: str = ""
    threshold: Thresholds = field(default_factory=Thresholds)
    thresholds: str = ""
    download: bool = False
    page: bool = True


def run(words: Sequence[str]) -> int:
    """Audits, prints what was found, and writes it down."""
    args = parse(Audit, words, "fullrank audit")
    if args.thresholds:
        known = Audit(what=args.what, threshold=read_thresholds(Path(args.thresholds)))
        args = parse(Audit, words, "fullrank audit", default=known)
    failing = kinds(args.fail_on)
    from fullrank.report.audit.page import Against, as_object, write_audit
    from fullrank.report.audit.subjects import AuditOptions, audit_subject, main_tap
    from fullrank.training.memory import keep_freed_memory

    keep_freed_memory()
    taps = chosen_taps(args)
    settings: dict[str, Any] = {
        "data": args.data or None,
        "codes": args.codes,
        "thresholds": args.threshold,
        "metrics": tuple(names(args.metrics)) or None,
        "sample": args.sample,
        "limit": args.limit or None,
        "split": args.split or None,
        "image_size": args.image_size or None,
        "download": args.download,
    }
    wishes = AuditOptions(key=args.key or None, taps=taps, untrained=args.untrained, **settings)
    out = place(args)
    with showing_progress(quiet=args.json) as progress:
        views = audit_subject(args.what, wishes, args.labels or None, progress)
        main = main_tap(views)
        against = None
        if args.against:
            against = Against(short_name(args.against), other(args, settings, main, progress))
        if progress:
            progress("writing", 0, 0)
        page = write_audit(
            views,
            out,
            title=short_name(args.what),
            against=against,
            thresholds=args.threshold,
            page=args.page,
            figures=args.page,
        )
    if args.json:
        written = {"out": str(out), "page": str(page) if args.page else None}
        print(json.dumps(as_object(views, against) | written, allow_nan=False))
    else:
        show(views, main, against, page)
    return 3 if views[main].verdict.kind in failing else 0


def other(args: Audit, settings: dict[str, Any], main: str, progress: Any) -> Any:
    """The audit of --against, at the tap that the verdict is about."""
    from fullrank.report.audit.subjects import AuditOptions, audit_subject, main_tap

    untrained = args.against == "untrained"
    if untrained or is_encoder(args.against):
        only = None if main in ("embedding", "codes") else (main,)
        wishes = AuditOptions(taps=only, untrained=untrained, **settings)
    else:
        wishes = AuditOptions(**{**settings, "data": None, "limit": None})
    found = audit_subject(args.what if untrained else args.against, wishes, None, progress)
    return found[main_tap(found)]


def names(text: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def kinds(text: str) -> set[str]:
    """The kinds of verdict that are named; raises UnknownNameError for what is none."""
    from fullrank.collapse.verdict import Kind

    known = list(get_args(Kind))
    found: set[str] = set()
    for name in names(text):
        if name == "collapsed":
            found |= set(known) - {"healthy", "not decidable"}
        elif name in known:
            found.add(name)
        else:
            raise UnknownNameError("kind of verdict in --fail-on", name, [*known, "collapsed"])
    return found


def chosen_taps(args: Audit) -> tuple[str, ...] | None:
    """The taps of --taps and --layers; None is the features alone."""
    if args.layers not in ("", "all"):
        raise UsageError(f"--layers takes all, not {args.layers}; name single ones with --taps")
    if args.layers and args.taps:
        raise UsageError("--taps and --layers all exclude each other")
    return ("all",) if args.layers else tuple(names(args.taps)) or None


def read_thresholds(file: Path) -> Thresholds:
    """Thresholds of a YAML or JSON file; what it does not name keeps its default."""
    import yaml

    if not file.is_file():
        raise UsageError(f"there is no file of thresholds {file}")
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} is no YAML or JSON: {str(error).splitlines()[0]}") from error
    if not isinstance(found, dict):
        raise UsageError(f"{file} must hold names and numbers, as in rank_share: 0.2")
    known = {name: type(value) for name, value in vars(Thresholds()).items()}
    values: dict[str, Any] = {}
    for name, value in found.items():
        key = str(name).replace("-", "_")
        if key not in known:
            raise UnknownNameError(f"threshold in {file}", str(name), known)
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or (known[key] is int and not float(value).is_integer())
        ):
            raise UsageError(f"{file}: {name} takes a {'whole ' * (known[key] is int)}number, not {value!r}")
        values[key] = known[key](value)
    return Thresholds(**values)


def is_encoder(what: str) -> bool:
    """Whether a text means an encoder and not embeddings."""
    from fullrank.encoders.opening import is_encoder

    return is_encoder(what)


def short_name(what: str) -> str:
    """What to call it: a file's or folder's name, or the name as it is."""
    path = Path(what).expanduser()
    return path.resolve().name if path.exists() else what


def place(args: Audit) -> Path:
    """The folder to write into; files of an earlier audit there are replaced."""
    if args.out:
        if Path(args.out).exists() and not Path(args.out).is_dir():
            raise UsageError(f"{args.out} is a file: take another --out")
        return Path(args.out)
    path = Path(args.what).expanduser()
    name = path.resolve().stem if path.is_file() else short_name(args.what)
    stem = re.sub(r"[^\w.+-]+", "-", name).strip("-.") or "audit"
    return Path("audits") / stem


@contextmanager
def showing_progress(quiet: bool) -> Iterator[Callable[[str, int, int], None] | None]:
    """A bar on the terminal while the context lasts; None where nobody looks."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        tasks: dict[str, Any] = {}

        def told(what: str, done: int, total: int) -> None:
            if total and what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
            if total:
                bar.update(tasks[what], completed=done)

        yield told


def show(views: Any, main: str, against: Any, page: Path) -> None:
    """Prints the audit of the main tap, a line for each other one, and where the page is."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False) if sys.stdout.isatty() else Console(width=130, highlight=False)
    console.print(views[main])
    if len(views) > 1:
        console.print(Text("\nOver the depth", "bold"))
        console.print(depth_table(views))
    if against is not None:
        console.print(Text(f"\nAgainst {against.name}", "bold"))
        console.print(f"{against.view.verdict}", markup=False)
        console.print(differences_table(views[main], against.view))
    console.print()
    print(f"page    {page}" if page.suffix == ".html" else f"written {page}")


def depth_table(views: Any) -> Any:
    """One line for each tap."""
    from rich.table import Table
    from rich.text import Text

    from fullrank.report.style import GREY, count, number

    table = Table(box=None, padding=(0, 2, 0, 0), header_style=GREY, pad_edge=False)
    for name in ("Tap", "Width", "Level", "Rank", "RankMe unit", "Verdict"):
        table.add_column(name, justify="left" if name in ("Tap", "Verdict") else "right", no_wrap=True)
    for tap, view in views.items():
        values = [
            number(view.panel.value(name)) if view.panel else "–"
            for name in ("level", "erank_centred", "rankme_unit")
        ]
        verdict = Text(f"{view.look.glyph} {view.verdict.kind}", view.look.colour)
        table.add_row(tap, count(view.d), *values, verdict)
    return table


def differences_table(view: Any, other: Any) -> Any:
    """Metric by metric, those that were judged."""
    from rich.table import Table

    from fullrank.report.audit.wording import differences
    from fullrank.report.style import GREY

    table = Table(box=None, padding=(0, 2, 0, 0), header_style=GREY, pad_edge=False)
    for name in ("Metric", "This", "Other", "Difference", "Intervals apart"):
        table.add_column(name, justify="left" if name == "Metric" else "right", no_wrap=True)
    judged = {item.metric for item in view.verdict.evidence}
    for row in differences(view, other):
        if row.name in judged or len(view.metrics) < 12:
            table.add_row(row.name, row.value, row.other, row.difference, row.clear)
    return table
