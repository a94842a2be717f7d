"""Memory of a device: whether it was short of it, and how what the host has made gets there."""

import torch
from torch import Tensor

# What is said, for want of a class of its own, by torch's allocator on a CPU, the driver, cuBLAS, and cuDNN; the last
# when it has no algorithm that needs so little.
WORDS = (
    "can't allocate memory",
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",
)


def out_of_memory(error: Exception) -> bool:
    """Whether there was too little memory for what failed, so that less of it may succeed."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in str(error) for words in WORDS)


def sent(tensor: Tensor, device: torch.device) -> Tensor:
    """The host's tensor on a device. The host does not wait for a GPU: it is the device's own work that does."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)  # its memory is kept until the copy is done
