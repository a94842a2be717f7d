"""Normal noise in one kernel of a GPU, compiled by torch's jiterator when it is first drawn.

Operation by operation, Philox and Box-Muller are 177 kernels, more than many a network has: so models.sampling.noise
draws it, which stays the oracle. The kernel is used on a device only once it has drawn the very bits of that.
"""

import logging
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor
from torch.cuda import jiterator

log = logging.getLogger(__name__)

Compiled = Callable[..., tuple[Tensor, ...]]

# A block of four words of an image, and the four numbers that Box-Muller makes of them. The multiplications that could
# be fused with an addition are rounded by themselves, as torch's own kernels round them.
CODE = """
template <typename T>
void normal_of_stream_STREAM(T low, T high, T index, T row, T block, T& a, T& b, T& c, T& d) {
  unsigned int c0 = (unsigned int)block, c1 = (unsigned int)row, c2 = (unsigned int)index, c3 = STREAMu;
  unsigned int k0 = (unsigned int)low, k1 = (unsigned int)high;
  for (int round = 0; round != 10; ++round) {
    unsigned int high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    unsigned int high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  const double unit = 2.3283064365386963e-10, turn = 6.283185307179586;
  double first = sqrt(__dmul_rn(-2.0, log(__dmul_rn((double)c0 + 0.5, unit))));
  double second = sqrt(__dmul_rn(-2.0, log(__dmul_rn((double)c1 + 0.5, unit))));
  double angle = __dmul_rn(__dmul_rn((double)c2 + 0.5, unit), turn);
  double other = __dmul_rn(__dmul_rn((double)c3 + 0.5, unit), turn);
  a = __dmul_rn(first, cos(angle));
  b = __dmul_rn(second, cos(other));
  c = __dmul_rn(first, sin(angle));
  d = __dmul_rn(second, sin(other));
}
"""


def drawn(compiled: Compiled, keys: Tensor, blocks: int) -> Tensor:
    """Standard normal float64 [n, 4 * blocks] of `noise.keys` [n, 4], in the order of `noise.normal_of`."""
    low, high, index, row = keys.to(torch.float64).T[:, :, None]  # words of 32 bits, which that holds exactly
    block = torch.arange(blocks, device=keys.device, dtype=torch.float64)[None]
    return torch.cat(compiled(low, high, index, row, block), 1)


@cache
def compiled_for(stream: int, device: torch.device, expected: Callable[[Tensor], Tensor]) -> Compiled | None:
    """The kernel of a stream of noise on a device; None if it cannot be had, or has other bits than are expected.

    Args:
        stream: see models.sampling.noise.
        device: one with CUDA.
        expected: `drawn` of some keys, plainly.
    """
    keys = torch.tensor([[0, 0, 0, 0], [2**32 - 1, 2**31 - 1, 2**20, 1000], [7, 0, 1, 34]], device=device)
    try:
        kernel: Compiled = jiterator._create_multi_output_jit_fn(CODE.replace("STREAM", str(stream)), num_outputs=4)
        plain = expected(keys)
        if torch.equal(drawn(kernel, keys, plain.shape[1] // 4), plain):
            return kernel
        log.warning("on %s one kernel for noise has other bits: it is drawn operation by operation", device)
    except Exception as error:  # whatever a compiler or a device can throw
        log.warning("on %s there is no kernel for noise, so it is drawn operation by operation: %s", device, error)
    return None
