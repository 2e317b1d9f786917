"""`fullrank train METHOD|RECIPE`: trains, watches, judges and writes the page."""

from __future__ import annotations

import dataclasses
import importlib.util
import itertools
import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, TextIO

import tyro

from fullrank import api
from fullrank.cli.arguments import parse, showing_progress
from fullrank.errors import UsageError
from fullrank.terminal import say, speaks, terminal

HELP_WORDS = {"-h", "--help", "--help-all"}
LARGE = 224  # pixels: the size of the images that a method's help tells its defaults for

USAGE = """\
usage: fullrank train METHOD|RECIPE [OPTIONS]

Trains a method on unlabelled images, watches for collapse, and writes the run's page.

  fullrank train simsiam --data FOLDER --out runs/first        a folder of images, or of Hub parquet
  fullrank train cifar10/simsiam-cpu --data FOLDER             a recipe; options after it win
  fullrank train byol --backbone vit_tiny_patch16_224 --image-size 64 --data FOLDER

methods: {methods}
recipes: {count} of them, DATA/METHOD; `fullrank list recipes` tells what each aims at

`fullrank train METHOD --help` tells the first options with the method's defaults, --help-all every one; with
--data X beside it, the defaults for these images. The method's own are --options.NAME.
With --slurm it is a job of a SLURM cluster: `fullrank train --slurm --help`."""


def run(words: Sequence[str]) -> int:
    """Train from the start."""
    if not words or words[0] in ("-h", "--help", "--help-all"):
        from fullrank.methods import METHODS
        from fullrank.training.recipes import recipe_names

        print(USAGE.format(methods=", ".join(METHODS), count=len(recipe_names())))
        return 0
    if words[0].startswith("-"):
        raise UsageError(
            f"name a method or a recipe before {words[0]}: fullrank train simsiam {words[0]} ..."
        )
    method, layers, _ = starting_point(words[0], words[1:])
    if HELP_WORDS & set(words[1:]):
        print(_help(method, layers, words))
        return 0
    from fullrank.encoders.initial import Sources, open_initial_weights
    from fullrank.training.contract import FREE
    from fullrank.training.planning import plan_run
    from fullrank.training.run import may_continue
    from fullrank.training.run_dir import free_name

    args = parse_options(method, layers, words[1:], f"fullrank train {words[0]}")
    require_logs(args.log)  # before images are opened
    with showing_progress(quiet=not speaks() or bool({"--quiet", "--json"} & set(words))):
        plan = plan_run(words[0], named_settings(args, words[1:]), open_initial_weights)
    config, sources = plan.config, Sources(plan.data, plan.initial)
    if args.profile:
        return show_profile(config, args, sources)
    out = Path(args.out) if args.out else free_name(config)
    go_on = args.resume == "auto" and may_continue(config, out, plan.named)

    def start(listeners: Sequence[Any]) -> Any:
        if go_on:
            changes = {key: getattr(config, key) for key in FREE & set(plan.named) - {"out"}}
            return api.resume(out, listeners=listeners, **changes)
        return api.train_config(config, out, listeners, sources, plan.named)

    return follow(start, out, config.log, args, plan.notes)


def _help(method: str, layers: Sequence[Mapping[str, Any]], words: Sequence[str]) -> str:
    """Help of a method, with the defaults for the images of --data if given."""
    from fullrank.cli.train_help import help_page

    options = [word for word in words[1:] if word not in HELP_WORDS]
    named = any(word.split("=")[0] == "--data" for word in options)
    prog = f"fullrank train {words[0]}"
    args = parse_options(method, layers, options, prog)
    config, problem = to_config(args), ""
    if named:
        from fullrank.encoders.initial import open_initial_weights
        from fullrank.training.planning import plan_run
        from fullrank.training.setup import resolve

        try:
            plan = plan_run(words[0], named_settings(args, options), open_initial_weights)
            followed = plan.initial.follow(plan.config) if plan.initial else plan.config
            config = resolve(followed, plan.data)
        except UsageError as error:  # help is what helps here
            problem = f"\nAs they are, they do not fit: {error}\n"
    values = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    whole = "--help-all" in words
    return help_page(prog, method, values, args.options, whole, config.data if named else "") + problem


def show_profile(config: Any, args: Any, sources: Any) -> int:
    """Where the time of a few steps goes."""

    from fullrank.report.run.terminal import profile_table
    from fullrank.training.profile import profile

    measured = profile(config, args.profile, Path(args.out or f"profiles/{config.method}"), *sources)
    if not speaks():
        return 0
    if args.json:
        print(json.dumps(measured.as_dict()))
        return 0
    terminal(highlight=False).print(profile_table(measured))
    say(f"trace   {measured.trace} (for chrome://tracing or ui.perfetto.dev)")
    return 0


def starting_point(what: str, words: Sequence[str] = ()) -> tuple[str, list[Mapping[str, Any]], str]:
    """Starting point of a method or recipe on --data, before options are parsed."""
    from fullrank.training.config import TrainConfig
    from fullrank.training.recipes import starting_point as start_of

    given = {"--data": TrainConfig.data, "--init": TrainConfig.init}
    for word, following in itertools.pairwise([*words, ""]):
        option, equals, value = word.partition("=")
        if option in given:
            given[option] = value if equals else following
    return start_of(what, *given.values())


def named_settings(args: Any, words: Sequence[str]) -> dict[str, Any]:
    """The settings that a command line names, equal to the defaults or not.

    Example:
        >>> from fullrank.training.config import TrainConfig
        >>> named_settings(TrainConfig(lr=0.1, nesterov=False), ["--lr=0.1", "--no-nesterov"])
        {'lr': 0.1, 'nesterov': False}
    """
    from fullrank.training.config import TrainConfig

    flags = [word[2:].split("=")[0].replace("-", "_") for word in words if word.startswith("--")]
    plain = {flag for name in flags for flag in (name, name.replace("no_", "", 1))}
    fields = [f.name for f in dataclasses.fields(TrainConfig) if f.name not in ("method", "options", "out")]
    found = {name: getattr(args, name) for name in fields if name in plain}
    if own := {flag.removeprefix("options.") for flag in plain if flag.startswith("options.")}:
        found["options"] = {key: value for key, value in vars(args.options).items() if key in own}
    return found


def parse_options(method: str, layers: Sequence[Mapping[str, Any]], words: Sequence[str], prog: str) -> Any:
    """Parse a command line over a recipe, or the method's settings.

    Raises:
        UsageError: whatever is wrong, before data is opened, let alone fetched.
    """
    from fullrank.methods import METHODS
    from fullrank.training.config import TrainConfig, make_train_config
    from fullrank.training.planning import shortened_warmup

    large = {key: value for key, value in METHODS[method].defaults(LARGE).items() if key != "views"}
    config = make_train_config(method, large, *layers)
    known = {f.name: getattr(config, f.name) for f in dataclasses.fields(TrainConfig)}
    known["options"] = METHODS[method].Config(**config.options)
    Args = dataclasses.make_dataclass(
        "Args",
        [
            ("method", tyro.conf.Suppress[str], dataclasses.field(default=method, kw_only=True)),
            ("options", METHODS[method].Config, dataclasses.field(default=known["options"], kw_only=True)),
            ("quiet", bool, dataclasses.field(default=False, kw_only=True)),
            ("json", bool, dataclasses.field(default=False, kw_only=True)),
            ("resume", Literal["never", "auto"], dataclasses.field(default=resume_default(), kw_only=True)),
            ("profile", int, dataclasses.field(default=0, kw_only=True)),
            ("live", bool, dataclasses.field(default=False, kw_only=True)),
        ],
        bases=(TrainConfig,),
        frozen=True,
        namespace={"__post_init__": lambda self: None},  # validated as a whole afterwards
    )
    args = parse(Args, words, prog, default=Args(**known))
    for shorter in shortened_warmup(vars(args), named_settings(args, words)):
        args = dataclasses.replace(args, **shorter)
    to_config(args)
    return args


def resume_default() -> Literal["never", "auto"]:
    """`auto` where a scheduler starts a job again by itself."""
    requeues = os.environ.keys() & {"SLURM_JOB_ID", "TORCHELASTIC_RUN_ID"}
    return "auto" if requeues else "never"


def to_config(args: Any) -> Any:
    """The validated TrainConfig of parsed options."""
    from fullrank.training.config import TrainConfig

    values = {f.name: getattr(args, f.name) for f in dataclasses.fields(TrainConfig)}
    return TrainConfig(**{**values, "options": dataclasses.asdict(args.options)})


def require_logs(kinds: Sequence[str]) -> None:
    """Raise UsageError where the package of a logger is not installed."""
    for kind in kinds:
        if importlib.util.find_spec(kind) is None:
            raise UsageError(f"--log {kind} needs its package: pip install 'fullrank[{kind}]'")


def follow(
    start: Any,
    out: Path,
    logs: Sequence[str],
    args: Any,
    notes: Sequence[str] = (),
) -> int:
    """Run `start(listeners)` on the chosen terminal and loggers; print the result."""
    import torch

    from fullrank.cli.long_run import LongRunHint
    from fullrank.images.skipped import LIST, read_skipped
    from fullrank.report.run.terminal import LivePanel, PlainLines, make_console
    from fullrank.training.logs import open_log
    from fullrank.training.records import RunRecord, StartRecord

    require_logs(logs)
    silent = args.quiet or args.json or not speaks()
    with ExitStack() as stack:
        console = stack.enter_context(make_console("json" if args.json else "quiet" if silent else "auto"))
        opened: list[Any] = []
        shown, known, hint = 0, 0, LongRunHint(gpu=torch.cuda.is_available())

        def listen(record: RunRecord) -> None:
            try:
                show(record)
            except BrokenPipeError:  # its reader has seen enough: the run goes on
                sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
            for log in opened:
                log(record)

        def show(record: RunRecord) -> None:
            nonlocal shown, known
            if (line := hint(record)) and not silent:
                say(f"note    {line}")
            if isinstance(record, StartRecord):  # the run directory exists from now on
                known = len(read_skipped(out))
                opened.extend(open_log(kind, out) for kind in logs)
                if args.live:
                    _serve_live(out, stack, sys.stderr if args.json or args.quiet else sys.stdout)
                if not (args.quiet or args.json):
                    for note in dict.fromkeys([*notes, *record.notes]):
                        say(f"note    {note}")
                if isinstance(console, PlainLines | LivePanel):
                    console.summary.take_past(panels_before(out, record))
                console.start(record.config, record.total_steps)
            else:
                shown += 1
                console(record)

        with showing_progress(silent):  # of images that are opened, before the first record
            outcome = start([listen])
    page = outcome.path / "report.html"
    code = 3 if outcome.reason == "collapsed" else 0
    if not speaks():  # the first process says it
        return code
    if args.json:
        print(json.dumps(result(outcome, page)))
    elif not args.quiet:
        if not shown:
            say(f"this run had ended already ({outcome.reason}): nothing is left to train")
        elif outcome.reason == "collapsed":
            print("stopped because it collapsed, as --on-collapse stop asks; exit code 3")
        if epoch := _epoch_of_an_earlier_encoder(outcome):
            say(f"encoder that of epoch {epoch}, which had the best label-free score (--early-stop)")
        if (skipped := len(read_skipped(outcome.path))) > known:  # the others were named at the start
            say(f"skipped {skipped:,} files in all, listed in {outcome.path / LIST}")
        say(f"page    {page}")
    return code


def panels_before(out: Path, start: Any) -> list[Any]:
    """Panels of a run that goes on, by which its end is compared with its beginning."""
    from fullrank.training.record_files import read_records
    from fullrank.training.records import EpochRecord

    log = out / "metrics.jsonl"
    records = read_records(log).records if start.step and log.exists() else ()
    return [record for record in records if isinstance(record, EpochRecord)]


def _serve_live(run: Path, stack: ExitStack, output: TextIO) -> None:
    """Serve the run's page beside the training, and open a browser."""
    from fullrank.live.beside import LivePage

    page = LivePage(run)
    stack.callback(page.close)
    say(f"live    {page.url}" if page.url else f"note    no live page: {page.problem}", output)


def _epoch_of_an_earlier_encoder(outcome: Any) -> int:
    """Epoch of an encoder left by --early-stop in place of the last one; else 0."""
    from fullrank.encoders.runs import encoder_header
    from fullrank.training.run_dir import RunDir

    run = RunDir.open(outcome.path)
    if not run.config().early_stop or outcome.reason not in ("finished", "stopped early"):
        return 0
    epoch = int(encoder_header(run).get("epoch", 0))
    return epoch if epoch != outcome.record.epoch else 0


def result(outcome: Any, page: Path) -> dict[str, Any]:
    """The result of a run as JSON."""
    from fullrank.report.run.reading import read_run
    from fullrank.report.run.summary import summarise

    summary = summarise(read_run(outcome.path))
    return {
        "run": str(outcome.path),
        "page": str(page),
        "reason": outcome.reason,
        "verdict": outcome.record.verdict,
        "loss": outcome.record.loss,
        "level": summary.level,
        "rank": summary.rank,
        "knn": outcome.record.accuracy("knn"),
        "linear": summary.linear,
        "seconds": dict(outcome.seconds),
    }
