"""Subjects of a comparison: runs, encoders, saved embeddings and audits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from fullrank.collapse.audit import Audit
from fullrank.collapse.audit import audit as audit_rows
from fullrank.collapse.verdict import Verdict, as_verdict
from fullrank.encoders.initial import open_initial_weights
from fullrank.encoders.opening import open_encoder
from fullrank.encoders.runs import encoder_step, open_with_taps, own_run
from fullrank.errors import DataError
from fullrank.evaluation.result import result_folder
from fullrank.features.embeddings import EMBEDDING_SUFFIXES
from fullrank.features.folders import identity
from fullrank.features.store import main_tap
from fullrank.features.subject import Kind as PathKind
from fullrank.features.subject import StoredSubject, check_untrained, kind_of
from fullrank.features.subject import open_subject as open_features
from fullrank.figures.style import VerdictStyle, count, style_of
from fullrank.report.audit.subjects import AuditOptions, audit_subject
from fullrank.report.ceiling import Ceiling, ceiling_of
from fullrank.report.run.reading import Record, Run, read_run
from fullrank.report.run.summary import Summary, summarise
from fullrank.report.verdicts import as_sentence, remarks
from fullrank.training.record_fields import fields_fit, is_count, is_number
from fullrank.untrusted.parsing import read_json, refusing
from fullrank.untrusted.paths import did_you_mean, expand_user

if TYPE_CHECKING:
    import numpy as np

    from fullrank.encoders.encoder import Encoder

Kind: TypeAlias = Literal["run", "encoder", "embeddings", "audit"]

SHOWN = ("level", "erank_centred", "rankme_unit", "alignment", "uniformity")


@dataclass(frozen=True)
class TapSummary:
    """Measures and verdict of one embedding of a subject.

    Attributes:
        verdict: without its evidence.
        values: measures by name: level, erank_centred, rankme_unit, alignment, uniformity.
        baselines: what isotropic noise of the same n and d reads; of the centred rank with as many
            directions as are possible.
        spectrum: centred singular values, descending; None where they are not on record.
        images: which images the rows are of, for people.
    """

    tap: str
    n: int | None
    d: int | None
    verdict: Verdict
    values: Mapping[str, float | None] = field(default_factory=dict)
    baselines: Mapping[str, float | None] = field(default_factory=dict)
    spectrum: np.ndarray | None = field(default=None, compare=False)
    images: str = ""
    possible: int | None = None

    @property
    def kind(self) -> str:
        """What the verdict says."""
        return self.verdict.kind

    @property
    def why(self) -> str:
        """The reason of the verdict and the blemishes of the rows, in sentences."""
        return " ".join([as_sentence(self.verdict.why), *(odd.says for odd in remarks(self.verdict))]).strip()

    @property
    def style(self) -> VerdictStyle:
        """Colour, glyph and title of the verdict."""
        return style_of(self.kind)

    @classmethod
    def of_audit(cls, of: Audit, images: str) -> TapSummary:
        """Summary of an audit."""
        measures = {} if of.panel is None else of.panel.measures
        spectrum = None if of.panel is None else of.panel.spectra["centred"]
        values = {name: measures[name].value for name in SHOWN if name in measures}
        ceiling = ceiling_of({} if of.panel is None else of.panel.as_dict())
        baselines = _baselines({name: measures[name].null for name in values}, ceiling)
        return cls(
            of.tap, of.n, of.d, of.verdict, values, baselines, spectrum, images, ceiling.possible or of.d
        )


def _baselines(found: dict[str, float | None], ceiling: Ceiling) -> dict[str, float | None]:
    """Baselines, that of the centred rank with as many directions as are possible."""
    return {**found, "erank_centred": ceiling.baseline} if "erank_centred" in found else found


@dataclass(frozen=True)
class Subject:
    """One subject of a comparison.

    Attributes:
        word, what: as it was named, and a few words about it.
        judged: the embedding that its verdict is about.
        others: further embeddings by tap.
        run, model: where it is one, and its encoder where that can be opened.
        evaluations: what `fullrank evaluate` left beside it, by the names of its files.
        values: numbers of the training, and results of probes as `linear_top1`, by name.
        notes: one line each: what a reader should know.
        untrained: whether it is the network before its first step, of a run without its records.
    """

    word: str
    kind: Kind
    what: str
    judged: TapSummary | None
    others: Mapping[str, TapSummary] = field(default_factory=dict)
    run: Run | None = None
    model: Encoder | None = None
    evaluations: Mapping[str, Record] = field(default_factory=dict)
    values: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    untrained: bool = False

    @property
    def method(self) -> str:
        """The method of a run; a few words about anything else."""
        return str(self.run.config.get("method") or "–") if self.run else self.what

    @property
    def seed(self) -> int | None:
        """Of a run."""
        seed = self.run.config.get("seed") if self.run else None
        return seed if isinstance(seed, int) else None

    @property
    def short(self) -> str:
        """The last part of a path, else the word."""
        path = expand_user(self.word)
        return path.resolve().name if path.exists() else self.word

    def summary(self, tap: str) -> TapSummary | None:
        """Summary of one tap."""
        return self.judged if self.judged is not None and self.judged.tap == tap else self.others.get(tap)

    def measured(self, summary: TapSummary, values: Mapping[str, float | None]) -> Subject:
        """The subject with a measured embedding, judged by it where there is no verdict."""
        values = {**self.values, **values}
        if self.judged is None:
            return replace(self, judged=summary, values=values)
        return replace(self, others={**self.others, summary.tap: summary}, values=values)


def open_subject(
    word: str, *, download: bool = False, measure: bool = True, untrained: bool = False
) -> Subject:
    """Open one subject of a comparison.

    Args:
        word: a run directory; an encoder as `open_encoder` takes it; embeddings as `open_embeddings` takes
            them, or a folder of `fullrank embed`; a folder with audit.json, or that file.
        download: fetch weights that are not in the libraries' caches.
        measure: also open the encoders of runs, so that they can be measured.
        untrained: encoders by name with random weights; of a run the network that it began with.

    Raises:
        UsageError: untrained, and what is named brings its weights along.
    """
    if untrained:
        return _untrained(word, download)
    path = expand_user(word)
    if (path / "metrics.jsonl").is_file() or (path / "config.yaml").is_file():
        subject = run_subject(path, word)
        if not measure:
            return subject
        if (path / "encoder.safetensors").is_file():
            return replace(subject, model=open_encoder(path))
        note = f"{subject.short} has no encoder.safetensors yet: its features are not measured"
        return replace(subject, notes=(*subject.notes, note))
    if (path / "audit.json").is_file() or path.name == "audit.json":
        return _audited(word, path if path.name == "audit.json" else path / "audit.json")
    if path.exists() and (kind := kind_of(path)) != "encoder":
        return _embeddings(word, path, kind)
    if not path.exists() and path.suffix in EMBEDDING_SUFFIXES:
        raise DataError(f"{word} does not exist{did_you_mean(path)}")
    model = open_encoder(word, download=download)
    notes = [f"{word}: {note}" for note in model.notes]
    return _evaluated(Subject(word, "encoder", model.name, None, model=model, notes=tuple(notes)))


def _untrained(word: str, download: bool) -> Subject:
    """A network before its first step, without the records of its run's later ones."""
    check_untrained(word)
    own = own_run(word)
    if own is None:
        model = open_encoder(word, pretrained=False, download=download)
        notes = tuple(f"{word}: {note}" for note in model.notes)
        return Subject(
            word, "encoder", f"untrained {model.name}", None, model=model, notes=notes, untrained=True
        )
    run, model = read_run(own.path), open_with_taps(own.path, None, open_initial_weights, download=download)
    run = replace(run, steps=[], epochs=[], end=None, damaged=0)
    notes = tuple(f"{run.name}: {note}" for note in (*run.notes, *model.notes))
    return Subject(word, "run", model.name, None, run=run, model=model, notes=notes, untrained=True)


def _evaluated(subject: Subject) -> Subject:
    """The same with what `fullrank evaluate` left of it."""
    word, evaluations = subject.word, dict[str, Record]()
    now, notes = encoder_step(word) if _has_encoder(word) else {}, list(subject.notes)
    beside = expand_user(word).is_dir()  # else a folder that subjects of like names share
    for file in sorted(result_folder(word).glob("*.json")):
        with refusing(f"{file} is damaged (`fullrank evaluate` writes it anew)"):
            said = read_json(file)
            ours = beside or identity(word) in (said.get("what"), said.get("subject"))
            if "probe" not in said or not ours:
                continue
            if earlier := _of_another(said, now):
                notes.append(f"{subject.short}: {file.stem} is left out: {earlier}")
            else:
                evaluations[file.stem] = {**said, "results": dict(said["results"])}
    probed = {
        f"{probe}_{name}": float(value)
        for probe, result in evaluations.items()
        for name, value in result["results"].items()
        if isinstance(value, int | float)
    }
    values = {**subject.values, **probed}
    return replace(subject, evaluations=evaluations, values=values, notes=tuple(notes))


def _has_encoder(word: str) -> bool:
    run = own_run(word)
    return run is not None and (run.path / "encoder.safetensors").is_file()


def _of_another(said: Record, now: Mapping[str, int]) -> str:
    """Why an evaluation is not of a run's encoder; empty where it may be."""
    then = said.get("encoder")
    if said.get("untrained") or not now or not isinstance(then, dict) or not then or then == now:
        return ""
    of, has = (f"epoch {each.get('epoch')}, step {each.get('step')}" for each in (then, now))
    return f"it is of the encoder of {of}, and the run's is of {has}; `fullrank evaluate` does it anew"


def run_subject(path: Path, word: str | None = None) -> Subject:
    """Read a run from its log; its encoder is not opened."""
    run, word = read_run(path), word or str(path)
    summary = summarise(run)
    summaries = {tap: _logged(run, summary, tap) for tap in summary.panels}
    judged = summaries.pop(summary.tap, None) or _logged(run, summary, summary.tap)
    time = summary.end.time if summary.end else {}
    values = {
        "loss": summary.loss,
        "knn_logged": summary.knn,
        "knn_untrained": summary.knn_untrained,
        "linear_online": summary.linear,
        "epochs": float(summary.epoch),
        "images_per_second": summary.images_per_second,
        "seconds": time.get("total", summary.elapsed),
        "share_watching": summary.share_watching,
    }
    wanted = run.config.get("epochs")
    notes = []
    if isinstance(wanted, int) and summary.epoch < wanted:
        notes.append(f"{run.name} stands at epoch {summary.epoch} of {wanted}")
    if run.damaged:
        notes.append(f"{run.name}: {run.damaged} damaged lines of metrics.jsonl are left out")
    notes += [f"{run.name}: {note}" for note in run.notes]
    what = " ".join(str(run.config.get(key) or "") for key in ("method", "backbone")).strip() or "a run"
    return _evaluated(Subject(word, "run", what, judged, summaries, run, values=values, notes=tuple(notes)))


def _logged(run: Run, summary: Summary, tap: str) -> TapSummary:
    panel = summary.panels.get(tap) or {}
    measures = {name: value for name, value in (panel.get("measures") or {}).items() if name in SHOWN}
    verdict = summary.verdict
    if tap != summary.tap:
        rows = [row for row in run.epochs if tap in row.verdicts]
        verdict = rows[-1].verdicts[tap] if rows else {}
    values = {name: measure.get("value") for name, measure in measures.items()}
    if "level" not in values and tap in summary.levels:
        values["level"] = summary.levels[tap]
    spectra, ceiling = run.spectra(tap, "centred"), ceiling_of(panel)
    return TapSummary(
        tap,
        panel.get("n"),
        panel.get("d"),
        as_verdict(verdict),
        values,
        _baselines({name: measure.get("null") for name, measure in measures.items()}, ceiling),
        spectra[max(spectra)] if spectra else None,
        f"held-out {run.config.get('data') or 'images'}",
        ceiling.possible,
    )


def _audited(word: str, file: Path) -> Subject:
    with refusing(f"{file} is damaged, or not what `fullrank audit` writes"):
        whole = read_json(file)
        if not fields_fit({"verdict": {**whole, "kind": None, "why": None}}):
            raise ValueError("its verdict is none")
        if not (is_count(whole["n"]) and is_count(whole["d"])):
            raise ValueError("its n and d are no numbers of rows and columns")
        metrics = {name: whole["metrics"][name] for name in SHOWN if name in whole["metrics"]}
        summary = TapSummary(
            str(whole["tap"]),
            int(whole["n"]),
            int(whole["d"]),
            as_verdict({**whole, "kind": str(whole["verdict"]), "why": str(whole["why"])}),
            {name: _number(metric["value"]) for name, metric in metrics.items()},
            {name: _number(metric["null"]) for name, metric in metrics.items()},
            images=str(whole.get("origin") or "rows of its own"),
            possible=int(whole["d"]),
        )
    return Subject(word, "audit", f"audit of {count(summary.n)} x {count(summary.d)}", summary)


def _number(value: Any) -> float | None:
    if not is_number(value):
        raise ValueError(f"{value!r} is no number")
    return None if value is None else float(value)


def _embeddings(word: str, path: Path, kind: PathKind) -> Subject:
    options = AuditOptions(metrics="level")
    subject = open_features(path, options, kind=kind)
    if isinstance(subject, StoredSubject):
        split, stored = subject.split()
        tap = main_tap(stored.rows)
        audit: Audit = audit_rows(stored.rows[tap], tap=tap, metrics=("level",))
        origin = f"{split} of {stored.provenance['data']}"
    else:
        (audit,) = audit_subject(subject, options).values()
        origin = "rows of its own"
    what = f"embeddings {count(audit.n)} x {count(audit.d)}"
    notes = tuple(note if note.startswith(word) else f"{word}: {note}" for note in audit.notes)
    return _evaluated(Subject(word, "embeddings", what, TapSummary.of_audit(audit, origin), notes=notes))
