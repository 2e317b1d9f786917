"""Features on a plane, drawn: for paper, and to point at."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fullrank.features.maps import FeatureMap
from fullrank.figures import Lines
from fullrank.figures.style import count
from fullrank.report.curves import class_points
from fullrank.report.render import render, section, write

HEIGHT = 560  # pixels of the map on its page


def map_figure(found: FeatureMap) -> Lines:
    """The map: a cloud for each class."""
    points = found.points
    clouds = class_points(found.places, points.labels, [f"image {i}" for i in points.indices], points.classes)
    return Lines(points.name, "", *found.axes, clouds)


def interactive_map(found: FeatureMap) -> str:
    """The page of a map to point at: each point tells its image and its class."""
    figure = replace(map_figure(found), title=found.axes[0].split(" ")[0], height=HEIGHT)
    state = f"{count(len(found.places))} images, each at the place of its features."
    return render("map.html.j2", title=found.points.name, state=state, section=section("Map", figure))


def write_maps(found: FeatureMap, folder: Path) -> list[Path]:
    """Write `map.html`, `map.svg`, `map.pdf` and `map.png` into a folder."""
    from fullrank.figures.matplotlib import plot, save

    page = write(folder / "map.html", interactive_map(found))
    drawing = plot(map_figure(found))
    if found.axes[0].startswith("UMAP"):  # whose numbers mean nothing
        drawing.axes[0].set(xticks=[], yticks=[])
    return [page, *save(drawing, folder / "map")]
