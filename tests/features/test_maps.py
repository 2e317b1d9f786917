"""Features on a plane: the principal axes, coloured by class, in files that can be opened."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from fullrank.errors import DataError, UnknownNameError, UsageError
from fullrank.features.maps import Points, map_features, read_features, write_csv
from fullrank.features.writing import StoreWriter
from fullrank.figures.matplotlib import plot
from fullrank.report.feature_map import interactive_map, map_figure, write_maps
from report.test_page import figures

GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(300, 8, generator=GENERATOR) * torch.tensor([9.0, 4.0, *[0.5] * 6])
LABELS = np.arange(300) % 4 - 1


def points(rows: torch.Tensor = ROWS) -> Points:
    return Points(rows, np.arange(len(rows)), LABELS[: len(rows)], ["cat", "dog", "bird"], "noise")


def test_places_are_the_two_principal_components() -> None:
    found = map_features(points())
    centred = (ROWS - ROWS.mean(0)).double()
    _, sigma, axes = torch.linalg.svd(centred, full_matrices=False)
    expected = (centred @ axes[:2].T).numpy()
    for k in range(2):
        sign = np.sign(expected[:, k] @ found.places[:, k])
        assert np.allclose(found.places[:, k] * sign, expected[:, k], atol=1e-4)
    share = float(sigma[0] ** 2 / sigma.square().sum())
    assert found.axes[0] == f"principal axis 1 ({share:.0%} of the variance)".replace("%", " %")


def test_one_dimension_is_a_line_and_a_constant_is_refused() -> None:
    assert not map_features(points(ROWS[:, :1])).places[:, 1].any()
    with pytest.raises(DataError, match=r"one point \(complete collapse\)"):
        map_features(points(torch.ones(5, 3)))
    with pytest.raises(DataError, match="1 rows are not finite"):
        map_features(points(torch.tensor([[1.0, 2.0], [float("nan"), 0.0]])))


@pytest.mark.slow
def test_umap_keeps_clusters_apart() -> None:
    pytest.importorskip("umap")
    centres = torch.eye(3).repeat_interleave(40, 0) * 20
    rows = centres + torch.randn(120, 3, generator=GENERATOR)
    places = map_features(Points(rows, np.arange(120)), "umap").places.reshape(3, 40, 2)
    spread = places.std(1).max()
    apart = min(np.linalg.norm(places[a].mean(0) - places[b].mean(0)) for a, b in ((0, 1), (0, 2), (1, 2)))
    assert apart > 3 * spread
    again = map_features(Points(rows, np.arange(120)), "umap").places.reshape(3, 40, 2)
    assert np.array_equal(places, again), "a seed decides it"


def test_features_come_from_a_folder_of_ours_or_from_any_file(tmp_path: Path) -> None:
    for split in ("train", "test"):
        writer = StoreWriter(tmp_path / "F", split, {"subject": "noise", "taps": ["layer4", "features"]})
        rows = {"layer4": ROWS[:, :3], "features": ROWS}
        writer.add(rows, torch.arange(300), torch.from_numpy(LABELS), images=300)
        writer.finish({"classes": ["cat", "dog", "bird"]})
    found = read_features(tmp_path / "F")
    assert torch.equal(found.rows, ROWS) and found.name == "features of noise, test images"
    some = read_features(tmp_path / "F", "layer4", "train", most=50)
    assert some.rows.shape == (50, 3) and len(set(some.indices)) == 50
    assert some.labels is not None and np.array_equal(some.labels, LABELS[some.indices])
    np.savez(tmp_path / "all.npz", z=ROWS.numpy(), y=LABELS)
    other = read_features(tmp_path / "all.npz", most=20)
    assert torch.equal(other.rows, ROWS[torch.from_numpy(other.indices)]) and other.labels is not None
    with pytest.raises(UnknownNameError, match="tap 'layer3'; did you mean 'layer4'"):
        read_features(tmp_path / "F", "layer3")
    with pytest.raises(UsageError, match="--split is for folders"):
        read_features(tmp_path / "all.npz", split="train")


def test_every_point_is_drawn_in_the_colour_of_its_class(tmp_path: Path) -> None:
    found = map_features(points())
    (clouds,) = figures(interactive_map(found))
    assert [cloud["name"] for cloud in clouds] == ["no label", "cat", "dog", "bird"]
    assert sum(len(cloud["x"]) for cloud in clouds) == 300
    for cloud in clouds:
        images = [int(said.removeprefix("image ")) for said in cloud["at"]]
        assert np.allclose(found.places[images, 0], cloud["x"], rtol=1e-4)
    axes = plot(map_figure(found)).axes[0]
    assert sum(len(np.asarray(part.get_xdata())) for part in axes.lines) == 300
    legend = axes.get_legend()
    assert legend is not None and [text.get_text() for text in legend.texts][1] == "cat"
    write_csv(found, tmp_path / "map.csv")
    lines = list(csv.DictReader((tmp_path / "map.csv").open()))
    assert len(lines) == 300 and [line["class"] for line in lines[:4]] == ["", "cat", "dog", "bird"]
    assert abs(float(lines[7]["x"]) - found.places[7, 0]) < 1e-4


def test_files_are_whole(tmp_path: Path) -> None:
    written = write_maps(map_features(points()), tmp_path)
    assert sorted(path.name for path in written) == ["map.html", "map.pdf", "map.png", "map.svg"]
    assert "<script src=" not in (tmp_path / "map.html").read_text(), "it needs no network"
    unlabelled = map_features(Points(ROWS, np.arange(300)))
    assert (
        len(figures(interactive_map(unlabelled))[0]) == 1
        and plot(map_figure(unlabelled)).axes[0].get_legend() is None
    )
