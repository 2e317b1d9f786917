"""Contract of a resumed run: the settings that its checkpoint was trained with."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from torch.nn.modules.batchnorm import _BatchNorm

from fullrank.coercion import coerce
from fullrank.errors import FullrankError, UsageError, printable
from fullrank.images.fingerprints import difference
from fullrank.methods import METHODS, Method, make_config
from fullrank.training.config import TrainConfig

FREE = frozenset(
    {
        "epochs", "devices", "num_nodes", "strategy", "timeout_minutes", "accelerator",
        "workers", "log", "out", "download", "keep_every",
        "keep_checkpoints", "checkpoint_every", "checkpoint_minutes", "on_nan", "panels", "early_stop",
    }
)  # fmt: skip
"""Settings that may always change: they say how long and where, not what is trained."""

MOST_NAMED = 6  # differences in a message
OPEN: Mapping[str, Any] = {
    "image_size": 0, "views": "auto", "backbone": "auto", "stem": "auto", "warmup_epochs": -1,
    "ordering_sha256": "", "mean": [], "std": [], "shuffle_window": 0,
}  # fmt: skip
"""Settings that a run decides when it starts, as they read before it does."""


def with_changes(config: TrainConfig, changes: Mapping[str, Any]) -> TrainConfig:
    """Return a configuration with other settings; `options.NAME` are the method's.

    Raises:
        UnknownNameError: there is no such setting.
        UsageError: a value that cannot be.

    Example:
        >>> with_changes(TrainConfig(method="byol"), {"options.tau_base": "0.9"}).options["tau_base"]
        0.9
    """
    own = {key.removeprefix("options."): value for key, value in changes.items() if "options." in key}
    plain = {key: value for key, value in changes.items() if "options." not in key}
    values = config.as_dict()
    options = values["options"] | {
        key: _parsed(values["options"].get(key), value) for key, value in own.items()
    }
    known = coerce(TrainConfig, {k: _parsed(values.get(k), value) for k, value in plain.items()}, "key")
    checked = make_config(METHODS[known.get("method", config.method)], options)
    return replace(config, **known, options=asdict(checked))


def _parsed(before: Any, value: Any) -> Any:
    """A value of the command line, read as the kind of the one before it."""
    if not isinstance(value, str) or isinstance(before, str):
        return value
    import yaml

    from fullrank.coercion import load_yaml

    try:
        return load_yaml(value)
    except yaml.YAMLError:
        return value


def check_contract(
    config: TrainConfig, before: Mapping[str, Any] | None, where: str, allowed: Collection[str] = ()
) -> None:
    """See that a run goes on with the settings of its checkpoint.

    Args:
        config: what it would go on with.
        before: `TrainConfig.as_dict` of when the checkpoint was written; None in runs from before.
        where: the run, for the message.
        allowed: settings that may differ, besides those in `FREE`.

    Raises:
        UsageError: others differ; they are listed, with what would be right.
    """
    if before is None:
        return
    try:
        if not isinstance(before, Mapping):
            raise TypeError(f"they are {before!r:.60}")
        trained = TrainConfig.from_dict(before)
    except (FullrankError, TypeError, ValueError) as error:
        raise UsageError(f"the settings in the checkpoint of {where} cannot be read: {error}") from error
    found = differences(trained, config)
    left = [key for key in found if key not in FREE and key not in allowed]
    if left:
        raise UsageError(
            f"{where} was trained with {_listed((k, found[k][0]) for k in left)}, and is to go on with "
            f"{_listed((k, found[k][1]) for k in left)}: put back what config.yaml had, or allow the change "
            f"with {' '.join(f'--override {key}' for key in left[:MOST_NAMED])}"
        )


def check_length(config: TrainConfig, progress: Any, where: str) -> None:
    """See that a run is not to end before the epoch that its checkpoint stands at.

    Args:
        config: what it would go on with.
        progress: `TrainState.as_dict` of the checkpoint.
        where: the run, for the message.

    Raises:
        UsageError: it is.

    Example:
        >>> check_length(TrainConfig(epochs=5), {"epoch": 12}, "runs/first")
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: runs/first has trained 12 epochs, and cannot end after 5: --epochs takes \
12 or more
    """
    epoch = progress.get("epoch") if isinstance(progress, Mapping) else None
    if isinstance(epoch, int) and epoch > config.epochs:
        raise UsageError(
            f"{where} has trained {epoch:,} epochs, and cannot end after {config.epochs:,}: --epochs takes "
            f"{epoch:,} or more"
        )


def check_images(count: int, now: int, before: Any, fingerprint: Mapping[str, str]) -> None:
    """See that a run goes on with the images that it began with.

    Args:
        count: training images that it began with; 0 in checkpoints that do not tell.
        now: training images that there are.
        before: `Data.fingerprint` of then; None or empty where it is not known.
        fingerprint: that of now.

    Raises:
        UsageError: they are others.
    """
    if count not in (0, now):
        raise UsageError(
            f"the run began with {count:,} training images, and there are {now:,} now: it goes on exactly "
            "only with those of before"
        )
    if isinstance(before, Mapping) and before and fingerprint and (found := difference(before, fingerprint)):
        raise UsageError(
            f"the images are not those that the run began with ({printable(found)}): put them back, or go on "
            f"with these by --override data"
        )


def check_shares(batch_size: int, processes: int, where: str) -> None:
    """See that processes can share the batch that a run keeps.

    Raises:
        UsageError: they cannot.

    Example:
        >>> check_shares(64, 3, "runs/first")
        Traceback (most recent call last):
            ...
        fullrank.errors.UsageError: runs/first keeps its batches of 64 images, which 3 processes cannot \
share evenly: go on with 1, 2 or 4
    """
    if batch_size % processes:
        fit = [n for n in range(1, 2 * processes) if batch_size % n == 0]
        listed = " or ".join([", ".join(map(str, fit[:-1])), str(fit[-1])] if len(fit) > 1 else map(str, fit))
        raise UsageError(
            f"{where} keeps its batches of {batch_size} images, which {processes} processes cannot share "
            f"evenly: go on with {listed}"
        )


def check_processes(
    config: TrainConfig, method: Method, before: Any, now: int, where: str, allowed: Collection[str] = ()
) -> None:
    """See that another number of processes trains the same.

    Args:
        config: of the run.
        method: as it was built.
        before: processes that wrote the checkpoint; None in runs from before.
        now: processes that go on.
        where: the run, for the message.
        allowed: settings that may differ; `devices` allows another number.

    Raises:
        UsageError: a part of what is trained is each process's own.
    """
    if before in (None, now) or "devices" in allowed:
        return
    own = [method.per_process] if method.per_process else []
    if config.sync_bn != "both" and any(isinstance(part, _BatchNorm) for part in method.modules()):
        own.append(f"statistics of BatchNorm (--sync-bn {config.sync_bn})")
    if own:
        raise UsageError(
            f"{where} was trained by {before} processes, and {' and '.join(own)} are of each process's "
            f"images alone: go on with --devices {before}, or allow another number by --override devices"
        )


def check_same(config: TrainConfig, stored: TrainConfig, where: str, named: Collection[str] | None) -> None:
    """See that settings that were asked for again are those of the run that is there.

    Args:
        config: what was asked for, before data and memory decide what is open.
        stored: settings of the run.
        where: the run, for the message.
        named: the settings that somebody typed; None: all of them. What nobody did may have been fitted.

    Raises:
        UsageError: they are not; the differences are listed.
    """
    fitted = {"batch_size", "accumulate", "image_size", "checkpoint_activations", "stem", "mean", "std"}
    typed = set(config.as_dict()) if named is None else set(named)
    found = {
        key: both
        for key, both in differences(stored, config).items()
        if key not in FREE
        and not (key.split(".")[0] not in typed and key in fitted)
        and not _is_open(key, both[1], config.method)
    }
    if found:
        raise UsageError(
            f"{where} exists already, with {_listed((k, v[0]) for k, v in found.items())} instead of "
            f"{_listed((k, v[1]) for k, v in found.items())}: take another --out, or the settings it has"
        )


def _is_open(key: str, value: Any, method: str) -> bool:
    """Whether a setting reads as one that the run is still to decide."""
    group, dot, name = key.partition(".")
    if dot and group == "options":  # widths that follow the backbone
        follow = {f.name for f in fields(METHODS[method].Config) if "paper" in f.metadata}
        return name in follow and not value
    return key in OPEN and bool(value == OPEN[key])


def differences(before: TrainConfig, now: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """Settings in which two configurations differ, each with both values.

    Example:
        >>> differences(TrainConfig(lr=0.1), TrainConfig(lr=0.2, options={"proj_hidden_dim": 64}))
        {'lr': (0.1, 0.2), 'options.proj_hidden_dim': (0, 64)}
    """
    one, two = _flat(before), _flat(now)
    keys = [key for key in (*one, *(k for k in two if k not in one)) if one.get(key) != two.get(key)]
    return {key: (one.get(key), two.get(key)) for key in keys}


def _flat(config: TrainConfig) -> dict[str, Any]:
    values = config.as_dict()
    options = values.pop("options")
    return values | {f"options.{key}": value for key, value in options.items()}


def _listed(pairs: Iterable[tuple[str, Any]]) -> str:
    words = [f"{key} {value!r}" if isinstance(value, str) else f"{key} {value}" for key, value in pairs]
    more = f" and {len(words) - MOST_NAMED} more" if len(words) > MOST_NAMED else ""
    return ", ".join(words[:MOST_NAMED]) + more
