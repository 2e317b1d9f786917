"""`fullrank pick` from the command line: checkpoints of a run, runs of a folder, and encoders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

import fullrank
from cli.helpers import SMALL, WIDTHS, Called, answered, call, refused, save_images
from encoders.foreign_layouts import dino, vit

FEW = ("--images", "40", "--views", "2")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three epochs that kept its encoders."""
    out = tmp_path_factory.mktemp("pick") / "runs" / "first"
    words = ("--epochs", "3", "--keep-every", "1", "--out", str(out))
    assert call("train", "simsiam", *SMALL, *words).code == 0
    return out


def test_the_object_has_every_epoch_from_the_best_to_the_worst(run: Path) -> None:
    found = answered("pick", str(run), *FEW)
    assert sorted(each["epoch"] for each in found["ranked"]) == [0, 1, 2, 3]
    points = [each["points"] for each in found["ranked"]]
    assert points == sorted(points, reverse=True) and points[0] == 0
    assert found["pick"] == found["ranked"][0]["encoder"]
    assert 0 <= found["close"] <= 1 and found["relation"] == "run"
    assert Path(found["page"]).is_file()


def test_what_it_prints_and_writes(run: Path) -> None:
    called = call("pick", str(run), *FEW, "--out", "side/pick.html")
    assert called.code == 0 and called.err == "" and "\x1b" not in called.out
    for words in ("of 3", "sure that it is within 1 point of the best", "no label was looked at"):
        assert words in called.out
    assert called.out.endswith("page    side/pick.html\n")
    page = Path("side/pick.html").read_text()
    assert "Expected accuracy" in page and all(
        f"<dt>{name}" in page for name in ("Participation ratio", "LiDAR")
    )


def test_the_same_twice_is_the_same(run: Path) -> None:
    assert answered("pick", str(run), *FEW) == answered("pick", str(run), *FEW)


def test_a_run_that_kept_no_encoders_is_picked_from_by_its_checkpoints(trained: tuple[Path, Called]) -> None:
    found = answered("pick", str(trained[0]), *FEW)
    assert sorted(each["epoch"] for each in found["ranked"]) == [1, 2]


def test_runs_of_a_folder_are_compared_by_their_last_encoders(
    run: Path, trained: tuple[Path, Called]
) -> None:
    shutil.copytree(trained[0], "runs/second")
    shutil.copytree(run, "runs/first")
    found = answered("pick", "runs", *FEW, "--data", "shapes")
    assert sorted(each["name"] for each in found["ranked"]) == ["first, epoch 3", "second, epoch 2"]
    every = answered("pick", "runs", *FEW, "--data", "shapes", "--every-checkpoint")
    assert len(every["ranked"]) == 6


def test_encoders_of_other_libraries_need_images_and_are_ranked_beside_a_run(run: Path) -> None:
    torch.save(dino(vit()), "dino.pth")
    assert "add --data" in refused("pick", "dino.pth", "timm:resnet10t", "--untrained")
    found = answered("pick", "dino.pth", str(run), *FEW, "--data", "shapes")
    assert {each["epoch"] for each in found["ranked"]} == {None, 3}


def test_a_damaged_encoder_is_left_out_with_the_reason(run: Path) -> None:
    shutil.copytree(run, "copy")
    file = Path("copy/encoders/epoch_0001.safetensors")
    file.write_bytes(file.read_bytes()[:2000])
    called = call("pick", "copy", *FEW)
    assert called.code in (0, 1, 2) and "Traceback" not in called.err
    assert "epoch_0001.safetensors" in called.out + called.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ((), "SUBJECT is missing"),
        (("nowhere",), "nowhere"),
        (("timm:resnet10t", "--data", "shapes", "--untrained"), "two are needed"),
        (("a", "b", "--views", "1"), "two views or more"),
        (("a", "b", "--views", "100000"), "100 of an image are the most"),
        (("a", "b", "--images", "0"), "--images is 0"),
        (("a", "b", "--within", "0"), "--within is 0 points"),
    ],
)
def test_bad_words_get_one_line(words: tuple[str, ...], says: str) -> None:
    assert says in refused("pick", *words)


def test_too_few_images_are_refused_with_the_number_needed(run: Path) -> None:
    assert "at least 8 are needed" in refused("pick", str(run), "--images", "5")


def test_python_takes_the_same(run: Path) -> None:
    found = fullrank.pick(run, images=40, views=2)
    assert found.pick.candidate.run is not None and "sure that it is within" in str(found)


def test_an_encoder_that_took_no_step_is_not_decidable_and_cannot_have_collapsed(run: Path) -> None:
    first = next(each for each in answered("pick", str(run), *FEW)["ranked"] if each["epoch"] == 0)
    assert first["verdict"] == "not decidable" and "untrained" in first["name"]
    file = run / "encoders" / "epoch_0000.safetensors"
    audited = answered("audit", str(file), "--data", "shapes", "--limit", "100", "--no-page")
    assert audited["verdict"] == "not decidable" and audited["why"] == "no step taken yet"


@pytest.mark.parametrize(
    "name", ["encoder.safetensors", "config.yaml", "metrics.jsonl", "checkpoints/last.pt"]
)
@pytest.mark.parametrize("command", ["pick", "compare"])
def test_nothing_but_a_page_is_ever_overwritten(run: Path, command: str, name: str) -> None:
    file = run / name
    before = file.read_bytes() if file.exists() else None
    assert "does not end in .html" in refused(command, str(run), "--out", str(file))
    assert (file.read_bytes() if file.exists() else None) == before


@pytest.mark.parametrize("damage", [b"", b"\xff" * 300])
@pytest.mark.parametrize("name", ["encoders/epoch_0002.safetensors", "encoder.safetensors"])
def test_a_file_that_is_no_encoder_any_more_is_left_out_and_the_others_are_ranked(
    run: Path, name: str, damage: bytes
) -> None:
    shutil.copytree(run, "copy")
    Path("copy", name).write_bytes(damage)
    found = answered("pick", "copy", *FEW)
    assert [Path(each["encoder"]).name for each in found["unusable"]] == [Path(name).name]
    assert len(found["ranked"]) >= 3


@pytest.mark.parametrize("device", ["nonsense", "cuda:9", "tpu"])
def test_a_device_that_is_not_there_gets_one_line(run: Path, device: str) -> None:
    called = call("pick", str(run), *FEW, "--device", device)
    assert called.code == 2 and f"--device '{device}' is not there; there is cpu" in called.err
    assert "Traceback" not in called.err


@pytest.fixture(scope="module")
def over_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, and runs of two seeds on it with a third that has not begun to train."""
    folder = tmp_path_factory.mktemp("seeds")
    save_images(folder / "photos", 120)
    for seed in ("0", "1"):
        words = ("--data", str(folder / "photos"), "--backbone", "resnet8-w16", "--batch-size", "32", *WIDTHS)
        out = folder / "runs" / f"seed{seed}"
        called = call("train", "simsiam", *words, "--epochs", "1", "--seed", seed, "--out", str(out))
        assert called.code == 0, called
    (folder / "runs" / "seed2").mkdir()
    shutil.copy(folder / "runs" / "seed1" / "config.yaml", folder / "runs" / "seed2")
    return folder


def test_runs_of_several_seeds_on_a_plain_folder_are_ranked_with_a_word_on_the_images(
    over_seeds: Path,
) -> None:
    called = call("pick", str(over_seeds / "runs"), "--images", "40", "--views", "2")
    assert called.code == 0, called
    assert "runs of other seeds may have trained on them" in " ".join(called.out.split())


def test_a_run_without_an_encoder_is_left_out_of_its_folder_with_the_reason(over_seeds: Path) -> None:
    found = answered("pick", str(over_seeds / "runs"), "--images", "40", "--views", "2")
    assert {each["name"] for each in found["ranked"]} == {"seed0, epoch 1", "seed1, epoch 1"}
    assert [each["why"] for each in found["unusable"] if "no encoder yet" in each["why"]]


def test_the_page_lies_beside_the_runs_that_it_is_of(over_seeds: Path) -> None:
    found = answered("pick", str(over_seeds / "runs"), "--images", "40", "--views", "2")
    assert Path(found["page"]) == over_seeds / "runs" / "pick.html"
