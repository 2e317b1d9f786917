import io
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from torchvision.datasets import STL10

from fullrank.errors import DataError, UnknownNameError, UsageError
from fullrank.images import parquet, parquet_rows
from fullrank.images.named import DATA
from fullrank.images.opening import open_data
from fullrank.images.sources import IMAGENET_MEAN, LazySource, MemorySource

CIFAR = Path(__file__).parents[2].parent / "shared" / "data" / "cifar10"


def picture(path: Path, grey: int = 100, size: tuple[int, int] = (8, 6), mode: str = "RGB") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, grey).convert(mode).save(path)
    return path


def pictures(folder: Path, n: int, **kwargs: object) -> None:
    for i in range(n):
        picture(folder / f"{i:03}.png", grey=i, **kwargs)  # type: ignore[arg-type]


def encoded(grey: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 5), (grey,) * 3).save(buffer, "PNG")
    return buffer.getvalue()


# ---------------------------------------------------------------- folders of image files


def test_class_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "cat", 12)
    pictures(tmp_path / "dog", 8)
    data = open_data(str(tmp_path))
    assert isinstance(data.train, MemorySource) and isinstance(data.held_out, MemorySource)
    assert data.train.images.shape == (18, 3, 6, 8) and data.train.images.dtype == torch.uint8
    assert len(data.held_out) == 2  # a tenth
    assert data.train.classes == data.held_out.classes == ["cat", "dog"]
    assert data.train.labels is not None and data.held_out.labels is not None
    assert np.bincount(np.concatenate([data.train.labels, data.held_out.labels])).tolist() == [12, 8]
    assert data.train.mean == IMAGENET_MEAN
    assert "2 random images are held out: there is no val or test split" in data.notes


def test_the_held_out_tenth_is_fixed_by_the_seed(tmp_path: Path) -> None:
    pictures(tmp_path, 30)

    def held(seed: int) -> list[int]:
        source = open_data(str(tmp_path), seed=seed).held_out
        return [int(source.load(i)[0, 0, 0]) for i in range(len(source))]

    assert held(0) == held(0) != held(1)


@pytest.mark.parametrize(("images", "held"), [(2, 1), (95, 9), (96, 32), (100, 33), (300, 40), (500, 50)])
def test_of_a_hundred_images_enough_are_held_out_for_a_verdict(
    tmp_path: Path, images: int, held: int
) -> None:
    for i in range(images):
        (tmp_path / f"{i:03}.png").write_bytes(encoded(i % 200))
    assert len(open_data(str(tmp_path)).held_out) == held


def test_train_and_val_folders(tmp_path: Path) -> None:
    pictures(tmp_path / "train" / "b" / "images", 3)
    pictures(tmp_path / "train" / "a" / "images", 3)
    pictures(tmp_path / "val" / "b" / "images", 2)
    pictures(tmp_path / "val" / "new" / "images", 1)
    pictures(tmp_path / "test", 4)
    data = open_data(str(tmp_path))
    assert data.train.classes == ["a", "b"]
    assert data.train.labels is not None and data.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert data.held_out.labels is not None and data.held_out.labels.tolist() == [1, 1, -1]
    assert data.held_out.name.endswith("/val")


@pytest.mark.parametrize(
    "files",
    [
        ["1.png", "2.png", "3.png"],
        ["only/1.png", "only/2.png", "only/3.png"],
        ["2023/01/1.png", "2023/02/2.png", "2024/01/3.png"],
        ["1.png", "more/2.png", "others/3.png"],
    ],
    ids=["flat", "one folder", "dates", "some beside folders"],
)
def test_unlabelled_folders(tmp_path: Path, files: list[str]) -> None:
    for file in files:
        picture(tmp_path / file)
    (tmp_path / ".hidden.png").write_text("left alone")
    (tmp_path / "notes.txt").write_text("left alone")
    data = open_data(str(tmp_path))
    assert (len(data.train), len(data.held_out)) == (2, 1)
    assert data.train.labels is data.held_out.labels is None
    assert data.train.classes is None
    assert data.notes[0].startswith("the images are unlabelled")
    assert data.train.subset(np.array([0])).labels is None


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1", "I;16", "LA"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    for i in range(2):
        path = picture(
            tmp_path / f"{i}.{'jpg' if mode == 'CMYK' else 'png'}",
            grey=255,
            mode="L" if mode == "I;16" else mode,
        )
        if mode == "I;16":
            Image.fromarray(np.full((6, 8), 0xFF00, np.uint16)).save(path)
    image = open_data(str(tmp_path)).train.load(0)
    assert image.shape == (3, 6, 8) and image.dtype == torch.uint8
    assert image.min() > 250


def test_the_camera_is_held_upright(tmp_path: Path) -> None:
    for i in range(2):
        exif = Image.Exif()
        exif[0x0112] = 6
        Image.new("RGB", (8, 6)).save(tmp_path / f"{i}.jpg", exif=exif)
    assert open_data(str(tmp_path)).train.image_size == (8, 6)


# ---------------------------------------------------------------- memory or on demand


def test_sizes_that_differ_stay_on_demand_unless_one_is_given(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    picture(tmp_path / "large.png", size=(40, 20))
    data = open_data(str(tmp_path))
    assert isinstance(data.train, LazySource) and isinstance(data.held_out, LazySource)
    assert data.train.image_size == (6, 8)
    assert "images are decoded on demand: they differ in size" in data.notes
    resized = open_data(str(tmp_path), image_size=5).train
    assert isinstance(resized, MemorySource) and resized.images.shape == (10, 3, 5, 5)


def test_too_much_for_memory_stays_on_demand(tmp_path: Path) -> None:
    pictures(tmp_path, 10)
    data = open_data(str(tmp_path), image_size=4, memory_limit_bytes=100)
    assert isinstance(data.train, LazySource) and data.train.image_size == (4, 4)
    assert data.train.load(0).shape == (3, 6, 8)  # cropping is for the loader
    assert pickle.loads(pickle.dumps(data.train)).load(0).shape == (3, 6, 8)  # reaches a worker process


def test_limits_are_fixed_and_nested(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 40)
    pictures(tmp_path / "val", 9)

    def greys(limit: int) -> set[int]:
        data = open_data(str(tmp_path), limit=limit)
        assert len(data.train) == limit and len(data.held_out) == min(limit, 9)
        return {int(data.train.load(i)[0, 0, 0]) for i in range(limit)}

    assert greys(5) == greys(5) < greys(12)
    assert "a random 5 of 40 training images" in open_data(str(tmp_path), limit=5).notes
    assert len(open_data(str(tmp_path), limit=1000).train) == 40


# ---------------------------------------------------------------- what is corrupt


def spoil(folder: Path) -> list[Path]:
    text, empty, cut = folder / "a_text.jpg", folder / "b_empty.jpg", folder / "c_cut.png"
    text.write_text("not an image")
    empty.touch()
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (6, 8, 3), np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:100])
    return [text, empty, cut]


def test_corrupt_files_are_left_out_and_named(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 27)
    pictures(tmp_path / "val", 3)
    spoiled = spoil(tmp_path / "train")
    data = open_data(str(tmp_path), max_corrupt=0.1)
    assert isinstance(data.train, MemorySource)
    assert sorted(data.train.images[:, 0, 0, 0].tolist()) == list(range(27))
    named = ", ".join(map(str, spoiled))
    assert f"3 of 33 images cannot be decoded: {named}; left out" in data.notes


def test_labels_stay_with_their_images(tmp_path: Path) -> None:
    for name in "ab":
        pictures(tmp_path / "train" / name, 5)
        pictures(tmp_path / "val" / name, 5)
    spoil(tmp_path / "train" / "a")
    data = open_data(str(tmp_path), max_corrupt=0.5)
    assert data.train.labels is not None and data.train.labels.tolist() == [0] * 5 + [1] * 5


def test_more_than_tolerated_is_an_error(tmp_path: Path) -> None:
    pictures(tmp_path, 7)
    spoil(tmp_path)
    with pytest.raises(DataError) as refused:
        open_data(str(tmp_path))
    message = str(refused.value)
    assert message.startswith("3 of 10 images cannot be decoded: ") and "a_text.jpg" in message
    assert message.endswith("the share may be 0.01: remove them, or raise --max-corrupt")


def test_lazy_images_lose_bad_headers_now_and_keep_a_tolerance(tmp_path: Path) -> None:
    pictures(tmp_path / "train", 27)
    pictures(tmp_path / "val", 3)
    spoil(tmp_path / "train")
    data = open_data(str(tmp_path), max_corrupt=0.1, memory_limit_bytes=0)
    assert isinstance(data.train, LazySource)
    assert len(data.train) == 28 and data.train.tolerance == 1  # the cut file's header is intact
    with pytest.raises(DataError, match=r"c_cut.png cannot be decoded: "):
        data.train.load(27)


def test_nothing_but_corrupt_files(tmp_path: Path) -> None:
    spoil(tmp_path)
    with pytest.raises(DataError, match="of 3 images cannot be decoded"):
        open_data(str(tmp_path), max_corrupt=1)


def test_an_empty_folder_and_one_image_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no images under {tmp_path}; expected files such as .jpg"):
        open_data(str(tmp_path))
    picture(tmp_path / "1.png")
    with pytest.raises(DataError, match="has 1 image; at least 2 are needed"):
        open_data(str(tmp_path))


# ---------------------------------------------------------------- parquet


def write_parquet(path: Path, n: int, **columns: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = [{"bytes": encoded(i), "path": None} for i in range(n)]
    pq.write_table(pa.table({"image": image, **columns}), path)


def test_hub_style_parquet(tmp_path: Path) -> None:
    write_parquet(tmp_path / "data" / "train-00000-of-00002.parquet", 3, label=[0, 1, None])
    write_parquet(tmp_path / "data" / "train-00001-of-00002.parquet", 2, label=[1, 1])
    write_parquet(tmp_path / "data" / "validation-00000-of-00001.parquet", 4, label=[0, 1, 0, 1])
    write_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", 1, label=[-1])
    data = open_data(str(tmp_path))
    assert isinstance(data.train, MemorySource)
    assert data.train.images[:, 0, 0, 0].tolist() == [0, 1, 2, 0, 1]
    assert data.train.labels is not None and data.train.labels.tolist() == [0, 1, -1, 1, 1]
    assert data.held_out.labels is not None and data.held_out.labels.tolist() == [0, 1, 0, 1]


def test_parquet_labels_may_be_words_or_missing(tmp_path: Path) -> None:
    write_parquet(tmp_path / "words" / "all.parquet", 4, label=["b", "a", "b", None])
    words = open_data(str(tmp_path / "words"), memory_limit_bytes=0)
    assert words.train.classes == ["a", "b"]
    write_parquet(tmp_path / "bare.parquet", 4)
    bare = open_data(str(tmp_path / "bare.parquet"))
    assert bare.train.labels is bare.held_out.labels is None
    assert bare.name == "bare"


def test_parquet_with_corrupt_rows(tmp_path: Path) -> None:
    cells = [encoded(i) for i in range(9)] + [b"not an image", None]
    pq.write_table(pa.table({"img": cells}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"img": cells[:9]}), tmp_path / "test.parquet")
    data = open_data(str(tmp_path), max_corrupt=0.1)
    assert (len(data.train), len(data.held_out)) == (9, 9)
    assert any("train.parquet 'img' row 9, " in note for note in data.notes)


def test_large_parquet_with_large_row_groups_is_mapped_through_datasets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_rows, "READ_AT_ONCE_BYTES", 0)
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 10)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    write_parquet(tmp_path / "set" / "train.parquet", 5)
    data = open_data(str(tmp_path / "set"), memory_limit_bytes=0)
    assert {int(data.train.load(i)[0, 0, 0]) for i in range(4)} < {0, 1, 2, 3, 4}
    assert pickle.loads(pickle.dumps(data.train)).load(2).shape == (3, 5, 5)


def test_parquet_that_is_none_or_holds_none(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "train.parquet")
    with pytest.raises(DataError, match=r"train.parquet has no image column; its columns are x, y"):
        open_data(str(tmp_path))
    (tmp_path / "train.parquet").write_text("words")
    with pytest.raises(DataError, match=r"train.parquet cannot be read as parquet"):
        open_data(str(tmp_path))


@pytest.mark.skipif(not CIFAR.is_dir(), reason=f"no CIFAR-10 under {CIFAR}")
def test_cifar10_from_the_hub() -> None:
    data = open_data("cifar10", root=CIFAR.parent, limit=512)
    assert isinstance(data.train, MemorySource)
    assert data.train.images.shape == (512, 3, 32, 32) and len(data.held_out) == 512
    assert data.train.classes is not None and data.train.classes[:2] == ["airplane", "automobile"]
    assert data.train.labels is not None and len(np.unique(data.train.labels)) == 10
    assert data.train.mean == (0.4914, 0.4822, 0.4465)
    assert abs(data.train.images[:, 0].float().mean().item() / 255 - 0.4914) < 0.02
    assert open_data(str(CIFAR), limit=4).train.mean == IMAGENET_MEAN  # a folder is not known by its name


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("name", [name for name, known in DATA.items() if not known.needs_download])
def test_embedded_sets(name: str) -> None:
    data, known = open_data(name), DATA[name]
    assert isinstance(data.train, MemorySource)
    assert len(data.train) == known.images and data.train.image_size == (known.size, known.size)
    assert data.train.classes is not None and len(data.train.classes) == known.classes
    assert data.train.mean == data.held_out.mean
    pixels = data.train.images.double() / 255
    assert pixels.mean((0, 2, 3)).tolist() == pytest.approx(data.train.mean)
    assert pixels.transpose(0, 1).flatten(1).std(1).tolist() == pytest.approx(data.train.std)
    resized = open_data(name, image_size=24)
    assert resized.train.image_size == resized.held_out.image_size == (24, 24)


@pytest.mark.parametrize("name", [name for name, known in DATA.items() if known.needs_download])
def test_what_is_not_there_is_one_clear_line(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as refused:
        open_data(name, root=tmp_path)
    expected = f"{name} is not under {tmp_path}; add --download, or pass a folder: --data DIR"
    assert str(refused.value) == expected


def test_the_root_comes_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FULLRANK_DATA", str(tmp_path))
    for name in "ab":
        pictures(tmp_path / "tiny-imagenet" / "train" / name, 2)
    data = open_data("tiny-imagenet")
    assert data.train.name == "tiny-imagenet/train" and len(data.train) == 3
    assert "4 training images where tiny-imagenet has 100,000" in data.notes


def test_a_failed_download_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise OSError("no\nnetwork")

    monkeypatch.setattr("huggingface_hub.snapshot_download", offline)
    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", offline)
    for name in ("tiny-imagenet", "cifar10"):
        with pytest.raises(DataError, match=rf"{name} could not be downloaded \(no network\); .*--data DIR$"):
            open_data(name, root=tmp_path, download=True)


def test_stl10_as_torchvision_stores_it(tmp_path: Path) -> None:
    folder = tmp_path / STL10.base_folder
    folder.mkdir()
    rng = np.random.default_rng(0)
    sizes = {"train": 3, "unlabeled": 4, "test": 2}
    raw = {part: rng.integers(0, 255, (n, 3, 96, 96), np.uint8) for part, n in sizes.items()}
    for part, pixels in raw.items():
        pixels.tofile(folder / f"{part}_X.bin")
    np.array([1, 10, 2], np.uint8).tofile(folder / "train_y.bin")
    np.array([3, 4], np.uint8).tofile(folder / "test_y.bin")
    (folder / "class_names.txt").write_text("airplane\nbird\n")
    data = open_data("stl10", root=tmp_path)
    assert isinstance(data.train, MemorySource)
    assert data.train.labels is not None and data.train.labels.tolist() == [0, 9, 1, -1, -1, -1, -1]
    assert (data.train.images[4].numpy() == raw["unlabeled"][1].transpose(0, 2, 1)).all()
    assert data.held_out.labels is not None and data.held_out.labels.tolist() == [2, 3]
    (folder / "test_X.bin").unlink()
    with pytest.raises(DataError, match="is incomplete"):
        open_data("stl10", root=tmp_path)


def test_unknown_names_and_folders(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set 'cifar1O'; did you mean 'cifar10'\?"):
        open_data("cifar1O", root=tmp_path)
    with pytest.raises(DataError, match=r"there is no folder nowhere/at/all; pass a folder"):
        open_data("nowhere/at/all")
    file = tmp_path / "file.txt"
    file.touch()
    with pytest.raises(DataError, match=r"file.txt is not a folder; pass a folder"):
        open_data(str(file))


def test_numbers_that_make_no_sense() -> None:
    for kwargs in ({"limit": 0}, {"image_size": 0}, {"max_corrupt": 2.0}):
        with pytest.raises(UsageError, match=r"limit 0|image size 0|max_corrupt 2.0"):
            open_data("shapes", **kwargs)
