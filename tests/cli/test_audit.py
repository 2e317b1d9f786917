"""`fullrank audit` from the command line: what it names, prints, writes and refuses, and its exit codes."""

from __future__ import annotations

import html
import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fullrank
from cli.helpers import Called, answered, call, refused

N, D = 600, 32
QUICK = ("--metrics", "level,erank_centred,rankme_unit,uniformity")
KINDS = ("complete", "dimensional", "cluster", "intra-cluster", "healthy", "not decidable")


def rows(kind: str, n: int = N, d: int = D) -> np.ndarray:
    """Rows that are of a kind by construction."""
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((n, d))
    makers: dict[str, Callable[[], np.ndarray]] = {
        "complete": lambda: 5 + 0.02 * noise,
        "dimensional": lambda: noise[:, :2] @ rng.standard_normal((2, d)) + 0.001 * noise,
        "cluster": lambda: rng.standard_normal((12, d))[rng.integers(0, 12, n)] + 0.01 * noise,
        "intra-cluster": lambda: rng.standard_normal((60, d))[rng.integers(0, 60, n)] + 0.02 * noise,
        "healthy": lambda: noise * np.arange(1, d + 1) ** -0.5,
        "not decidable": lambda: noise[:20],
    }
    return np.asarray(makers[kind](), np.float32)


def saved(name: str, values: Any) -> str:
    np.save(name, values)
    return name


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_rows_is_named(kind: str) -> None:
    found = answered("audit", saved("rows.npy", rows(kind)), "--no-page")
    assert found["verdict"] == kind
    assert (found["severity"] > 0) == (kind not in ("healthy", "not decidable"))
    assert (found["n"], found["d"]) == rows(kind).shape


@pytest.mark.parametrize(
    ("spread", "used", "kind"), [(8, 50, "healthy"), (8, 1, "cluster"), (0, 50, "uniform-assignment")]
)
def test_every_kind_of_codes_is_named(spread: int, used: int, kind: str) -> None:
    rng = np.random.default_rng(0)
    scores = spread * np.eye(64)[rng.integers(0, used, N)] + 0.01 * rng.standard_normal((N, 64))
    found = answered("audit", saved("scores.npy", scores), "--codes", "--no-page")
    assert (found["verdict"], found["tap"]) == (kind, "codes")


def test_the_object_has_what_it_promises() -> None:
    found = answered("audit", saved("rows.npy", rows("dimensional")), "--no-page", "--out", "here")
    assert {"verdict", "severity", "why", "tap", "n", "d", "evidence", "metrics", "advice", "notes"} <= set(
        found
    )
    assert {"metric", "value", "null", "threshold", "says"} <= set(found["evidence"][0])
    assert set(found["metrics"]["erank_centred"]) == {"value", "null", "power_law", "low", "high", "n"}
    keys = {"name", "mechanism", "paper", "try_first", "standing", "proof"}
    assert all(set(advice) == keys for advice in found["advice"])
    written = json.loads(Path("here/audit.json").read_text())
    assert written.items() <= found.items()


def test_what_it_prints_and_writes() -> None:
    called = call("audit", saved("rows.npy", rows("dimensional")), *QUICK)
    assert called.code == 0 and called.err == ""
    advice = "(arXiv 2103.03230; proven)"
    for words in ("Dimensional collapse", "severity", "95 % interval", "Isotropic", advice):
        assert words in called.out
    assert "\x1b" not in called.out
    out = Path("audits/rows")
    assert called.out.endswith(f"page    {out / 'audit.html'}\n")
    assert {path.name for path in out.iterdir()} == {"audit.html", "audit.json"}


def test_figures_for_a_paper_are_drawn_where_they_are_asked_for() -> None:
    words = (saved("rows.npy", rows("healthy")), "--out", "here", *QUICK)
    assert call("audit", *words, "--figures").code == 0
    figures = {path.name for path in Path("here/figures").iterdir()}
    assert {f"spectrum.{kind}" for kind in ("svg", "pdf", "png")} <= figures
    assert call("audit", *words, "--no-page").code == 0
    assert not list(Path("here/figures").iterdir()), "those of an earlier audit are not of this one"


def test_files_of_one_name_do_not_overwrite_each_other() -> None:
    for folder in ("a", "b"):
        Path(folder).mkdir()
        saved(f"{folder}/rows.npy", rows("healthy"))
    outs = [answered("audit", f"{folder}/rows.npy", "--no-page", *QUICK)["out"] for folder in "abab"]
    assert outs[:2] == outs[2:] == ["audits/rows", "audits/b-rows"]
    assert "holds the audit of" in refused("audit", "b/rows.npy", "--no-page", "--out", "audits/rows", *QUICK)


@pytest.mark.parametrize(
    ("fail_on", "code"),
    [("dimensional,complete", 3), ("collapsed", 3), ("complete", 0), ("healthy, not decidable", 0)],
)
def test_exit_code_3_is_for_the_kinds_that_are_named(fail_on: str, code: int) -> None:
    file = saved("rows.npy", rows("dimensional"))
    assert call("audit", file, "--fail-on", fail_on, "--no-page", *QUICK).code == code


def test_thresholds_of_a_file_and_of_the_command_line() -> None:
    words = (saved("rows.npy", rows("healthy")), "--no-page", *QUICK)
    Path("strict.yaml").write_text("level: 3\n")
    assert answered("audit", *words, "--thresholds", "strict.yaml")["verdict"] == "complete"
    own = ("--thresholds", "strict.yaml", "--threshold.level", "0.05")
    assert answered("audit", *words, *own)["verdict"] == "healthy"


def test_labels_bring_the_metrics_of_classes() -> None:
    file = saved("rows.npy", rows("cluster"))
    Path("y.csv").write_text("image,label\n" + "\n".join(f"{k},{k % 5}" for k in range(N)))
    assert "nc1_variability" not in answered("audit", file, "--no-page")["metrics"]
    assert "nc1_variability" in answered("audit", file, "--labels", "y.csv", "--no-page")["metrics"]
    Path("y.csv").write_text("image,label\n" + "\n".join(f"{k},{k % 5 if k else ''}" for k in range(N)))
    found = answered("audit", file, "--labels", "y.csv", "--no-page")
    assert "nc1_variability" not in found["metrics"] and "1 of 600 rows have no label" in found["notes"][0]


def test_against_another_file() -> None:
    one, two = saved("one.npy", rows("healthy")), saved("two.npy", rows("dimensional", d=48))
    found = answered("audit", one, "--against", two, "--no-page", *QUICK)
    assert found["verdict"] == "healthy"
    assert (found["against"]["verdict"], found["against"]["name"]) == ("dimensional", "two.npy")
    rank = next(row for row in found["against"]["differences"] if row["name"] == "erank_centred")
    assert rank["clear"] == "yes"
    assert "Against two.npy" in call("audit", one, "--against", two, "--no-page", *QUICK).out


ENCODER = ("timm:resnet10t", "--untrained", "--image-size", "32", "--data", "shapes", "--limit", "80")


@pytest.mark.slow
def test_a_profile_over_depth() -> None:
    found = answered("audit", *ENCODER, "--layers", "all", "--figures", *QUICK)
    assert list(found["taps"]) == ["act1", "layer1", "layer2", "layer3", "layer4", "features"]
    assert (found["tap"], found["n"], found["d"]) == ("features", 80, 512)
    assert [tap["d"] for tap in found["taps"].values()] == [64, 64, 128, 256, 512, 512]
    assert "no step taken yet" in found["why"] and found["advice"] == []
    page = Path(found["page"]).read_text()
    assert "How does it change over the depth?" in page and 'data-value="layer2"' in page
    assert Path(found["out"], "figures", "depth.pdf").is_file()


def test_taps_by_name_against_the_untrained_network() -> None:
    words = ("--taps", "layer3,layer4", "--against", "untrained", "--no-page", *QUICK)
    found = answered("audit", *ENCODER, *words)
    assert list(found["taps"]) == ["layer3", "layer4"] and found["tap"] == "layer4"
    assert found["against"]["tap"] == "layer4"


def test_a_run_brings_its_own_data(trained: tuple[Path, Called]) -> None:
    found = answered("audit", str(trained[0]), "--no-page", "--out", "here", *QUICK)
    assert found["tap"] == "features" and "shapes" in found["origin"]


def judged_last(trained: Path, kind: str, tap: str) -> str:
    """A copy of a run whose last epoch was judged so, at that tap."""
    run = Path("judged")
    shutil.copytree(trained, run)
    *lines, end = (run / "metrics.jsonl").read_text().splitlines()
    last = {**json.loads(lines[-1]), "verdict": {"kind": kind, "tap": tap, "why": "so it is"}}
    (run / "metrics.jsonl").write_text("\n".join([*lines[:-1], json.dumps(last), end]) + "\n")
    return str(run)


@pytest.mark.parametrize("tap", ["projector", "codes", "backbone"])
@pytest.mark.parametrize("kind", ["complete", "dimensional", "healthy"])
def test_a_collapse_of_the_run_itself_stands_beside_the_features_and_counts(
    trained: tuple[Path, Called], kind: str, tap: str
) -> None:
    run = judged_last(trained[0], kind, tap)
    failing = ("--fail-on", "complete,dimensional", "--taps", "features")
    called = call("audit", run, *failing, "--out", "here", *QUICK)
    assert called.code == (0 if kind == "healthy" else 3)
    assert f"the run's {tap}: {kind} (epoch " in called.out
    assert f"the run's {tap}: {kind} (epoch " in html.unescape(Path("here/audit.html").read_text())
    assert ("--taps" in called.out) == (tap != "backbone")
    written = json.loads(Path("here/audit.json").read_text())["of_run"]
    assert (written["verdict"], written["tap"]) == (kind, tap)


def test_what_a_run_began_with_has_no_verdict_of_its_run(trained: tuple[Path, Called]) -> None:
    run = judged_last(trained[0], "complete", "projector")
    found = answered("audit", run, "--untrained", "--no-page", "--fail-on", "complete", *QUICK)
    assert "of_run" not in found


PICKLED = pickle.dumps({"a": 1})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("rows.pkl",), "is a pickle"),
        (("pickled.npy",), "is no array of numpy"),
        (("empty.npy",), "is empty"),
        (("one.npy",), "embeddings are a matrix [n, d]"),
        (("nan.npy",), "1 of 600 embedding rows are not finite"),
        (("complex.npy",), "complex numbers"),
        (("none.npy",), "does not exist"),
        (("rows.npy", "--labels", "short.txt"), "2 labels for 600 rows"),
        (("rows.npy", "--fail-on", "dimensonal"), "did you mean 'dimensional'?"),
        (("rows.npy", "--metrics", "lvel"), "unknown metric 'lvel'; did you mean 'level'?"),
        (("rows.npy", "--thresholds", "odd.yaml"), "did you mean 'jump_width'?"),
        (("rows.npy", "--threshold.jump-widt", "1"), "did you mean --threshold.jump-width?"),
        (
            ("rows.npy", "--threshold.decay", "-1"),
            "the threshold decay must be a finite number of at least 0",
        ),
        (("rows.npy", "--data", "shapes"), "--data is for encoders"),
        (("rows.npy", "--taps", "layer1"), "--taps is for encoders"),
        (("rows.npy", "--layers", "some"), "--layers takes all"),
        (("rows.npy", "--key", "z"), "leave --key out"),
        (("rows.npy", "--sample", "0"), "a sample of 0 rows is none"),
        (("rows.npy", "--out", "one.npy"), "is a file"),
        (("rows.npy", "--against", "none.npy"), "does not exist"),
        (("timm:resnet10t", "--untrained"), "add --data"),
        (("resnet10tt", "--data", "shapes"), "unknown model 'resnet10tt'"),
        ((*ENCODER, "--taps", "layr4"), "did you mean 'layer4'?"),
        ((*ENCODER, "--labels", "short.txt"), "come with --data"),
        ((), "WHAT is missing"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line(words: tuple[str, ...], said: str) -> None:
    good = rows("healthy")
    saved("rows.npy", good)
    saved("one.npy", np.ones(5))
    saved("complex.npy", good * 1j)
    good[3, 0] = np.nan
    saved("nan.npy", good)
    Path("rows.pkl").write_bytes(PICKLED)
    Path("pickled.npy").write_bytes(PICKLED)
    Path("empty.npy").touch()
    Path("short.txt").write_text("1\n2\n")
    Path("odd.yaml").write_text("jump_widt: 1\n")
    assert said in refused("audit", *words)


def test_help_has_units_and_examples() -> None:
    called = call("audit", "--help")
    assert called.code == 0 and "fullrank audit features.npy" in called.out and "--fail-on" in called.out


def test_the_front_door_shows_itself() -> None:
    view = fullrank.audit(rows("dimensional"), metrics=["level"])
    assert view.verdict.kind == "dimensional"
    assert "Dimensional collapse" in str(view) and "Threshold" in repr(view)
    html = view._repr_html_()
    assert "Dimensional collapse" in html and "<table>" in html
    assert view.write("out", figures=False) == Path("out/audit.html")
    assert fullrank.audit(saved("rows.npy", rows("healthy")), metrics=["level"]).origin == "rows.npy"


def test_an_audit_has_its_text_in_a_notebook_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where rich finds a notebook, it shows there what is meant for a file, and leaves the file empty."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    assert "Dimensional collapse" in str(fullrank.audit(rows("dimensional"), metrics=["level"]))
