"""The pages in a real browser without network: every figure drawn, nothing fetched, nothing too wide."""

from pathlib import Path
from typing import Any

import pytest
import torch

from cli.helpers import SMALL, call
from encoders.foreign_layouts import dino, vit
from fullrank.report.audit.page import write_audit
from fullrank.report.audit.view import Against
from fullrank.report.compare.page import write_comparison
from fullrank.report.run.page import write_page
from report.test_audit_page import cloud, view

pytestmark = pytest.mark.slow

DONE = "html[data-drawn=yes]"
DRAWN = """() => [...document.querySelectorAll(".plot:not([hidden])")].map((plot) => ({
    marks: plot.querySelectorAll("svg svg :is(path, image)").length,
    inside: plot.querySelector("svg").getBoundingClientRect().width <= plot.clientWidth + 1,
}))"""
SHOWN = """() => [...document.querySelectorAll(".plot[data-tap]:not([hidden])")]
    .map((plot) => plot.dataset.tap)"""


def visit(
    browser: Any, file: Any, width: int, inspect: Any = lambda page: None, scheme: str = "light"
) -> Any:
    """Opens a page offline and checks what holds for all of them; `inspect` sees it before it closes."""
    context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, color_scheme=scheme)
    page = context.new_page()
    faults, requests = [], []
    page.on("console", lambda said: faults.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("requestfailed", lambda request: faults.append(f"failed: {request.url[:80]}"))
    page.on("request", lambda request: requests.append(request.url[:80]))
    page.goto(file.as_uri())
    page.wait_for_selector(DONE)
    drawn = page.evaluate(DRAWN)
    wide = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    inspect(page)
    context.close()
    assert faults == []
    assert [url for url in requests if not url.startswith(("data:", "blob:"))] == [file.as_uri()[:80]]
    assert drawn and all(plot["marks"] and plot["inside"] for plot in drawn), drawn
    assert wide[0] <= wide[1], f"horizontal scroll at {width} px: {wide}"
    return len(drawn)


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("kind", ["healthy", "complete"])
def test_the_page_of_a_run(browser: Any, fake_run: Any, kind: str, width: int) -> None:
    assert visit(browser, write_page(fake_run(kind, epochs=5)), width) == 7


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_of_an_untrained_network(browser: Any, fake_run: Any, width: int) -> None:
    assert visit(browser, write_page(fake_run(epochs=0, labels=False, ended=False)), width) == 5


@pytest.mark.parametrize("width", [390, 1440])
def test_the_comparison(browser: Any, fake_run: Any, tmp_path: Path, width: int) -> None:
    runs = [fake_run(kind, epochs=5) for kind in ("healthy", "dimensional", "complete")]
    page = write_comparison(runs, tmp_path / "demo.html", "Three runs", baselines={"raw pixels": 0.4})
    assert visit(browser, page, width, scheme="dark") == 8


def test_choosing_a_tap(browser: Any, fake_run: Any) -> None:
    def inspect(page: Any) -> None:
        assert set(page.evaluate(SHOWN)) == {"projector"}
        page.click("button[data-value=backbone]")
        page.wait_for_selector(DONE)
        assert set(page.evaluate(SHOWN)) == {"backbone"}
        assert page.get_attribute("button[data-value=backbone]", "aria-pressed") == "true"

    visit(browser, write_page(fake_run("dimensional", epochs=3)), 1440, inspect)


@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_of_an_audit(browser: Any, tmp_path: Path, width: int) -> None:
    found = view(labels=torch.arange(300) % 3)
    other = Against("other", view(cloud(seed=1)))
    write_audit({"early": view(), "features": found}, tmp_path, against=other, figures=False)
    assert visit(browser, tmp_path / "audit.html", width) == 6 + 4 + 1


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page over two runs of ours, of different settings, and a checkpoint of DINO's."""
    folder = tmp_path_factory.mktemp("compare")
    runs = [folder / "simsiam", folder / "no-predictor"]
    for run, words in zip(runs, ((), ("--options.predictor", "none")), strict=True):
        assert call("train", "simsiam", *SMALL, *words, "--out", str(run)).code == 0
    torch.save(dino(vit()), folder / "dino.pth")
    words = (*map(str, runs), str(folder / "dino.pth"), "--queries", "250", "--bank", "200")
    called = call("compare", *words, "--out", str(folder / "compare.html"))
    assert called.code == 0, called.err
    return folder / "compare.html"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 900, 1440])
def test_a_comparison_with_a_foreign_checkpoint(
    browser: Any, compared: Path, width: int, scheme: str
) -> None:
    def inspect(tab: Any) -> None:
        rows = tab.locator("table.arms").first.locator("tbody tr").all_inner_texts()
        assert len(rows) == 4 and "dino.pth" in rows[2] and "raw pixels" in rows[3]
        inside = "[...document.querySelectorAll('.scroll')].map((box) => box.scrollWidth <= box.clientWidth)"
        assert all(tab.evaluate(inside)) or width == 900

    assert (
        visit(browser, compared, width, inspect, scheme) == 2 + 4 + 2 + 1
    )  # probes, curves, maps, last spectra
