"""Block sizes and precisions shared by the operations, as functions of shapes and devices."""

from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache

import torch
from torch import Tensor

SMALLEST_BLOCK = 16  # smallest side of a tile that tensor cores accept
CPU_PROCESSORS = 8  # assumed where kernels run in Triton's interpreter
EARLY_CAPABILITY = 9  # first compute capability with programmatic dependent launch
TENSOR_CORE_CAPABILITY = 8  # first compute capability whose tensor cores take TF32


def next_power_of_two(size: int) -> int:
    """Returns the smallest power of two that is at least the size."""
    return 1 << max(size - 1, 0).bit_length()


def power_of_two(size: int, low: int, high: int) -> int:
    """Returns the smallest power of two that is at least the size, limited to [low, high]."""
    return min(max(next_power_of_two(size), low), high)


def count_blocks(size: int, block: int) -> int:
    """Returns the number of blocks that cover the size."""
    return -(-size // block)


def dot_precision(tensor: Tensor) -> str:
    """Returns the `input_precision` of float32 products in Triton.

    TF32 only if `torch.backends.cuda.matmul.fp32_precision` or `torch.set_float32_matmul_precision` allows
    it; otherwise three TF32 products with the accuracy of float32, or plain float32 on devices without TF32.
    """
    if not tensor.is_cuda or _properties(tensor.device)[0] < TENSOR_CORE_CAPABILITY:
        return "ieee"
    return "tf32" if allows_tf32() else "tf32x3"


def allows_tf32() -> bool:
    """Whether torch is set to multiply float32 in TF32, by its newer or else its older setting."""
    setting = getattr(torch.backends.cuda.matmul, "fp32_precision", "none")
    if setting == "none":
        return bool(torch.get_float32_matmul_precision() != "highest")
    return bool(setting == "tf32")


def device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Returns a context in which the tensor's device is current: Triton launches on the current device."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def launches_early(tensor: Tensor) -> dict[str, bool]:
    """Returns the option with which a kernel starts while the one before it ends (Hopper and later)."""
    early = tensor.is_cuda and _properties(tensor.device)[0] >= EARLY_CAPABILITY
    return {"launch_pdl": True} if early else {}


def processors(tensor: Tensor) -> int:
    """Returns the number of multiprocessors of the tensor's device."""
    return _properties(tensor.device)[1] if tensor.is_cuda else CPU_PROCESSORS


@lru_cache
def _properties(device: torch.device) -> tuple[int, int]:
    """Returns the major compute capability of a GPU, 0 if it is not NVIDIA's, and its multiprocessors."""
    properties = torch.cuda.get_device_properties(device)
    return 0 if torch.version.hip else properties.major, properties.multi_processor_count


def sum_type(tensor: Tensor) -> torch.dtype:
    """Returns the dtype of sums: float64 for float64, else float32 (half precision is never accumulated)."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
