"""A run goes on with the images that it began with, or is refused in a line that names what differs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cli.helpers import WIDTHS, call, refused, save_images

WORDS = (
    *("--image-size", "16", "--backbone", "resnet8-w16", "--batch-size", "16", "--epochs", "1"),
    *("--workers", "0", "--quiet", *WIDTHS),
)


@pytest.fixture
def ended(here: Path) -> Path:
    """A run that has ended, on the files in `flat`."""
    save_images("flat", 60)
    assert call("train", "simsiam", "--data", "flat", *WORDS, "--out", "run").code == 0
    return here / "run"


def test_a_run_that_has_ended_is_made_longer_on_its_own_images_alone(ended: Path) -> None:
    first = Path("flat", "000.png")
    content = first.read_bytes()
    save_images("flat", 70)
    assert "began with 54 training images, and there are 63 now" in refused("resume", "run", "--epochs", "2")
    for path in sorted(Path("flat").iterdir())[60:]:
        path.unlink()
    first.write_bytes(content + b"\0")
    line = refused("resume", "run", "--epochs", "2")
    assert "not those that the run began with (train: sizes of files)" in line and "--override data" in line
    longer = call("resume", "run", "--epochs", "2", "--override", "data", "--quiet")
    assert longer.code == 0, longer
    first.write_bytes(content)
    assert "sizes of files" in refused("resume", "run", "--epochs", "3"), "those that were accepted count now"


def test_a_checkpoint_without_a_fingerprint_goes_by_the_number_of_images(ended: Path) -> None:
    last = ended / "checkpoints" / "last.pt"
    state = torch.load(last, weights_only=True)
    assert state.pop("data")
    torch.save(state, last)
    (last.parent / "digests.json").unlink()
    Path("flat", "000.png").rename(Path("flat", "900.png"))
    assert call("resume", "run", "--epochs", "2", "--quiet").code == 0
