"""What is said of held-out images is what is held out."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from fullrank.images.opening import open_data


@pytest.mark.parametrize(("limit", "held_out"), [(None, 40), (200, 40), (40, 40), (39, 39), (5, 5), (1, 1)])
def test_as_many_images_are_said_to_be_held_out_as_are(
    tmp_path: Path, limit: int | None, held_out: int
) -> None:
    for i in range(120):
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / f"{i}.png")
    data = open_data(str(tmp_path), limit=limit)
    assert len(data.held_out) == held_out
    images = "random image is" if held_out == 1 else "random images are"
    assert f"{held_out} {images} held out: there is no val or test split" in data.notes
