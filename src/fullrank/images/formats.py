"""Formats of image files: which are read here, and what would read the others."""

from __future__ import annotations

import warnings
from functools import lru_cache
from importlib.util import find_spec

from PIL import features

_PLAIN = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".bmp", ".dib", ".gif", ".tga"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".tif", ".tiff"),
    )
)
HEIF = "HEIC, which needs pillow-heif: pip install 'fullrank[heif]'"
_OF_A_BUILD = {
    "webp": ((".webp",), "WebP, which this Pillow was built without: pip install -U pillow"),
    "jpg_2000": (
        (".jp2", ".j2k", ".j2c", ".jpx", ".jpf"),
        "JPEG 2000, which this Pillow was built without: pip install -U pillow",
    ),
    "avif": ((".avif", ".avifs"), "AVIF, which needs Pillow 11.3 or newer: pip install -U pillow"),
}
_NOT_READ = {
    **dict.fromkeys(
        (".cr2", ".cr3", ".crw", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".pef", ".srw"),
        "raw files of cameras: convert them, as to TIFF",
    ),
    **dict.fromkeys((".svg", ".svgz", ".eps", ".ai", ".pdf"), "drawings, not pixels: convert them to PNG"),
    **dict.fromkeys((".exr", ".hdr", ".jxl", ".psd", ".xcf"), "not read here: convert them to PNG or TIFF"),
    **dict.fromkeys((".dcm", ".nii", ".mha", ".nrrd"), "medical volumes: write their slices as PNG or TIFF"),
    **dict.fromkeys((".mp4", ".mov", ".avi", ".mkv", ".webm"), "films: write their frames as JPEG or PNG"),
}
NO_IMAGE = "no images, by their endings"
_BRANDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1"), HEIF),
    **dict.fromkeys((b"avif", b"avis"), _OF_A_BUILD["avif"][1]),
}


def why_not_read(suffix: str) -> str:
    """Why files with an ending are not read, as text for a list; empty where they are.

    A file without an ending is read where its first bytes are those of an image (`named_by_content`).

    Example:
        >>> why_not_read(".JPG"), why_not_read(".nef"), why_not_read(".txt")
        ('', 'raw files of cameras: convert them, as to TIFF', 'no images, by their endings')
    """
    return _reasons().get(suffix.lower(), NO_IMAGE)


@lru_cache(maxsize=1)
def _reasons() -> dict[str, str]:
    """Reason by ending, as far as this installation goes."""
    reasons = dict.fromkeys(_PLAIN, "") | _NOT_READ
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that an older Pillow has never heard of AVIF
        for codec, (suffixes, remedy) in _OF_A_BUILD.items():
            reasons |= dict.fromkeys(suffixes, "" if features.check(codec) else remedy)
    return reasons | dict.fromkeys((".heic", ".heif", ".hif"), "" if find_spec("pillow_heif") else HEIF)


def named_by_content(head: bytes) -> bool:
    """Tell whether the first bytes of a file are those of an image that is read.

    Example:
        >>> named_by_content(b"\\xff\\xd8\\xff\\xe0"), named_by_content(b"name,label")
        (True, False)
    """
    begins = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"II*\x00", b"MM\x00*", b"\x00\x00\x00\x0cjP  ")
    return head.startswith(begins) or head[:4] + head[8:12] == b"RIFFWEBP" or head[4:8] == b"ftyp"


def why_unknown(head: bytes) -> str:
    """Why Pillow does not know a file that begins so.

    Example:
        >>> why_unknown(b""), why_unknown(b"hello")
        ('the file is empty', 'no image of a format that is read here')
    """
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return _BRANDS[head[8:12]]
    if head.startswith((b"II*\x00", b"MM\x00*")):
        return "a TIFF with pixels of a kind that Pillow does not read"
    return "no image of a format that is read here"


@lru_cache(maxsize=1)
def can_read_heif() -> bool:
    """Teach Pillow to read HEIC where pillow-heif is installed."""
    if find_spec("pillow_heif") is None:
        return False
    from pillow_heif import register_heif_opener

    register_heif_opener()
    return True
