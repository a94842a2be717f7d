import pytest
import torch

from models.sampling.memory import out_of_memory, sent


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB"),
        MemoryError(),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes."),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("GET was unable to find an engine to execute this computation"),
    ],
)
def test_too_little_memory_is_known_by_its_class_or_its_words(error: Exception) -> None:
    assert out_of_memory(error)


def test_another_error_is_not_taken_for_it() -> None:
    assert not out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


def test_to_a_cpu_a_tensor_is_sent_as_it_is() -> None:
    tensor = torch.arange(6).reshape(2, 3).T
    assert torch.equal(sent(tensor, torch.device("cpu")), tensor)
