"""The terminal: what is written, at both usual widths, and nothing where nothing was asked for."""

import io
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from fullrank.collapse.blemishes import Blemish
from fullrank.errors import UnknownNameError
from fullrank.figures.style import number, percent
from fullrank.report.run.arms import arms_table, arms_text
from fullrank.report.run.reading import read_run
from fullrank.report.run.summary import Summary, summarise
from fullrank.report.run.terminal import LivePanel, PlainLines, Quiet, make_console
from fullrank.training.records import StepRecord


def drawn(renderable: Any, width: int) -> Any:
    console = Console(width=width, file=io.StringIO(), record=True)
    console.print(renderable)
    return console.export_text().splitlines()


def panel_of(records: Any, config: Any, width: int = 80) -> Any:
    panel = LivePanel(Console(width=width, file=io.StringIO()))
    panel.start(config, total_steps=620)
    for record in records:
        panel(record)
    return panel


def test_plain_lines(fake_records: Any, fake_config: Any) -> None:
    stream = io.StringIO()
    with PlainLines(stream) as lines:
        lines.start({**fake_config, "epochs": 3}, total_steps=93)
        for record in fake_records("dimensional", epochs=3):
            lines(record)
    written = stream.getvalue().splitlines()
    assert "\x1b" not in stream.getvalue()
    assert written[0] == "simsiam on shapes, resnet18: 3 epochs, 93 steps, batch size 128, lr 0.03, seed 0"
    assert written[1].startswith("epoch   0/3  untrained  level 0.350  rank 6.5")
    assert written[2].startswith("epoch   1/3  loss -0.") and "left" in written[2]
    assert written[4].startswith("  dimensional (projector): ")  # said once, when the verdict changes
    assert written[-3].startswith("finished after 3 epochs, 93 steps, ")
    assert written[-3].endswith("took 1.0 %") and written[-2] == "k-NN 52.4 %; untrained 46.6 %"
    assert written[-1].startswith("verdict: dimensional (projector): ")
    assert len(written) == 9


def test_a_long_epoch_in_a_pipe_has_an_estimate_and_a_line_every_half_minute(
    fake_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1000.0]
    monkeypatch.setattr("fullrank.report.run.terminal.time.monotonic", lambda: now[0])
    lines = PlainLines(stream := io.StringIO())
    lines.start({**fake_config, "epochs": 3}, total_steps=300)
    for step in (1, 10, 20, 30, 40):
        now[0] = 1000.0 + step
        time = {"elapsed": 2.0 + step, "images_per_second": 128.0}
        lines(StepRecord(step=step, loss=-0.5, time=time))
    first, *written = stream.getvalue().splitlines()
    assert first.startswith("simsiam on shapes, resnet18: 3 epochs, 300 steps")
    assert written == [
        "step 10/300  loss -0.5000  128 images/s  about 4 min 50 s left",
        "step 40/300  loss -0.5000  128 images/s  about 4 min 20 s left",
    ]


@pytest.mark.parametrize("width", [80, 120])
@pytest.mark.parametrize("words", ["● Healthy", "■ Complete collapse", "▲ Dimensional collapse"])
def test_the_panel_fits(fake_records: Any, fake_config: Any, words: str, width: int) -> None:
    kind = words.split()[1].lower()
    lines = drawn(panel_of(fake_records(kind), fake_config, width), width)
    assert all(len(line) == width for line in lines)
    inside = [line.strip("│ ") for line in lines[1:-1]]
    rows = [line.split()[0] for line in inside if line and line[0].isalpha()]
    assert rows[:3] == ["progress", "loss", "level"]
    ranks = [line for line in lines if "baseline" in line]
    assert len(ranks) == 2 and all(", d " in line and line.rstrip("│ ")[-1].isdigit() for line in ranks)
    assert any(f"{words} at the projector" in line for line in lines)


def test_wide_embeddings_do_not_wrap_the_panel(fake_records: Any, fake_config: Any) -> None:
    wide = fake_records(epochs=3)
    for record in wide:
        for panel in getattr(record, "panels", {}).values():
            panel["d"] = 8192
            panel["measures"]["erank_centred"] = {"value": 6543.2, "null": 7654.3}
    lines = drawn(panel_of(wide, fake_config), 80)
    assert sum("baseline 7,654, d 8,192" in line for line in lines) == 2


def test_the_panel_before_the_first_record(fake_config: Any) -> None:
    assert any("Not decidable" in line for line in drawn(panel_of([], fake_config), 80))


def test_the_panel_live(fake_records: Any, fake_config: Any) -> None:
    stream = io.StringIO()
    with LivePanel(Console(file=stream, force_terminal=True, width=100)) as panel:
        panel.start(fake_config, total_steps=93)
        for record in fake_records(epochs=3):
            panel(record)
    assert "Healthy" in stream.getvalue() and stream.getvalue().endswith("\x1b[?25h")  # the cursor is back


def test_a_run_without_labels_or_panels(fake_config: Any) -> None:
    record = StepRecord(step=3, level={"codes": None})
    lines = drawn(panel_of([record], fake_config), 80)
    assert not any("k-NN" in line for line in lines)


def test_quiet_and_json_write_nothing(
    fake_records: Any, fake_config: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    for mode in ("quiet", "json"):
        with make_console(mode) as listener:
            listener.start(fake_config, total_steps=93)
            for record in fake_records(epochs=1):
                listener(record)
    assert capsys.readouterr() == ("", "")


def test_which_console(monkeypatch: pytest.MonkeyPatch) -> None:
    assert type(make_console("auto")) is PlainLines  # a test's standard output is no terminal
    assert isinstance(make_console("live"), LivePanel)
    assert type(make_console("json")) is Quiet
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert isinstance(make_console("auto"), LivePanel)
    monkeypatch.setenv("TERM", "dumb")
    assert type(make_console("auto")) is PlainLines
    with pytest.raises(UnknownNameError, match="did you mean 'plain'"):
        make_console("plane")


@pytest.mark.parametrize("width", [80, 120])
def test_the_closing_table(fake_run: Any, width: int) -> None:
    rows = [summarise(read_run(fake_run(kind, epochs=3))) for kind in ("healthy", "dimensional", "complete")]
    rows[2].name = "no stop-gradient"
    lines = [line.rstrip() for line in drawn(arms_table(rows), width)]
    assert len(lines) == 4 and "■ complete" in lines[3] and lines[3].endswith("%")
    plain = arms_text(rows).splitlines()
    assert [line.split("  ")[0] for line in plain] == ["Arm", "healthy", "dimensional", "no stop-gradient"]


@pytest.mark.parametrize("width", [80, 120])
def test_the_live_table_has_a_bar_and_where_it_is_wide_the_loss_so_far(fake_records: Any, width: int) -> None:
    summaries = [Summary("simsiam"), Summary("no stop-gradient")]
    for record in fake_records("complete", epochs=3):
        summaries[1].take(record)
    lines = [line for line in drawn(arms_table(summaries, 93, width), width) if line.strip()]
    assert "Progress" in lines[0] and ("Loss so far" in lines[0]) == (width == 120)


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("steps", [0, 93], ids=["closing", "live"])
def test_no_number_of_a_table_of_arms_is_cut(fake_run: Any, steps: int, width: int) -> None:
    row = summarise(read_run(fake_run("healthy", epochs=3)), "no stop-gradient, no output BN")
    odd = Blemish("one-sided", 5, 9, "", "")
    row.verdict = replace(row.judgement, probability=0.4, blemishes=(odd, odd)).as_dict()
    shown = "\n".join(drawn(arms_table([row], steps, width), width))
    for words in ("Rank / d", "k-NN", number(row.loss, 4), number(row.level), percent(row.knn)):
        assert words in shown
    assert "…" not in shown and ("one-sided" in shown) == (width >= 100)
