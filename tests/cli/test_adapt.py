"""`fullrank adapt`: a sentence and a page, or one line on what is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.helpers import Called, answered, call, refused, save_images

SMALL = (
    *("--data", "digits", "--limit", "96", "--batch-size", "32", "--epochs", "2", "--image-size", "16"),
    *("--method", "simsiam", "--settings", "accelerator=cpu"),
)


def test_the_outcome_is_a_sentence_with_evidence(trained: tuple[Path, Called], here: Path) -> None:
    called = call("adapt", str(trained[0]), *SMALL)
    assert called.code == 0, called.err
    assert "adapted: " in called.out or "do not adapt: " in called.out
    assert "95 % interval" in called.out or "no adapted encoder was compared" in called.out
    run = Path("runs", "adapt-simsiam-to-digits")
    assert (run / "adaptation.html").is_file()
    again = answered("adapt", str(trained[0]), *SMALL)
    assert again["path"] == str(run)
    assert again["sentence"] in called.out
    resumed = call("resume", str(run))
    assert again["sentence"] in resumed.out
    report = call("report", str(run))
    assert [Path(line).name for line in report.out.splitlines()] == ["report.html", "adaptation.html"]


def test_an_encoder_to_train_on_is_needed(here: Path) -> None:
    assert "did you mean" in refused("adapt", "timm:resnet81", "--data", "digits")


def test_a_handful_of_images_is_refused(trained: tuple[Path, Called], here: Path) -> None:
    folder = save_images(here / "photos", 12)
    assert "held-out images" in refused("adapt", str(trained[0]), "--data", str(folder))


def test_images_are_needed(trained: tuple[Path, Called]) -> None:
    assert "--data is missing" in refused("adapt", str(trained[0]))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--keep", "2"), "share between 0 and 1"),
        (("--method", "simsam"), "did you mean 'simsiam'"),
        (("--settings", "layer_decay"), "KEY=VALUE"),
        (("--settings", "layer_decai=0.5"), "did you mean 'layer_decay'"),
        (("--epochs", "-1"), "--epochs must not be negative"),
    ],
)
def test_what_is_wrong_is_one_line(words: tuple[str, ...], says: str, trained: tuple[Path, Called]) -> None:
    assert says in refused("adapt", str(trained[0]), "--data", "digits", *words)
