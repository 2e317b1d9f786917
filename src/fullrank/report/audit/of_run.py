"""The last verdict of a run itself, beside an audit of its encoder.

A run is judged where its loss acts, at the projector or the codes, and an audit at the features: a collapse
of the one leaves the other as it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fullrank.collapse.verdict import Verdict, as_verdict
from fullrank.encoders.hooks import FEATURES
from fullrank.encoders.runs import encoder_header, own_run
from fullrank.figures.style import VerdictStyle, style_of
from fullrank.report.run.reading import read_run
from fullrank.report.verdicts import as_sentence, in_short


@dataclass(frozen=True)
class RunVerdict:
    """What a run was judged last.

    Attributes:
        verdict: of its last epoch that was judged.
        epoch: which one that is.
        encoder_epoch: whose encoder is audited: that of the last epoch, or a last healthy one.
    """

    verdict: Verdict
    epoch: int
    encoder_epoch: int

    @property
    def style(self) -> VerdictStyle:
        """Colour, glyph and title of the verdict."""
        return style_of(self.verdict.kind)

    @property
    def head(self) -> str:
        """Tap, kind and epoch.

        Example:
            >>> RunVerdict(Verdict("complete", "projector", "level is 0"), 7, 7).head
            "the run's projector: complete (epoch 7)"
        """
        return f"the run's {self.verdict.tap}: {in_short(self.verdict)} (epoch {self.epoch})"

    def says(self, taps: tuple[str, ...] = ()) -> str:
        """Why, the epoch of the audited encoder, and how to see the evidence.

        Example:
            >>> print(RunVerdict(Verdict("complete", "projector", "level is 0"), 7, 5).says())
            Level is 0. The encoder is that of epoch 5. Its evidence here: --taps projector.
        """
        tap = self.verdict.tap
        parts = [as_sentence(self.verdict.why)] if self.verdict.why else []
        if self.encoder_epoch != self.epoch:
            parts.append(f"The encoder is that of epoch {self.encoder_epoch}.")
        seen = {*taps, *(["backbone"] if FEATURES in taps else [])}  # which a run calls its features
        if tap and tap not in seen:
            parts.append(f"Its evidence here: --taps {tap}.")
        return " ".join(parts)

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: kind, tap, epoch, why and probability."""
        judged = self.verdict
        return {
            "verdict": judged.kind,
            "tap": judged.tap,
            "epoch": self.epoch,
            "encoder_epoch": self.encoder_epoch,
            "why": judged.why,
            "probability": judged.probability,
        }


def verdict_of_run(what: str | Path) -> RunVerdict | None:
    """The last verdict of the run that an encoder is of; None without one.

    It is that of the log; a folder with an encoder and without a log has it in the encoder's header.
    """
    run = own_run(what)
    if run is None:
        return None
    header = encoder_header(run)
    of_encoder = int(header.get("epoch") or 0)
    judged = [record for record in read_run(run.path).epochs if _is_decided(record.verdict)]
    if judged:
        return RunVerdict(as_verdict(judged[-1].verdict), judged[-1].epoch, of_encoder)
    verdict = header.get("verdict")
    return RunVerdict(as_verdict(verdict or {}), of_encoder, of_encoder) if _is_decided(verdict) else None


def _is_decided(verdict: Any) -> bool:
    return isinstance(verdict, dict) and verdict.get("kind") not in (None, "", "not decidable")
