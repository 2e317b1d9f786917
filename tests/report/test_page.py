"""The pages: from every kind of run, complete in one file, and true to the numbers."""

import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from fullrank.errors import UsageError
from fullrank.methods import explain_loss
from fullrank.report.compare.page import headline, write_comparison
from fullrank.report.run.page import write_page
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import Summary, summarise
from fullrank.report.run.terminal import closing_lines
from fullrank.training import record_files


def figures(page: str) -> Any:
    """The series in every figure of a page, whatever is chosen."""
    cards = re.findall(r'<figure class="card">(.*?)</figure>', page, re.S)
    texts = [re.findall(r'<script type="application/json">(.*?)</script>', card, re.S) for card in cards]
    return [[series for text in found for series in json.loads(text)["series"]] for found in texts]


def without_scripts(page: str) -> Any:
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.S)


@pytest.mark.parametrize(
    ("kind", "words"),
    [("healthy", "Healthy"), ("complete", "Complete collapse"), ("dimensional", "Dimensional collapse")],
)
def test_every_kind_of_run(fake_run: Any, kind: str, words: Any) -> None:
    path = write_page(fake_run(kind, epochs=4))
    assert path.name == "report.html" and not list(path.parent.glob(".*.tmp"))
    page = path.read_text()
    text = without_scripts(page)
    assert len(figures(page)) == 7
    assert f"</span> {words}" in text
    assert "at the projector" in text
    assert "centred effective rank" in text and "untrained → last" in text
    assert ("</span> below its threshold" in text) == (kind != "healthy") and "shown, not judged" in text
    assert 'src="data:image/png;base64,' in text
    assert ("what is left around it, which may be noise, and may look full" in text) == (kind == "complete")


@pytest.mark.parametrize(("init", "start"), [("", "untrained"), ("timm:resnet18", "as loaded")])
def test_the_first_epoch_is_untrained_or_as_its_weights_were_loaded(
    fake_run: Any, init: str, start: str
) -> None:
    path = fake_run(epochs=2)
    with (path / "config.yaml").open("a") as file:
        file.write(f"init: '{init}'\n")
    page = html.unescape(without_scripts(write_page(path).read_text()))
    assert f"{start} → last" in page and f"dotted is the network {start}" in page
    assert ("untrained →" in page) == (not init)
    lines = closing_lines(summarise(read_run(path)), {"init": init})
    assert any(f"; {start} " in line for line in lines)


def test_nothing_is_fetched(fake_run: Any) -> None:
    text = without_scripts(write_page(fake_run(epochs=2)).read_text())
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:)""", text)
    assert "@import" not in text and "url(" not in text


@pytest.mark.parametrize(
    ("settings", "drawn", "words"),
    [
        ({"epochs": 3, "labels": False, "spectra": False, "picture": False}, 4, "no labels"),
        ({"epochs": 3, "ended": False}, 7, "No closing record"),
        ({"epochs": 0, "ended": False}, 6, "Not decidable"),  # there is no loss yet
    ],
)
def test_a_run_of_which_parts_are_missing(fake_run: Any, settings: Any, drawn: int, words: str) -> None:
    page = write_page(fake_run(**settings)).read_text()
    text = without_scripts(page)
    assert len(figures(page)) == drawn and words in text
    assert ("What the network saw" in text) == settings.get("picture", True)


def test_nothing_but_a_config(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("method: simsiam\n")
    assert "Nothing has been judged yet" in write_page(tmp_path).read_text()


def test_values_that_are_undefined(tmp_path: Path) -> None:
    names = ("level", "erank_centred", "uniformity", "alignment")
    measures = {name: {"value": None, "null": None} for name in names}
    evidence = [{"metric": "level", **dict.fromkeys(("value", "null", "threshold", "trend", "says"))}]
    verdict = {"kind": "not decidable", "tap": "projector", "why": "n is too small.", "evidence": evidence}
    row = {"event": "epoch", "epoch": 0, "step": 0, "loss": None, "verdict": verdict, "knn": None}
    row["panels"] = {"projector": {"n": 3, "d": 128, "measures": measures}}
    (tmp_path / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    assert "n is too small." in write_page(tmp_path).read_text()


def test_what_others_wrote_stays_text(fake_run: Any) -> None:
    path = fake_run(epochs=1)
    (path / "config.yaml").write_text("method: '<script>alert(1)</script>'\n")
    rows = path / "metrics.jsonl"
    rows.write_text(rows.read_text().replace("p1z2", "</script><b>"))
    page = write_page(path).read_text()
    assert "<script>alert" not in page and "</script><b>" not in page


def test_a_comparison(fake_run: Any, tmp_path: Path) -> None:
    runs = [fake_run(kind, epochs=4) for kind in ("healthy", "dimensional", "complete")]
    write_page(runs[0])
    out = tmp_path / "pages" / "demo.html"
    baselines = {"raw pixels": 0.42}
    path = write_comparison(runs, out, "Three runs", "An intro.", names=["a", "b", "c"], baselines=baselines)
    assert path == out
    page = out.read_text()
    text = without_scripts(page)
    assert "A collapsed run has the best loss" in text and "“c” reaches" in text
    assert 'href="../healthy/report.html"' in text and "dimensional/report.html" not in text
    assert "42.0 %" in text and "options.stop_gradient" in text
    assert len(figures(page)) == 4 + 3 + 1


def test_a_comparison_needs_runs_with_names_of_their_own(fake_run: Any, tmp_path: Path) -> None:
    run = fake_run(epochs=1)
    with pytest.raises(UsageError):
        write_comparison([], tmp_path / "a.html", "none")
    with pytest.raises(UsageError):
        write_comparison([run, run], tmp_path / "a.html", "twice the same")


def arm(name: Any, loss: Any, kind: Any) -> Any:
    summary = Summary(name)
    summary.losses = [] if loss is None else [loss]
    summary.verdict = {"kind": kind}
    return summary


@pytest.mark.parametrize(
    ("arms", "title"),
    [
        ([arm("a", -0.9, "healthy"), arm("b", -1.0, "complete")], "The collapsed run has the best loss"),
        ([arm("a", -1.0, "healthy"), arm("b", -0.9, "complete")], "1 of 2 arms collapsed"),
        ([arm("a", -1.0, "healthy"), arm("b", -0.9, "not decidable")], "No arm collapsed"),
        ([arm("a", None, "not decidable")], "No arm has a loss yet"),
    ],
)
def test_the_headline_says_what_the_numbers_say(arms: Any, title: str) -> None:
    assert headline(arms)[0] == title


def test_a_loss_that_sits_at_a_fixed_point_for_its_last_epochs_is_explained(fake_run: Any) -> None:
    """In the words of `fullrank explain loss`."""
    pages = []
    for kind in ("complete", "healthy"):
        run: Path = fake_run(kind, epochs=12)
        (run / "config.yaml").write_text("method: simsiam\nbatch_size: 128\n")
        pages.append(html.unescape(write_page(run).read_text()))
    assert f"The last 3 epochs: {explain_loss(-1.0, 'simsiam').lines[0]}" in pages[0]
    assert "The last 3 epochs" not in pages[1]


def test_the_page_says_that_very_many_steps_are_thinned(
    fake_run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record_files, "MOST_STEPS", 30)
    notes: list[str] = []
    text = write_page(fake_run(epochs=20), notes.append).read_text()
    said = "Of 124 step records in metrics.jsonl one in 8 is read, evenly, and the last."
    assert said in text and said in notes
    assert "One in 8 of the logged steps, not smoothed." in text
