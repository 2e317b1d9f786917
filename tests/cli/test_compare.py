"""`fullrank compare` from the command line: runs and a foreign checkpoint in one table, page and object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from cli.helpers import SMALL, Called, answered, call, refused
from encoders.foreign_layouts import dino, vit

FEW = ("--queries", "80", "--bank", "120")


@pytest.fixture(scope="module")
def subjects(trained: tuple[Path, Called], tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    """Two seeds of SimSiam, and a checkpoint of DINO's."""
    folder = tmp_path_factory.mktemp("compare")
    second = folder / "simsiam-seed1"
    assert call("train", "simsiam", *SMALL, "--seed", "1", "--out", str(second)).code == 0
    torch.save(dino(vit()), folder / "dino.pth")
    return str(trained[0]), str(second), str(folder / "dino.pth")


def compared(*words: str) -> dict[str, Any]:
    return answered("compare", *words, *FEW)


def test_the_object_has_arms_with_runs_values_and_intervals(subjects: tuple[str, ...]) -> None:
    found = compared(*subjects, "--names", "ours,theirs")
    ours, theirs = found["arms"]
    assert (ours["name"], theirs["name"]) == ("ours", "theirs")
    assert [run["seed"] for run in ours["runs"]] == [0, 1] and ours["method"] == "simsiam"
    assert ours["values"]["loss"]["n"] == 2 and ours["values"]["loss"]["low"] is None
    assert sum(ours["verdicts"].values()) == 2 and list(theirs["taps"]) == ["features"]
    assert found["images"]["queries"] == 80 and found["images"]["bank"] == 120
    for arm in (ours, theirs):
        assert 0 <= arm["values"]["knn_same"]["mean"] <= 1
        assert arm["taps"]["features"]["n"] == 80
    assert Path(found["page"]).is_file()


def test_what_it_prints_and_writes(subjects: tuple[str, ...]) -> None:
    called = call("compare", *subjects, *FEW, "--out", "side/by/side.html")
    assert called.code == 0 and called.err == "" and "\x1b" not in called.out
    for words in ("2 of 2", "dino.pth", "raw pixels", "Images: shapes, which all runs were trained on"):
        assert words in called.out
    assert called.out.endswith("page    side/by/side.html\n")
    page = Path("side/by/side.html").read_text()
    assert "What does not compare" in page and "Spectra of the features" in page


def test_a_page_of_other_subjects_is_not_replaced_in_silence(subjects: tuple[str, ...]) -> None:
    words = ("--no-measure", "--out", "pages/one.html")
    assert [call("compare", *subjects[:2], *words).err for _ in range(2)] == ["", ""]
    said = call("compare", subjects[0], *words, "--names", "other").err
    assert said.startswith("note    pages/one.html was of ") and said.count("\n") == 1


def test_runs_are_shown_as_they_were_logged_without_measuring(subjects: tuple[str, ...]) -> None:
    found = compared(*subjects[:2], "--no-measure")
    assert found["images"] is None and "knn_same" not in found["arms"][0]["values"]


def test_runs_of_different_data_need_a_word_on_which_images(subjects: tuple[str, ...], here: Path) -> None:
    other = here / "digits"
    assert call("train", "simsiam", *SMALL, "--data", "digits", "--out", str(other)).code == 0
    found = compared(subjects[0], str(other))
    assert found["images"] is None
    assert (
        "No k-NN on the same images: the runs were trained on different ones. Add --data." in found["notes"]
    )
    assert compared(subjects[0], str(other), "--data", "digits")["images"]["data"] == "digits"
    line = refused("compare", subjects[0], str(other), subjects[2])
    assert "the runs were trained on different ones: add --data" in line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "SUBJECT is missing"),
        (("no/such",), "no/such does not exist"),
        (("DINO",), "needs images, and no run brings any: add --data"),
        (("DINO", "--no-measure"), "is an encoder"),
        (("DINO", "--data", "shapes", "--k", "0"), "--k must be at least 1"),
        (("DINO", "--data", "shape"), "did you mean 'shapes'?"),
        (("DINO", "--data", "shapes", "--untrained"), "dino.pth brings its weights along"),
        (
            ("RUN", "--untrained", "--no-measure"),
            "nothing is known of an untrained network without --measure",
        ),
        (("RUN", "RUN"), "is named twice"),
        (("RUN", "--names", "a,b"), "a name of its own for each: 1 arms"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_is_one_line_and_nothing_is_written(
    words: tuple[str, ...], said: str, subjects: tuple[str, ...]
) -> None:
    places = {"RUN": subjects[0], "DINO": subjects[2]}
    assert said in refused("compare", *(places.get(word, word) for word in words))


def test_untrained_networks_are_compared_where_they_began(subjects: tuple[str, ...]) -> None:
    net = "timm:resnet10t"
    found = compared(*subjects[:2], net, "--untrained", "--data", "shapes", "--out", "began.html")
    ours, theirs = found["arms"]
    assert ours["name"].endswith(" (untrained)") and theirs["name"] == f"{net} (untrained)"
    assert all(run["untrained"] for arm in (ours, theirs) for run in arm["runs"])
    first, second = (run["values"] for run in ours["runs"])
    assert set(first) == {"knn_same"}, "the records of a run are of its training"
    assert [run["seed"] for run in ours["runs"]] == [0, 1] and first.keys() == second.keys()
    assert Path("began.html").is_file()


def test_what_a_run_began_with_is_not_what_it_left(subjects: tuple[str, ...]) -> None:
    began, left = (compared(subjects[0], *words)["arms"][0] for words in (("--untrained",), ()))
    taps = [arm["taps"]["features"]["measures"]["level"]["mean"] for arm in (began, left)]
    assert taps[0] != taps[1]
