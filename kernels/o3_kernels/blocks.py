"""Block sizes and precisions shared by the operations, as functions of shapes and devices."""

import torch
from torch import Tensor

__all__ = [
    "SMALLEST_BLOCK",
    "count_blocks",
    "dot_precision",
    "next_power_of_two",
    "power_of_two",
    "processors",
    "sum_type",
]

SMALLEST_BLOCK = 16  # smallest side of a tile that tensor cores accept
CPU_PROCESSORS = 8  # assumed where kernels run in Triton's interpreter
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

    TF32 only if `torch.set_float32_matmul_precision` allows it; otherwise three TF32 products with the
    accuracy of float32, or plain float32 on devices without TF32.
    """
    if tensor.device.type != "cuda" or torch.version.hip is not None:
        return "ieee"
    if torch.cuda.get_device_capability(tensor.device)[0] < TENSOR_CORE_CAPABILITY:
        return "ieee"
    return "tf32x3" if torch.get_float32_matmul_precision() == "highest" else "tf32"


def processors(tensor: Tensor) -> int:
    """Returns the number of multiprocessors of the tensor's device."""
    if tensor.device.type != "cuda":
        return CPU_PROCESSORS
    return int(torch.cuda.get_device_properties(tensor.device).multi_processor_count)


def sum_type(tensor: Tensor) -> torch.dtype:
    """Returns the dtype of sums: float64 for float64, else float32 (half precision is never accumulated)."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
