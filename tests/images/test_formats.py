"""Every image is read, or it is counted, and the reason is said."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, features

from fullrank.errors import DataError
from fullrank.images import formats
from fullrank.images.decoding import decode, header_size, to_eight_bits
from fullrank.images.loader import Batches
from fullrank.images.opening import open_data
from fullrank.images.sources import LazySource
from fullrank.images.walking import list_images

FORMATS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": 95},
    "PNG": {},
    "WEBP": {"lossless": True},
    "AVIF": {"quality": 95},
    "HEIF": {"quality": 95},
    "JPEG2000": {},
    "TIFF": {},
    "TIFF lzw": {"compression": "tiff_lzw"},
    "TIFF jpeg": {"compression": "jpeg"},
    "GIF": {},
    "BMP": {},
    "TGA": {},
    "PPM": {},
}
CODECS = {
    "WEBP": "webp",
    "AVIF": "avif",
    "JPEG2000": "jpg_2000",
    "TIFF lzw": "libtiff",
    "TIFF jpeg": "libtiff",
}
TURNED = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF")  # HEIC turns by a property of its own


def encoded(image: Image.Image, name: str, **more: Any) -> bytes:
    if name == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    if name in CODECS and not features.check(CODECS[name]):
        pytest.skip(f"this Pillow has no {CODECS[name]}")
    buffer = io.BytesIO()
    image.save(buffer, name.split()[0], **FORMATS[name], **more)
    return buffer.getvalue()


def halves(size: tuple[int, int] = (64, 32)) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", size, (250, 0, 0))
    image.paste((0, 0, 250), (size[0] // 2, 0, *size))
    return image


def folder_of_three(folder: Path) -> None:
    """Training images and a held-out one, in folders of their own: what is broken is none of them."""
    for part in ("train/0", "train/1", "val/2"):
        (folder / part).parent.mkdir(exist_ok=True)
        halves().save(folder / f"{part}.png")


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_decoded(name: str) -> None:
    content = encoded(halves(), name)
    image = decode(content)
    assert image.shape == (3, *header_size(content)) == (3, 32, 64)
    assert image[0, 16, 8] > 220 and image[2, 16, 8] < 40
    assert image[2, 16, 56] > 220 and image[0, 16, 56] < 40


@pytest.mark.parametrize("name", TURNED)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_cameras_are_held_upright_and_headers_agree(name: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(halves(), name, exif=exif)
    image = decode(content).float()
    assert image.shape[1:] == header_size(content) == ((64, 32) if orientation > 4 else (32, 64))
    assert bool(image[0, :16, :16].mean() > 125) == (orientation in (1, 4, 5, 6))


@pytest.mark.parametrize("name", ["PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_what_is_transparent_lies_on_white(name: str, mode: str) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((90, 90, 90, 255), (16, 0, 32, 32))
    pixels = decode(encoded(image.convert(mode), name)).float()
    assert pixels[:, :, 2:12].min() > 245
    assert (pixels[:, :, 20:30] - 90).abs().max() < 12


def test_a_transparent_colour_of_a_palette_or_of_rgb_lies_on_white() -> None:
    palette = Image.new("RGB", (8, 8), (10, 20, 30)).convert("P", palette=Image.Palette.ADAPTIVE)
    index = palette.getpixel((0, 0))
    assert decode(encoded(palette, "PNG", transparency=index)).min() == 255
    assert decode(encoded(Image.new("RGB", (8, 8), (9, 9, 9)), "PNG", transparency=(9, 9, 9))).min() == 255


@pytest.mark.parametrize("mode", ["CMYK", "LAB", "YCbCr"])
def test_other_colour_spaces_become_rgb(mode: str) -> None:
    if mode == "LAB":  # lightness, then a and b around 128
        image = Image.merge("LAB", [Image.new("L", (8, 8), v) for v in (255, 128, 128)])
    else:
        image = Image.new("RGB", (8, 8), (255, 255, 255)).convert(mode)
    pixels = decode(encoded(image, "TIFF"))
    assert pixels.shape == (3, 8, 8) and pixels.min() > 245


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_and_not_clipped(bits: int, name: str) -> None:
    ramp = np.linspace(0, 2**bits - 1, 64).round().astype(np.uint16)
    pixels = decode(encoded(Image.fromarray(np.tile(ramp, (4, 1))), name))
    expected = torch.linspace(0, 255, 64).expand(3, 4, 64)
    assert (pixels.float() - expected).abs().max() <= 1


@pytest.mark.parametrize("low_high", [(0.0, 1.0), (0.0, 255.0), (-3.0, 5.0), (0.0, 1e7)])
def test_floating_point_tiffs_are_scaled_by_their_range(low_high: tuple[float, float]) -> None:
    ramp = np.linspace(*low_high, 64, dtype=np.float32)
    pixels = decode(encoded(Image.fromarray(np.tile(ramp, (4, 1))), "TIFF")).float()
    assert (pixels - torch.linspace(0, 255, 64)).abs().max() <= 1


@given(st.lists(st.floats(-(2.0**99), 2.0**99, width=32), min_size=1, max_size=20))
def test_scaling_keeps_the_order_and_never_clips(values: list[float]) -> None:
    scaled = to_eight_bits(np.array(values, np.float32))
    order = np.argsort(np.array(values, np.float32), kind="stable")
    assert (np.diff(scaled[order].astype(int)) >= 0).all()


def test_numbers_that_are_not_finite_are_a_reason(tmp_path: Path) -> None:
    bad = np.zeros((4, 4), np.float32)
    bad[0, 0] = np.nan
    folder_of_three(tmp_path)
    Image.fromarray(bad).save(tmp_path / "train" / "nan.tif")
    data = open_data(str(tmp_path), max_corrupt=0.5, image_size=8)
    assert data.skipped == {str(tmp_path / "train" / "nan.tif"): "pixels are not finite numbers"}


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "TIFF", "AVIF"])
def test_of_an_animation_the_first_picture_is_taken(name: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime", "blue")]
    pixels = decode(encoded(frames[0], name, save_all=True, append_images=frames[1:]))
    assert pixels[0].min() > 240 and pixels[1:].max() < 15


# ---------------------------------------------------------------- counted, with the reason


def test_what_needs_a_package_is_counted_and_the_package_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "find_spec", lambda name: None)
    formats._reasons.cache_clear()
    try:
        for i in range(4):
            halves().save(tmp_path / f"{i}.jpg")
            (tmp_path / f"{i}.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
        data = open_data(str(tmp_path))
        assert len(data.train) + len(data.held_out) == 4
        (line,) = [note for note in data.notes if "HEIC" in note]
        assert line.startswith("4 files are left out (HEIC, which needs pillow-heif: pip install")
        assert line.endswith(", ...")
        assert len(data.skipped) == 4
        for i in range(4):
            (tmp_path / f"{i}.jpg").unlink()
        with pytest.raises(DataError, match=r"no images under .*4 files are left out .*fullrank\[heif\]"):
            open_data(str(tmp_path))
    finally:
        formats._reasons.cache_clear()


def test_a_heic_by_another_name_says_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fullrank.images.decoding.can_read_heif", lambda: False)
    folder_of_three(tmp_path)
    (tmp_path / "train" / "4.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0")
    with pytest.raises(DataError, match=r"1 of 4 images cannot be decoded: .*4.jpg \(HEIC, which needs"):
        open_data(str(tmp_path))


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.jpg", b"", "the file is empty"),
        ("a.jpg", b"words", "no image of a format that is read here"),
        ("a.tif", b"II*\0\x08\0\0\0\0\0", "a TIFF with pixels of a kind that Pillow does not read"),
        ("a.nef", b"", "raw files of cameras: convert them, as to TIFF"),
        ("a.svg", b"", "drawings, not pixels: convert them to PNG"),
        ("a.txt", b"", "no images, by their endings"),
        ("README", b"words", "no images, by their endings"),
    ],
)
def test_every_file_that_is_not_read_is_listed_with_a_reason(
    tmp_path: Path, name: str, content: bytes, why: str
) -> None:
    folder_of_three(tmp_path)
    (tmp_path / "train" / name).write_bytes(content)
    data = open_data(str(tmp_path), max_corrupt=0.5)
    assert data.skipped == {str(tmp_path / "train" / name): why}
    assert any(str(tmp_path / "train" / name) in note for note in data.notes)


def test_an_image_without_an_ending_is_read(tmp_path: Path) -> None:
    for i, name in enumerate(("JPEG", "PNG", "GIF", "WEBP", "AVIF", "JPEG2000", "TIFF")):
        (tmp_path / str(i)).write_bytes(encoded(halves(), name))
    data = open_data(str(tmp_path))
    assert len(data.train) + len(data.held_out) == 7 and not data.skipped


def test_a_folder_that_cannot_be_read_and_links_in_a_circle_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves().save(tmp_path / "1.png")
    (tmp_path / "inner").mkdir()
    halves().save(tmp_path / "inner" / "2.png")
    (tmp_path / "inner" / "back").symlink_to(tmp_path)
    (tmp_path / "locked").mkdir()
    os.mkfifo(tmp_path / "3.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    scandir = os.scandir

    def locked(path: Any) -> Any:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    skipped: dict[str, str] = {}
    listed = list_images(tmp_path, skipped)
    assert [path.name for path in listed] == ["1.png", "gone.png", "2.png"]  # the dead link: when it is read
    assert skipped == {
        f"{tmp_path}/3.png": "neither a file nor a folder",
        f"{tmp_path}/inner/back/": "a link to a folder that it lies in",
        f"{tmp_path}/locked/": "the folder cannot be read: Permission denied",
    }


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_met_while_training_is_added(tmp_path: Path, workers: int) -> None:
    for i in range(12):
        halves((16 + i, 16)).save(tmp_path / f"{i:02}.png")
    data = open_data(str(tmp_path), max_corrupt=0.5)
    assert isinstance(data.train, LazySource) and not data.skipped
    broken = data.train.where(3)
    Path(broken).write_bytes(Path(broken).read_bytes()[:60])
    for _ in Batches(data.train, len(data.train), seed=0, workers=workers).epoch(0):
        pass
    assert list(data.skipped) == [broken]
    assert "truncated" in data.skipped[broken] or "broken" in data.skipped[broken]


def test_control_characters_of_a_name_are_escaped(tmp_path: Path) -> None:
    folder_of_three(tmp_path)
    (tmp_path / "train" / "a\x1b[31m\n.txt").touch()
    (tmp_path / "train" / "b\x07.png").touch()
    data = open_data(str(tmp_path), max_corrupt=0.5)
    assert all(text.isprintable() for text in (*data.skipped, *data.notes))
    assert any("a\\x1b[31m\\n.txt" in note for note in data.notes)
