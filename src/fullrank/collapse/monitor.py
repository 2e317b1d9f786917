"""Monitor: from named embeddings of a training run to panels and verdicts.

It takes tensors only and knows no method: `step` reads the level of a training batch, `observe` and `close`
judge held-out embeddings once an epoch.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from fullrank.coercion import shown
from fullrank.collapse.code_verdict import judge_codes
from fullrank.collapse.diagnostics import Diagnostics, diagnose
from fullrank.collapse.metrics import Spectra
from fullrank.collapse.metrics.codes import CodeUsage, Usage
from fullrank.collapse.metrics.level import level_of_rows
from fullrank.collapse.moments import check_rows, plain_floats
from fullrank.collapse.panel import Panel
from fullrank.collapse.peers import Group, Peers
from fullrank.collapse.sampling import Reservoir
from fullrank.collapse.statistics import EmbeddingStatistics
from fullrank.collapse.taps import with_differing_tap
from fullrank.collapse.thresholds import Thresholds
from fullrank.collapse.trend import warnings
from fullrank.collapse.verdict import Verdict, judge
from fullrank.errors import BadRowsError, UsageError

CODES = "codes"
"""The tap that holds scores over codes: their use is measured, not their spectrum."""

Matrix: TypeAlias = Tensor | np.ndarray
"""Rows [n, d] of a tap; an array of numpy is read where it lies."""

EMBEDDING = "embedding"
"""The tap of a tensor that comes without a name."""


def named(taps: Mapping[str, Matrix] | Matrix) -> Mapping[str, Tensor]:
    """Embeddings by tap; a tensor or array alone is the tap "embedding"."""
    if isinstance(taps, Mapping):
        return {tap: _as_tensor(z) for tap, z in taps.items()}
    taps = _as_tensor(taps)
    if not isinstance(taps, Tensor):
        raise UsageError(f"embeddings are a tensor [n, d], or several by name, not {shown(taps)}")
    return {EMBEDDING: taps}


def _as_tensor(z: Any) -> Any:
    """An array of numbers as a tensor on its memory; all else as it is."""
    return torch.from_numpy(z) if isinstance(z, np.ndarray) and z.dtype.kind in "fiub" else z


@dataclass(frozen=True)
class Report:
    """Report of one pass over held-out data.

    Attributes:
        panels: tap to panel, with its spectra.
        verdicts: tap to verdict.
        verdict: that of the main tap.
        usage: how codes are used, where the method has some.
        warnings: tap and what will cross its threshold within a few panels at the present pace.
        diagnostics: beyond the panel, at every so many of them.
    """

    panels: dict[str, Panel]
    verdicts: dict[str, Verdict]
    verdict: Verdict
    usage: Usage | None = None
    warnings: tuple[str, ...] = ()
    diagnostics: Diagnostics | None = None

    def __str__(self) -> str:
        """The verdict, and the panel of the embedding that it is of."""
        panel = self.panels.get(self.verdict.tap)
        return "\n".join([str(self.verdict), *([str(panel)] if panel else [])])

    @property
    def rank_difference(self) -> float | None:
        """Effective rank of the target less that of the online output.

        The online output is the predictor's, or the projector's where there is no predictor. Positive in runs
        that hold: the target pulls the rank up.
        """
        target = self.panels.get("target")
        online = self.panels.get("predictor", self.panels.get("projector"))
        ranks = [panel.value("erank_centred") if panel else None for panel in (target, online)]
        return None if ranks[0] is None or ranks[1] is None else ranks[0] - ranks[1]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: panels and verdicts by tap, and the main verdict."""
        return {
            "verdict": self.verdict.as_dict(),
            "verdicts": {tap: verdict.as_dict() for tap, verdict in self.verdicts.items()},
            "panels": {tap: panel.as_dict() for tap, panel in self.panels.items()},
            **({"usage": self.usage.as_dict()} if self.usage else {}),
            **({"warnings": list(self.warnings)} if self.warnings else {}),
            **({"diagnostics": self.diagnostics.as_dict()} if self.diagnostics else {}),
            **({"rank_difference": difference} if (difference := self.rank_difference) is not None else {}),
        }


class CollapseMonitor:
    """Monitor of the taps (layer outputs) of a training run.

    Args:
        every: `step` measures on every so many of its calls, the first one included.
        tap: the main tap, whose verdict counts; where it is missing, the last tap given counts.
        thresholds: what verdicts depend on.
        capacity: rows kept per tap (and pairs of views) for uniformity and alignment.
        diagnostics_every: `close` computes `Diagnostics` at every so many panels of a trained network, the
            first one included; 0: never.
        group: of processes, whose collectives `close` uses; None is the default group. A `close` in a thread
            beside training needs one of its own.

    Attributes:
        narrowest: tap to the width of the narrowest layer before it, where the network is known.
        history: tap to the panels of earlier `close` calls on a trained network, without spectra.
        seconds: wall time spent in here. Work queued on a GPU counts where a call waits for it.

    Threads may share it: each `observe` and `close` is whole before the next. `step` waits for neither.

    Example:
        >>> monitor = CollapseMonitor()
        >>> z = torch.randn(400, 16, generator=torch.Generator().manual_seed(0))
        >>> for chunk in z.split(100):
        ...     monitor.observe({"projector": chunk})
        >>> report = monitor.close()
        >>> report.verdict.kind, report.panels["projector"].n
        ('healthy', 400)
    """

    def __init__(
        self,
        every: int = 1,
        tap: str = "projector",
        thresholds: Thresholds | None = None,
        capacity: int = 2048,
        diagnostics_every: int = 10,
        group: Group = None,
    ) -> None:
        if every < 1 or capacity < 2 or diagnostics_every < 0:
            raise UsageError(
                "every must be at least 1, capacity at least 2 and diagnostics_every at least 0, "
                f"not {every}, {capacity} and {diagnostics_every}"
            )
        self.diagnostics_every, self.peers = diagnostics_every, Peers(group)
        self.every, self.tap, self.capacity = every, tap, capacity
        self.narrowest: Mapping[str, int] = {}
        self.thresholds = thresholds or Thresholds()
        self._usage: CodeUsage | None = None
        self.history: dict[str, list[Panel]] = {}
        self.seconds = 0.0
        self._calls = 0
        self._lock, self._counting = threading.RLock(), threading.Lock()
        self._reset()

    @torch.no_grad()
    def step(self, taps: Mapping[str, Matrix] | Matrix) -> dict[str, float]:
        """Level of each tap on this process's part of a training batch.

        Costs n d per tap and one synchronisation with the device.

        Args:
            taps: tap to embeddings [b, d], attached to a graph or not; a tensor alone is "embedding".

        Returns:
            Tap to level; empty between measurements, without taps of fewer than two rows. A tap with a value
            that is not finite reads NaN, for the loop to act on.
        """
        with self._timed():
            with self._counting:
                self._calls += 1
                due = (self._calls - 1) % self.every == 0
            if not due:
                return {}
            levels = {}
            for tap, z in named(taps).items():
                check_rows(z)
                if len(z) > 1 and tap != CODES:
                    levels[tap] = level_of_rows(z.detach().float())
            if not levels:
                return {}
            device = next(iter(levels.values())).device
            values = torch.stack([value.to(device) for value in levels.values()]).tolist()
            return dict(zip(levels, values, strict=True))

    def observe(
        self,
        taps: Mapping[str, Matrix] | Matrix,
        pairs: Mapping[str, tuple[Matrix, Matrix]] | None = None,
    ) -> None:
        """Add one chunk of held-out embeddings.

        Args:
            taps: tap to embeddings [b, d], in evaluation mode; a tensor alone is the tap "embedding".
            pairs: tap to the embeddings [b, d] of two views of the same images, for alignment.

        Raises:
            UsageError: wrong shape or width, or rows that are not finite; the message names the tap.
        """
        with self._lock, self._timed():
            for tap, z in named(taps).items():
                with _naming(tap):
                    check_rows(z)
                    z = plain_floats(z)
                    if tap == CODES:
                        self._usage = self._usage or CodeUsage(z.shape[1], z.device)
                        self._usage.update(z)
                        continue
                    seen = self._seen.get(tap) or self._new_statistics(z.shape[1], z.device)
                    seen.update(z)
                    if len(z):
                        self._seen[tap] = seen
            for tap, views in (pairs or {}).items():
                za, zb = map(_as_tensor, views)
                if tap == CODES:
                    continue
                with _naming(tap):
                    check_rows(za)
                    check_rows(zb, za.shape[1])
                    if len(za) != len(zb):
                        raise UsageError(f"two views have one shape; these have {len(za)} and {len(zb)} rows")
                    if tap not in self._pairs:
                        self._pairs[tap] = self._new_reservoir(2 * za.shape[1])
                    self._pairs[tap].add(torch.cat([plain_floats(za), plain_floats(zb)], dim=1))

    def close(self, trained: bool = True) -> Report:
        """Judge what was observed since the last call, over all processes.

        Every process must call it; all get the same report.

        Args:
            trained: False for a network that has taken no step: it is measured, not judged, and its panel
                does not enter the history, since ranks of random networks are no yardstick.

        Raises:
            UsageError: nothing was observed.
        """
        with self._lock, self._timed(), self._emptied():
            self._agree_on_taps()
            if not self._seen:
                raise UsageError("nothing was observed, so there is nothing to judge")
            for seen in self._seen.values():
                seen.finish()
            spectra = {tap: Spectra(seen.moments) for tap, seen in self._seen.items()}
            panels = {tap: self._panel(tap, spectra[tap]) for tap in self._seen}
            verdicts = with_differing_tap(
                {
                    tap: judge(panel, self.history.get(tap, ()), self.thresholds, trained)
                    for tap, panel in panels.items()
                }
            )
            before = max((len(panels) for panels in self.history.values()), default=0)
            diagnostics = None
            if trained and self.diagnostics_every and before % self.diagnostics_every == 0:
                points = {tap: seen.sample.rows for tap, seen in self._seen.items()}  # of all processes
                diagnostics = diagnose(points, {tap: self._views(tap) for tap in self._pairs}, spectra)
            early: list[str] = []
            if trained:
                for tap, panel in panels.items():
                    if not verdicts[tap].collapsed:
                        found = warnings(panel, self.history.get(tap, ()), self.thresholds)
                        early += [f"{tap}: {warning}" for warning in found]
                    self.history.setdefault(tap, []).append(panel.without_spectra())
            usage = None
            if self._usage:
                self._usage.all_reduce(self.peers)
                usage = self._usage.result()
                verdicts[CODES] = judge_codes(usage, CODES, self.thresholds, trained)
            main = verdicts[self.tap if self.tap in verdicts else list(panels)[-1]]
            if main.kind == "healthy" and usage and verdicts[CODES].collapsed:
                main = verdicts[CODES]
            return Report(panels, verdicts, main, usage, tuple(early), diagnostics)

    def state_dict(self) -> dict[str, Any]:
        """History as plain Python, JSON-able, without rows not yet judged."""
        with self._lock, self._counting:
            history = {tap: [panel.as_dict() for panel in panels] for tap, panels in self.history.items()}
            return {"history": history, "calls": self._calls, "seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace the history by that of a `state_dict`."""
        with self._lock, self._counting:
            self.history = {
                tap: [Panel.from_dict(panel) for panel in panels] for tap, panels in state["history"].items()
            }
            self._calls, self.seconds = state["calls"], state["seconds"]
            self._reset()

    def __getstate__(self) -> dict[str, Any]:
        """All but the locks, which neither pickles nor copies hold."""
        with self._lock, self._counting:
            return {name: value for name, value in vars(self).items() if name not in ("_lock", "_counting")}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state)
        self._lock, self._counting = threading.RLock(), threading.Lock()

    def _panel(self, tap: str, spectra: Spectra) -> Panel:
        pairs = None
        if tap in self._pairs:
            self._pairs[tap].gather(self.peers)
            pairs = self._views(tap)
        return Panel.from_statistics(tap, self._seen[tap], pairs, self.narrowest.get(tap), spectra)

    def _views(self, tap: str) -> tuple[Tensor, Tensor]:
        first, second = self._pairs[tap].rows.chunk(2, dim=1)
        return first, second

    def _agree_on_taps(self) -> None:
        """Give every process all taps in one order, so that collectives match."""
        if self.peers.size == 1:
            return
        codes = self._usage.codes if self._usage else 0
        widths = {tap: statistics.dim for tap, statistics in self._seen.items()}
        pair_widths = {tap: pairs.rows.shape[1] for tap, pairs in self._pairs.items()}
        seen = self.peers.tell((widths, pair_widths, codes))
        statistics, pairs, usage = self._seen, self._pairs, self._usage
        self._reset()
        for widths, pair_widths, codes in seen:
            if codes:
                self._usage = usage or CodeUsage(codes)
            for tap, d in widths.items():
                self._seen[tap] = statistics.get(tap) or self._new_statistics(d, "cpu")
            for tap, d in pair_widths.items():
                self._pairs[tap] = pairs.get(tap) or self._new_reservoir(d)

    def _new_reservoir(self, dim: int) -> Reservoir:
        return Reservoir(dim, self.capacity, stream=self.peers.rank)

    def _new_statistics(self, dim: int, device: torch.device | str) -> EmbeddingStatistics:
        return EmbeddingStatistics(dim, device, self.capacity, self.peers.rank, peers=self.peers)

    def _reset(self) -> None:
        self._seen: dict[str, EmbeddingStatistics] = {}
        self._pairs: dict[str, Reservoir] = {}
        self._usage = None

    @contextmanager
    def _emptied(self) -> Iterator[None]:
        """Forget the rows afterwards, judged or not."""
        try:
            yield
        finally:
            self._reset()

    @contextmanager
    def _timed(self) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            with self._counting:
                self.seconds += time.perf_counter() - start


@contextmanager
def _naming(tap: str) -> Iterator[None]:
    """Name the tap that an error is about."""
    try:
        yield
    except BadRowsError as error:
        raise BadRowsError(f"tap {tap!r}: {error}") from None
    except UsageError as error:
        raise UsageError(f"tap {tap!r}: {error}") from None
