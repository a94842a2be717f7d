import numpy as np
import pytest

from models.evaluation import distances
from models.evaluation.distances import evenly, frechet, precision_recall

RANDOM = np.random.default_rng(0)


def normal(n: int, mean: float = 0.0, std: float = 1.0, f: int = 4) -> np.ndarray:
    return (mean + std * RANDOM.standard_normal((n, f))).astype(np.float32)


def test_the_distance_of_two_normal_distributions_is_that_of_the_formula() -> None:
    """In each of f dimensions (mean_a - mean_b)^2 + (std_a - std_b)^2, where the covariances commute."""
    found = frechet(normal(200_000, 0.0, 1.0), normal(200_000, 0.5, 3.0))
    assert found == pytest.approx(4 * (0.5**2 + 2.0**2), rel=0.01)


def test_the_distance_to_itself_is_nothing_and_both_ways_it_is_the_same() -> None:
    a, b = normal(300), normal(200) @ RANDOM.standard_normal((4, 4)).astype(np.float32)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a))
    assert frechet(a, b) > 0.1


def test_features_that_never_vary_have_a_distance() -> None:
    constant = np.ones((50, 4), np.float32)
    assert frechet(constant, constant + 1) == pytest.approx(4)


def test_few_images_are_further_away() -> None:
    real = normal(5000, f=16)
    assert frechet(normal(100, f=16), real) > 3 * frechet(normal(5000, f=16), real)


def test_one_distribution_is_precise_and_recalled() -> None:
    precision, recall = precision_recall(normal(1000), normal(1000))
    assert precision > 0.85
    assert recall > 0.85


def test_one_of_two_modes_is_precise_but_half_of_the_real_images_is_not_recalled() -> None:
    real = np.concatenate([normal(500, 0), normal(500, 50)])
    precision, recall = precision_recall(normal(1000, 0), real)
    assert precision > 0.85
    assert recall == pytest.approx(0.45, abs=0.06)


def test_a_mode_of_its_own_is_not_precise_but_recalls_all() -> None:
    generated = np.concatenate([normal(500, 0), normal(500, 50)])
    precision, recall = precision_recall(generated, normal(1000, 0))
    assert precision == pytest.approx(0.45, abs=0.06)
    assert recall > 0.85


def test_balls_are_as_large_as_the_distance_to_the_kth_other_point() -> None:
    """On a line: the real points 0, 1, 3, 7 have the radii 1, 1, 2, 4 for k = 1."""
    real = np.array([[0], [1], [3], [7]], np.float32)
    generated = np.array([[-1], [0.25], [11], [12.5]], np.float32)
    precision, recall = precision_recall(generated, real, k=1)
    assert precision == 0.75, "all but 12.5; 11 is on the edge, which is inside"
    assert recall == 0.5, "0 and 1; the generated points have the radii 1.25, 1.25, 1.5, 1.5"


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_the_chunks_do_not_show(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(64), normal(64, 0.7)
    whole = precision_recall(a, b)
    monkeypatch.setattr(distances, "CHUNK", chunk)
    assert precision_recall(a, b) == whole


def test_as_many_are_taken_of_both_and_from_all_of_the_larger_set() -> None:
    real = np.concatenate([normal(500, 0), normal(500, 50)])
    precision, recall = precision_recall(normal(100, 0), real)
    assert precision > 0.8
    assert recall == pytest.approx(0.45, abs=0.1)
    assert evenly(10, 5).tolist() == [0, 2, 4, 6, 8]
    assert evenly(4, 4).tolist() == [0, 1, 2, 3]


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match="more than 3 images of each kind, not 3"):
        precision_recall(normal(3), normal(100))
