import numpy as np
import pytest

from models.evaluation import nearest as subject
from models.evaluation.nearest import Copying, median_distance, nearest, neighbours_picture

RANDOM = np.random.default_rng(0)
TRAIN = RANDOM.integers(0, 256, (50, 6, 5, 3), dtype=np.uint8)
IMAGES = RANDOM.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)


@pytest.mark.parametrize("chunk", [1, 7, 50, 4096])
def test_the_nearest_are_those_of_all_distances(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "CHUNK", chunk)
    distances, numbers = nearest(IMAGES, TRAIN, 4)
    every = np.sqrt(((IMAGES[:, None] / 255 - TRAIN / 255) ** 2).sum((2, 3, 4)))
    assert np.allclose(distances, np.sort(every, axis=1)[:, :4], rtol=1e-12)
    assert np.array_equal(numbers, np.argsort(every, axis=1)[:, :4])


def test_a_copy_is_at_no_distance_and_one_that_differs_by_a_pixel_value_is_at_that() -> None:
    near = TRAIN[3:5].copy()
    near[1, 0, 0, 0] ^= 1
    distances, numbers = nearest(near, TRAIN, 2)
    assert numbers[:, 0].tolist() == [3, 4]
    assert distances[:, 0].tolist() == [0, 1 / 255]
    assert distances[:, 1].min() > 1


def test_copying_shows_beside_real_images_that_are_no_copies() -> None:
    fresh, test = (RANDOM.integers(0, 256, (20, 6, 5, 3), dtype=np.uint8) for _ in range(2))
    usual = median_distance(test, TRAIN)
    honest = Copying.of(fresh, TRAIN, usual)
    assert (honest.images, honest.test, honest.ratio) == (20, usual, pytest.approx(1, abs=0.1))
    assert honest.ratio == honest.samples / honest.test
    assert Copying.of(TRAIN[:20], TRAIN, usual).ratio == 0
    assert Copying.of(fresh, TRAIN, median_distance(TRAIN[:20], TRAIN)).ratio is None
    assert usual == np.median(nearest(test, TRAIN, 1)[0])


def test_the_picture_has_a_row_for_each_sample_with_its_neighbours_after_a_gap() -> None:
    picture = neighbours_picture(TRAIN[8:10], TRAIN, k=3, scale=1)
    assert picture.shape == (2 + 2 * 8, 2 + 5 * 7, 3)
    for row, number in enumerate((8, 9)):
        cells = [picture[2 + 8 * row : 8 + 8 * row, 2 + 7 * i : 7 + 7 * i] for i in range(5)]
        assert np.array_equal(cells[0], TRAIN[number])
        assert not cells[1].any()
        assert np.array_equal(cells[2], TRAIN[number]), "the nearest to a training image is itself"
        assert not np.array_equal(cells[3], TRAIN[number])
