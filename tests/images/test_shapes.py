import numpy as np

from fullrank.images.shapes import SHAPES, shapes


def test_size_type_and_balance_and_the_seed_decides() -> None:
    (images, labels), (again, labels_again) = (shapes(200, seed=3, size=20) for _ in range(2))
    assert images.shape == (200, 3, 20, 20) and images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert np.bincount(labels).tolist() == [20] * len(SHAPES)
    assert (images == again).all() and (labels == labels_again).all()
    assert (images != shapes(200, 4, size=20)[0]).any()


def test_dark_ground_bright_shape() -> None:
    images, _ = shapes(500, 0)
    brightest = images.max(1)
    assert np.median(brightest[:, 0, :]) < 50  # most of the border is ground
    assert (brightest.reshape(500, -1).max(1) > 150).all()
    lit = (brightest > 100).mean((1, 2))
    assert lit.min() > 0.02 and lit.max() < 0.5


def test_raw_pixels_tell_the_classes_in_part() -> None:
    (train, train_labels), (test, test_labels) = shapes(2000, 0), shapes(500, 1)
    a, b = train.reshape(2000, -1) / 255, test.reshape(500, -1) / 255
    nearest = ((a * a).sum(1) - 2 * b @ a.T).argmin(1)
    accuracy = (train_labels[nearest] == test_labels).mean()
    assert 0.3 < accuracy < 0.85  # neither noise nor solved: room for a representation to show


def test_every_class_is_drawn_its_own_way() -> None:
    images, labels = shapes(1000, 0)
    means = np.stack([images[labels == c].max(1).mean(0) for c in range(10)]).reshape(10, -1)
    apart = np.linalg.norm(means[:, None] - means[None], axis=2) + 1e9 * np.eye(10)
    assert apart.min() > 10
