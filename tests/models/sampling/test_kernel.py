"""The kernel of noise: its text is compiled for the CPU here, with the two functions that only a GPU has."""

import ctypes
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.cuda.jiterator import _CodeParser

from models.sampling import kernel, noise

SHIM = """
#include <cmath>
using std::sqrt; using std::log; using std::cos; using std::sin;
static unsigned int __umulhi(unsigned int a, unsigned int b) { return ((unsigned long long)a * b) >> 32; }
static double __dmul_rn(double a, double b) { return a * b; }
CODE
extern "C" void of_many(long n, const double* k, double* out) {
  for (long i = 0; i != n; ++i)
    normal_of_stream_1(k[i], k[n + i], k[2 * n + i], k[3 * n + i], k[4 * n + i],
                       out[i], out[n + i], out[2 * n + i], out[3 * n + i]);
}
"""


class OnCpu:
    """What the jiterator would make of the text, for tensors of the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        assert all(tensor.dtype == torch.float64 for tensor in given), "all are of one type, and so are the outputs"
        words = np.ascontiguousarray(torch.stack(torch.broadcast_tensors(*given)).numpy())
        out = np.empty((4, *words.shape[1:]))
        pointer = ctypes.POINTER(ctypes.c_double)
        self.library.of_many(ctypes.c_long(out[0].size), words.ctypes.data_as(pointer), out.ctypes.data_as(pointer))
        return torch.from_numpy(out).unbind()


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> OnCpu:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    place = tmp_path_factory.mktemp("kernel")
    (place / "kernel.cpp").write_text(SHIM.replace("CODE", kernel.CODE.replace("STREAM", "1")))
    command = [compiler, "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-o", "kernel.so", "kernel.cpp"]
    subprocess.run(command, cwd=place, check=True)
    return OnCpu(ctypes.CDLL(str(place / "kernel.so")))


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What was found out about a device is found out anew."""
    kernel.compiled_for.cache_clear()
    yield
    kernel.compiled_for.cache_clear()


def keys() -> Tensor:
    seeds = [0, 1, 2**63 - 1, 2**32, 12345678901234]
    return torch.from_numpy(noise.keys(seeds, [0, 7, 2**20, 3, 99_999], [0, 34, 1000, 5, 9999]))


def test_torch_reads_its_text() -> None:
    parsed = _CodeParser(kernel.CODE.replace("STREAM", "2"))
    assert (parsed.function_name, parsed.return_type) == ("normal_of_stream_2", "void")
    assert parsed.template_params == "<typename T>"


def test_it_draws_what_is_drawn_operation_by_operation(compiled: OnCpu) -> None:
    """To a rounding: the library of C and torch have logarithms and sines of their own."""
    z, expected = kernel.drawn(compiled, keys(), 196), noise._drawn_plainly(keys(), noise.STEP)
    assert z.shape == expected.shape == (5, 784)
    assert torch.allclose(z, expected, rtol=1e-12, atol=1e-12)
    assert (z.float() != expected.float()).float().mean() < 0.01


@pytest.mark.usefixtures("forgotten")
@pytest.mark.parametrize(("wrong", "said"), [(None, ""), ("bits", "other bits"), ("compiler", "no kernel for noise")])
def test_it_is_used_once_it_has_drawn_the_same_bits(
    compiled: OnCpu,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wrong: str | None,
    said: str,
) -> None:
    def made(_code: str, num_outputs: int) -> OnCpu:
        assert num_outputs == 4
        if wrong == "compiler":
            raise RuntimeError("no NVRTC")
        return compiled

    monkeypatch.setattr("torch.cuda.jiterator._create_multi_output_jit_fn", made)
    cpu = torch.device("cpu")

    def expected(some: Tensor) -> Tensor:
        return kernel.drawn(compiled, some, 4) + (1e-9 if wrong == "bits" else 0.0)

    assert (kernel.compiled_for(noise.STEP, cpu, expected) is compiled) == (wrong is None)
    assert said in caplog.text
