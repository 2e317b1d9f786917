"""The built site: every link ends somewhere, no other host is asked, a screen reader finds its way."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
VISITED = [
    *("index.html", "start.html", "collapse.html", "read_a_verdict.html", "symptoms.html", "compare.html"),
    *("methods/simsiam.html", "methods/dino.html", "metrics/spectrum.html", "reproduce/codes.html"),
    *("api/fullrank.html", "glossary.html"),
]
HEAVIEST = 1_500_000  # bytes of a page

pytestmark = [pytest.mark.slow, pytest.mark.acceptance]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, as `make docs` leaves it, or built anew where something is newer."""
    pytest.importorskip("mkdocs", reason="the extra docs is not installed")
    built = ROOT / "site" / "index.html"
    sources = [ROOT / "mkdocs.yml", ROOT / "README.md", ROOT / "CHANGELOG.md"]
    sources += [p for folder in ("docs", "src") for p in (ROOT / folder).rglob("*.*") if p.suffix != ".pyc"]
    if built.is_file() and built.stat().st_mtime > max(path.stat().st_mtime for path in sources):
        return built.parent
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def generator(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of the site's generator."""
    monkeypatch.syspath_prepend(str(ROOT / "docs"))
    return lambda name: importlib.import_module(f"generator.{name}")


def test_every_link_ends_somewhere_and_no_other_host_is_asked(site: Path, generator: Any) -> None:
    assert list(generator("links").problems(site)) == []


def test_broken_links_and_foreign_hosts_are_found(tmp_path: Path, generator: Any) -> None:
    (tmp_path / "a.html").write_text('<h1 id="top">A</h1><a href="b.html#low">b</a><a href="c.html">c</a>')
    (tmp_path / "b.html").write_text(
        '<a href="a.html#top">a</a><script src="https://example.org/x.js"></script>'
    )
    assert list(generator("links").problems(tmp_path)) == [
        "a.html: b.html#low: no anchor #low there",
        "a.html: c.html: no such file",
        "b.html: asks another host for https://example.org/x.js",
    ]


def test_no_page_is_heavy(site: Path) -> None:
    sizes = {str(path.relative_to(site)): path.stat().st_size for path in site.rglob("*.html")}
    assert {name: size for name, size in sizes.items() if size > HEAVIEST} == {}


def test_every_method_metric_and_lab_has_its_place(site: Path) -> None:
    from fullrank.collapse.metrics import METRICS
    from fullrank.labs import LABS
    from fullrank.methods import METHODS

    places: dict[str, Any] = {"methods": METHODS, "reproduce": LABS}
    missing = [
        f"{folder}/{name}"
        for folder, table in places.items()
        for name, item in table.items()
        if item.__module__.startswith("fullrank.") and not (site / folder / f"{name}.html").is_file()
    ]
    text = "".join(path.read_text(encoding="utf-8") for path in (site / "metrics").glob("*.html"))
    assert missing + [name for name in METRICS if f'id="{name}"' not in text] == []


def test_pages_fit_and_a_screen_reader_finds_its_way(site: Path, browser: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    context = browser.new_context()
    page, asked, problems = context.new_page(), [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    for name in VISITED:
        for width, scheme in ((390, "light"), (1440, "dark")):
            page.set_viewport_size({"width": width, "height": 900})
            page.emulate_media(color_scheme=scheme)
            page.goto((site / name).as_uri())
            if page.evaluate("document.documentElement.scrollWidth") > width:
                problems.append(f"{name}: wider than {width} pixels")
            found = axe.run(page).response["violations"]
            serious = [v["id"] for v in found if v["impact"] in ("serious", "critical")]
            problems += [f"{name}, {width} pixels, {scheme}: {rule}" for rule in serious]
    context.close()
    assert problems == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "about:", "blob:"))] == []


def test_figures_follow_their_sliders_and_search_works_from_a_folder(site: Path, browser: Any) -> None:
    page = browser.new_page()
    page.goto((site / "collapse.html").as_uri())
    figures = page.locator("figure[data-figure]")
    assert figures.count() == 4
    for k in range(4):
        figure = figures.nth(k)
        last, slider = figure.locator(".values").inner_text(), figure.locator("input[type=range]")
        slider.focus()
        slider.press("Home")
        assert figure.locator(".values").inner_text() != last, figure.get_attribute("data-figure")
    page.wait_for_timeout(2000)  # until the theme listens
    page.locator("input.md-search__input").click()
    page.keyboard.type("gradient", delay=50)
    page.wait_for_selector(".md-search-result__item", state="attached", timeout=60_000)
    page.close()
