from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from models.samplers.sampler import MAX_SEED
from models.sampling import noise

ONES = 0xFFFFFFFF
WORD = st.integers(0, ONES)


def words(*values: int) -> tuple[Tensor, ...]:
    return tuple(torch.tensor([value], dtype=torch.int64) for value in values)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES, ONES, ONES, ONES), (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_known_answers_of_random123(
    counter: tuple[int, ...], key: tuple[int, ...], expected: tuple[int, ...]
) -> None:
    assert tuple(int(word) for word in noise.philox(words(*counter), words(*key))) == expected
    arrays = [np.array([value], np.uint64) for value in (*counter, *key)]
    assert tuple(word.item() for word in noise.philox(arrays[:4], arrays[4:])) == expected


@given(st.tuples(WORD, WORD, WORD, WORD), st.tuples(WORD, WORD))
def test_philox_agrees_with_exact_integers(counter: tuple[int, ...], key: tuple[int, ...]) -> None:
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & ONES, (p0 >> 32) ^ c[3] ^ k[1], p0 & ONES]
        k = [(k[0] + 0x9E3779B9) & ONES, (k[1] + 0xBB67AE85) & ONES]
    assert [int(word) for word in noise.philox(words(*counter), words(*key))] == c


def test_normal_noise_is_standard_normal() -> None:
    n, size = 64, (1, 128, 128)
    z = noise.normal([7] * n, range(n), [3] * n, noise.STEP, size).double()
    count = z.numel()
    assert abs(z.mean()) < 5 / count**0.5
    assert abs(z.var() - 1) < 5 * (2 / count) ** 0.5
    assert abs((z**3).mean()) < 5 * (15 / count) ** 0.5
    assert abs((z**4).mean() - 3) < 5 * (96 / count) ** 0.5
    below = torch.tensor([-3.0, -2.0, -1.0, 0.0, 0.5, 1.5, 2.5], dtype=torch.float64)
    share = (z.flatten()[:, None] < below).double().mean(0)
    expected = torch.special.ndtr(below)
    assert torch.all((share - expected).abs() < 5 * (expected * (1 - expected) / count).sqrt())


def test_uniform_noise_is_uniform_and_never_touches_its_ends() -> None:
    u = noise.uniform([7] * 64, range(64), [0] * 64, noise.INITIAL, (1, 64, 64)).double()
    assert u.min() > 0
    assert u.max() < 1
    assert abs(u.mean() - 0.5) < 5 * (1 / 12 / u.numel()) ** 0.5
    assert abs(u.var() - 1 / 12) < 5 * (1 / 180 / u.numel()) ** 0.5


@pytest.mark.parametrize(
    "other",
    [
        (6, 2, 9, noise.STEP),
        (5 + 2**32, 2, 9, noise.STEP),
        (MAX_SEED, 2, 9, noise.STEP),
        (5, 3, 9, noise.STEP),
        (5, 2, 10, noise.STEP),
        (5, 9, 2, noise.STEP),
        (5, 2, 9, noise.KNOWN),
        (5, 2, 9, noise.INITIAL),
    ],
)
def test_noise_of_another_seed_index_row_or_stream_is_independent(other: tuple[int, int, int, int]) -> None:
    def draw(seed: int, index: int, row: int, stream: int) -> Tensor:
        return noise.normal([seed], [index], [row], stream, (1, 128, 128)).flatten()

    pair = torch.stack([draw(5, 2, 9, noise.STEP), draw(*other)])
    assert abs(torch.corrcoef(pair)[0, 1]) < 5 / 128
    assert abs(torch.corrcoef(pair.abs())[0, 1]) < 5 / 128


def test_pixels_of_one_image_are_independent_of_their_neighbours() -> None:
    n = 4096
    z = noise.normal([1] * n, range(n), [0] * n, noise.STEP, (32,)).double()
    correlation = torch.corrcoef(z.T) - torch.eye(32)
    assert correlation.abs().max() < 6 / n**0.5
    assert (torch.corrcoef(z.abs().T) - torch.eye(32)).abs().max() < 6 / n**0.5


@settings(max_examples=60, deadline=None)
@given(
    shape=st.sampled_from([(3, 5, 7), (1, 1, 1), (1, 28, 28), (3, 8, 8), (1, 3, 11), (2, 9, 13)]),
    company=st.lists(st.tuples(st.integers(0, MAX_SEED), st.integers(0, 300), st.integers(0, 500)), max_size=15),
    place=st.integers(0, 15),
    stream=st.sampled_from([noise.INITIAL, noise.STEP, noise.KNOWN]),
)
def test_bits_do_not_depend_on_the_width_or_place_in_the_batch(
    shape: tuple[int, ...], company: list[tuple[int, int, int]], place: int, stream: int
) -> None:
    mine = (123_456_789_012, 4, 17)
    place = min(place, len(company))
    batch = [*company[:place], mine, *company[place:]]
    for draw in (noise.normal, noise.uniform):
        alone = draw([mine[0]], [mine[1]], [mine[2]], stream, shape)[0]
        together = draw([b[0] for b in batch], [b[1] for b in batch], [b[2] for b in batch], stream, shape)[place]
        assert alone.shape == shape
        assert torch.equal(alone, together)


class Transcendentals(TorchDispatchMode):
    """What log, sqrt, cos and sin are given inside: how many numbers, and how far from the start of a cache line."""

    def __init__(self) -> None:
        super().__init__()
        self.given: list[tuple[int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (torch.ops.aten.log, torch.ops.aten.cos, torch.ops.aten.sin):
            self.given.append((args[0].numel(), args[0].data_ptr() % 64))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (1, 28, 28)])
def test_log_cos_and_sin_see_one_image_at_a_time(shape: tuple[int, ...]) -> None:
    """On some processors their last bit depends on how many numbers they are given and where in them one stands.

    On others it does not, and noise that was made for the whole batch at once would pass every test of bits.
    """
    with Transcendentals() as alone:
        noise.normal([7], [0], [3], noise.STEP, shape)
    with Transcendentals() as together:
        noise.normal([7] * 5, range(5), [3] * 5, noise.STEP, shape)
    assert len(alone.given) == 3
    assert set(together.given) == set(alone.given)
    assert len(together.given) == 5 * 3


@given(
    st.lists(st.tuples(st.integers(0, MAX_SEED), st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=9)
)
def test_words_made_two_at_a_time_are_those_of_philox(asked: list[tuple[int, int, int]]) -> None:
    seeds, indices, rows = zip(*asked, strict=True)
    keys = noise.keys(seeds, indices, rows)
    expected = noise._words_on_device(torch.from_numpy(keys), noise.KNOWN, 40)
    assert torch.equal(noise._bits(seeds, indices, rows, noise.KNOWN, 40, torch.device("cpu")), expected)


def test_noise_is_the_same_for_ever() -> None:
    z = noise.normal([2**40 + 3], [1], [2], noise.STEP, (1, 2, 2)).flatten()
    block, row, index, stream = words(0, 2, 1, noise.STEP)
    first = [int(word) for word in noise.philox((block, row, index, stream), words(3, 2**8))]
    u, angle = (torch.tensor([first[i]], dtype=torch.float64).add(0.5) / 2**32 for i in (0, 2))
    expected = (-2 * u.log()).sqrt() * (2 * torch.pi * angle).cos()
    assert torch.allclose(z[:1], expected.float(), rtol=1e-6)
