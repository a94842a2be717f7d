import pytest
import torch

from models.training.data.toy import from_points, to_points, two_gaussians


def test_the_points_are_the_two_gaussians_of_the_paper() -> None:
    images = two_gaussians(20_000)
    assert images.shape == (20_000, 2, 1, 1)
    assert images.dtype == torch.uint8
    points = to_points(images)
    lower = points[:, 0] < 0
    assert float(lower.float().mean()) == pytest.approx(0.2, abs=0.01)
    for part, mean in ((points[lower], -5.0), (points[~lower], 5.0)):
        assert part.mean(0).tolist() == pytest.approx([mean, mean], abs=0.05)
        assert torch.allclose(torch.cov(part.T), torch.eye(2), atol=0.06)
    assert torch.equal(two_gaussians(10), two_gaussians(10))
    assert not torch.equal(two_gaussians(10), two_gaussians(10, seed=1))


def test_a_point_is_kept_to_the_lattice_of_bytes() -> None:
    points = torch.tensor([[-10.0, 10.0], [0.03, -3.3], [99.0, -99.0]])
    again = to_points(from_points(points))
    assert (again[:2] - points[:2]).abs().max() <= 10 / 255 + 1e-5
    assert again[2].tolist() == [10.0, -10.0]
