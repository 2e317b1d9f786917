"""A served page in a real browser: it follows its run, and the reader stays where he was."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fullrank.live.server import PageServer
from fullrank.lock import sole_writer
from live.conftest import GrowingRun, Serve
from report.conftest import make_run

pytestmark = pytest.mark.slow
PATIENCE = 90_000  # milliseconds


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.faults = []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda said: page.faults.append(said.text) if said.type == "error" else None)
    yield page
    context.close()


@pytest.fixture
def run(tmp_path: Path) -> GrowingRun:
    found = GrowingRun(tmp_path / "first", epochs=4)
    found.begin()
    found.grow(2)
    return found


def visit(tab: Any, server: PageServer, path: str = "") -> None:
    tab.goto(server.url + path)
    tab.wait_for_selector("html[data-drawn=yes]", timeout=PATIENCE)


def wait_for(tab: Any, text: str) -> None:
    tab.wait_for_function("text => document.body.innerText.includes(text)", arg=text, timeout=PATIENCE)


def top_of(tab: Any, heading: str) -> float:
    return float(tab.locator("h3, h2", has_text=heading).first.bounding_box()["y"])


def test_a_page_follows_its_run_to_the_end_without_a_reload(tab: Any, serve: Serve, run: GrowingRun) -> None:
    with sole_writer(run.path):
        visit(tab, serve([run.path]))
        wait_for(tab, "after 1 of 4 epochs")
        tab.evaluate("window.same = true")
        run.grow(1)
        wait_for(tab, "after 2 of 4 epochs")
        assert tab.locator(".live").get_attribute("data-phase") == "running"
        run.end()
        wait_for(tab, "Finished after 4 of 4 epochs")
    wait_for(tab, "The run has ended")
    assert tab.evaluate("window.same") and tab.faults == []


def test_scrolling_and_open_details_survive_an_update(tab: Any, serve: Serve, run: GrowingRun) -> None:
    visit(tab, serve([run.path]))
    tab.locator("summary", has_text="How to read this").click()  # closes it
    tab.locator("summary", has_text="Configuration").click()
    tab.evaluate("scrollTo(0, document.querySelector('.grid').offsetTop + 60)")
    before = top_of(tab, "Alignment and uniformity")
    run.grow(1)
    wait_for(tab, "after 2 of 4 epochs")
    assert abs(top_of(tab, "Alignment and uniformity") - before) < 3
    opened = "[...document.querySelectorAll('details[open] > summary')].map((one) => one.innerText)"
    assert [text.split()[0] for text in tab.evaluate(opened)] == ["Configuration"]


def test_the_chosen_tap_and_what_a_legend_hides_survive_an_update(
    tab: Any, serve: Serve, run: GrowingRun
) -> None:
    visit(tab, serve([run.path]))
    tab.click("button[data-value=backbone]")
    tab.locator("figure", has_text="Normalized std").locator("[data-key]", has_text="projector").first.click()
    run.grow(1)
    wait_for(tab, "after 2 of 4 epochs")
    assert tab.get_attribute("button[data-value=backbone]", "aria-pressed") == "true"
    shown = "[...document.querySelectorAll('.plot[data-tap]:not([hidden])')].map((plot) => plot.dataset.tap)"
    assert set(tab.evaluate(shown)) == {"backbone"}
    key = tab.locator("figure", has_text="Normalized std").locator("[data-key]", has_text="projector").first
    assert key.get_attribute("aria-pressed") == "false"
    assert tab.evaluate("document.activeElement.textContent.trim()") == "projector"


def test_a_selection_is_not_taken_away(tab: Any, serve: Serve, run: GrowingRun) -> None:
    server = serve([run.path])
    visit(tab, server)
    tab.evaluate("getSelection().selectAllChildren(document.querySelector('.sub'))")
    version = server.pages.current("0").version
    run.grow(1)
    server.pages.wait("0", version, 60)
    tab.wait_for_timeout(1000)
    assert "after 1 of 4 epochs" in tab.evaluate("getSelection().toString()")
    tab.evaluate("getSelection().removeAllRanges()")
    wait_for(tab, "after 2 of 4 epochs")


def test_a_page_tells_when_nobody_serves_it_any_more(tab: Any, serve: Serve, run: GrowingRun) -> None:
    from fullrank.live.server import close

    server = serve([run.path])
    visit(tab, server)
    close(server)
    wait_for(tab, "Nobody serves this page any more")
    assert "simsiam on shapes" in tab.inner_text("h1")


@pytest.mark.parametrize("width", [390, 1440])
def test_runs_side_by_side_fit_the_window(tab: Any, serve: Serve, tmp_path: Path, width: int) -> None:
    runs = [make_run(tmp_path / kind, kind, epochs=3) for kind in ("healthy", "dimensional", "complete")]
    tab.set_viewport_size({"width": width, "height": 800})
    visit(tab, serve(runs))
    wide = tab.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide[0] <= wide[1] and tab.faults == []
    tab.locator(".live a", has_text="complete").click()
    wait_for(tab, "Run directory: complete")
