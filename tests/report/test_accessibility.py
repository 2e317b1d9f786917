"""Pages for everybody: axe-core finds nothing serious, keys are enough, and no page is over 1.5 MB."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import fullrank
from cures.fake import write_arms, write_run
from fullrank.cures.cure import make_plan, run_cure
from fullrank.cures.options import CureOptions
from fullrank.cures.page import write_cure_page
from fullrank.cures.plan import CurePlan
from fullrank.features.maps import Points, map_features
from fullrank.live.pages import LivePages
from fullrank.live.watched import watched_runs
from fullrank.report.audit.page import write_audit
from fullrank.report.audit.view import Against
from fullrank.report.compare.page import write_comparison
from fullrank.report.feature_map import interactive_map
from fullrank.report.run.page import write_page
from fullrank.selection.page import write_selection
from fullrank.selection.ranking import rank
from fullrank.training.config import TrainConfig
from fullrank.training.run_dir import RunDir
from labs.test_lab import written
from report.conftest import make_run
from report.test_audit_page import cloud, view
from selection.test_ranking import IMAGES, measured

pytestmark = pytest.mark.slow

LARGEST = 1_500_000  # bytes
KINDS = ("healthy", "dimensional", "complete")
SERIOUS = ("serious", "critical")


def run_page(folder: Path) -> Path:
    """The page of a long run."""
    return write_page(make_run(folder / "run", "dimensional", epochs=200, per_epoch=100))


def audit_page(folder: Path) -> Path:
    """The page of an audit with classes, beside another."""
    z = cloud(5000, 96)
    other = Against("other", view(cloud(5000, 96, seed=1)))
    return write_audit(
        {"early": view(z), "late": view(z, labels=torch.arange(5000) % 10)}, folder, against=other
    )


def comparison_page(folder: Path) -> Path:
    """The page of a dozen long runs."""
    runs = [make_run(folder / f"{kind}{k}", kind, epochs=100) for kind in KINDS for k in range(4)]
    return write_comparison(runs, folder / "compare.html", "A dozen runs")


def lab_page(folder: Path) -> Path:
    """The page of a lab."""
    written(folder)
    return folder / "report.html"


def cure_page(folder: Path) -> Path:
    """The page of a cure."""
    options = CureOptions(most=2, seeds=3, minutes=1000.0)
    plan = make_plan(write_run(folder / "run", ["complete"] * 8), options)
    assert isinstance(plan, CurePlan)
    write_arms(plan, {"stop-gradient": ("healthy", 0.5), "untreated": ("complete", 0.3)})
    return write_cure_page(run_cure(plan, options), folder / "cure.html")


def pick_page(folder: Path) -> Path:
    """The page of a selection among the checkpoints of a run."""
    run = RunDir.create(folder / "run", TrainConfig(limit=64))
    found = [measured(f"epoch {k}", 0.2 + 0.01 * k, run=run, epoch=k, seconds=10.0 * k) for k in range(1, 60)]
    return write_selection(rank(found, IMAGES), folder / "pick.html")


def adaptation_page(folder: Path) -> Path:
    """The page of an adaptation."""
    small: dict[str, Any] = {"limit": 64, "batch_size": 32, "image_size": 16, "epochs": 1}
    cpu: dict[str, Any] = {"accelerator": "cpu", "probe": "off", "diagnostics_every": 0}
    start = fullrank.train(
        "simsiam", out=folder / "start", data="shapes", backbone="resnet8-w4", **small, **cpu
    ).path
    fullrank.adapt(start, out=folder / "run", data="digits", settings=("accelerator=cpu",), **small)
    return folder / "run" / "adaptation.html"


def map_page(folder: Path) -> Path:
    """The page of a map of as many points as there may be."""
    rows = torch.randn(5000, 8, generator=torch.Generator().manual_seed(0))
    points = Points(rows, np.arange(5000), np.arange(5000) % 12, [f"class {k}" for k in range(12)], "noise")
    (folder / "map.html").write_text(interactive_map(map_features(points)))
    return folder / "map.html"


def live_page(folder: Path, name: str = "0") -> Path:
    """A page as `fullrank watch` serves it."""
    runs = [make_run(folder / kind, kind, epochs=30, ended=False) for kind in KINDS]
    (folder / "live.html").write_text(LivePages(watched_runs(list(map(str, runs)))).current(name).text)
    return folder / "live.html"


def overview_page(folder: Path) -> Path:
    """Runs side by side as `fullrank watch` serves them."""
    return live_page(folder, "all")


MAKERS: tuple[Callable[[Path], Path], ...] = (
    *(run_page, audit_page, comparison_page, lab_page, cure_page, pick_page, adaptation_page, map_page),
    *(live_page, overview_page),
)


@pytest.fixture(scope="module", params=MAKERS, ids=lambda maker: maker.__name__)
def page(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found: Path = request.param(tmp_path_factory.mktemp("page"))
    return found


@pytest.fixture
def tab(browser: Any, page: Path) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900}, offline=True)
    tab = context.new_page()
    tab.goto(page.as_uri())
    tab.wait_for_selector("html[data-drawn=yes]")
    yield tab
    context.close()


def test_no_page_is_too_large_to_send(page: Path) -> None:
    assert page.stat().st_size < LARGEST


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(tab: Any, scheme: str, width: int) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    tab.emulate_media(color_scheme=scheme)
    tab.set_viewport_size({"width": width, "height": 900})
    tab.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = [
        f"{fault['id']}: {fault['nodes'][0]['html'][:120]} {fault['nodes'][0]['failureSummary'][-160:]}"
        for fault in axe.run(tab).response["violations"]
        if fault["impact"] in SERIOUS
    ]
    assert found == []


def test_every_button_is_reached_and_pressed_by_keys(tab: Any) -> None:
    count = "[...document.querySelectorAll('button, summary, a[href]')].filter((b) => b.offsetParent).length"
    there, reached = tab.evaluate(count), set[int]()
    number = "[...document.querySelectorAll('button, summary, a[href]')].indexOf(document.activeElement)"
    for _ in range(there + 30):
        tab.keyboard.press("Tab")
        reached.add(tab.evaluate(number))
    assert len(reached - {-1}) == there
    if tab.locator("[data-key]:visible").count():
        key = tab.locator("[data-key]:visible").first
        before = key.get_attribute("aria-pressed")
        key.focus()
        tab.keyboard.press("Enter")
        assert key.get_attribute("aria-pressed") != before


def test_every_figure_has_title_axes_with_units_and_words(tab: Any) -> None:
    figures = """[...document.querySelectorAll('figure.card:not(.picture)')].map((figure) => ({
        title: figure.querySelector('h3').textContent.trim(),
        label: figure.querySelector('[role=img]').getAttribute('aria-label'),
        axes: [...figure.querySelectorAll('.plot:not([hidden]) .axis')].map((axis) => axis.textContent),
    }))"""
    for figure in tab.evaluate(figures):
        assert figure["title"] and figure["label"].strip(": "), figure
        assert any(axis.strip() for axis in figure["axes"]), figure  # one of names has none of its own
