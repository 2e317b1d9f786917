"""When held-out images are evaluated: every so many epochs, or as time allows.

By default an evaluation (panel and k-NN) comes after every epoch of a run that takes no longer than 20
seconds, and else so seldom that all of them together take at most 5 % of the time, spread evenly over what is
left. What training does to the weights does not depend on it. Each choice is made before an evaluation, from
what has been measured until then, stands in its record as `next_watch`, and in the checkpoint: a run that is
resumed keeps it.
"""

from __future__ import annotations

import math

from fullrank.training.checkpoint import TrainState
from fullrank.training.config import TrainConfig

SHARE = 0.05  # of a run's time, that evaluations may take
SHORT = 20.0  # seconds; runs up to there are evaluated after every epoch


def is_adaptive(config: TrainConfig) -> bool:
    """Whether time decides: not where epochs were named, or panels are acted on."""
    return not config.watch_every and config.on_collapse == "warn" and not config.early_stop


def is_due(config: TrainConfig, state: TrainState) -> bool:
    """Whether the epoch that has just ended is evaluated.

    Example:
        >>> config = TrainConfig(epochs=10, watch_every=3)
        >>> [epoch for epoch in range(1, 11) if is_due(config, TrainState(epoch=epoch))]
        [3, 6, 9, 10]
    """
    epoch = state.epoch
    if epoch == config.epochs:
        return True
    if not is_adaptive(config):
        return epoch % (config.watch_every or 1) == 0
    kept = config.keep_every > 0 and epoch % config.keep_every == 0  # an encoder is kept with its verdict
    return epoch >= state.next_watch or kept


def knn_is_due(config: TrainConfig, state: TrainState) -> bool:
    """Whether the evaluation after this epoch has a k-NN: no oftener than `knn_every`.

    Example:
        >>> state, config = TrainState(epoch=7, knn_epoch=3), TrainConfig(knn_every=5)
        >>> knn_is_due(config, state), knn_is_due(TrainConfig(knn_every=5, watch_every=1), state)
        (True, False)
    """
    epoch, every = state.epoch, config.knn_every
    if not every or epoch in (0, config.epochs):
        return bool(every)
    if not is_adaptive(config):
        return epoch % every == 0
    return epoch // every > state.knn_epoch // every


def next_watch(config: TrainConfig, state: TrainState, elapsed: float) -> int:
    """The next epoch to evaluate after that of `state`, by the time spent so far.

    One whose encoder is kept is evaluated in any case.

    Example:
        >>> state = TrainState(epoch=1, evaluations=1, seconds={"watching": 2.0, "knn": 1.0})
        >>> [next_watch(TrainConfig(epochs=100), state, elapsed) for elapsed in (3.1, 13.0, 63.0)]
        [100, 9, 3]
        >>> next_watch(TrainConfig(epochs=100, keep_every=4), state, 3.1)
        4
    """
    found, every = _affordable(config, state, elapsed), config.keep_every
    return min(found, (state.epoch // every + 1) * every) if every else found


def _affordable(config: TrainConfig, state: TrainState, elapsed: float) -> int:
    """The same, whatever is kept."""
    epoch, left = state.epoch, config.epochs - state.epoch
    spent = state.seconds["watching"] + state.seconds["knn"]
    if not epoch or not state.evaluations:
        return epoch + 1
    total = spent + (elapsed - spent) / epoch * config.epochs
    if total + (left + 1) * spent / state.evaluations <= SHORT:  # with that of this epoch
        return epoch + 1
    each = max(spent / state.evaluations, 1e-9)
    affordable = math.floor((SHARE * total - spent) / each) - 1  # one is that of this epoch
    return epoch + max(1, math.ceil(left / max(affordable, 1)))
