"""Sizes and precisions that all launches share: plain functions of shapes and devices."""

import torch
from torch import Tensor

__all__ = ["count_blocks", "dot_precision", "power_of_two", "processors"]

CPU_PROCESSORS = 8  # stands for the device where kernels run in Triton's interpreter
TENSOR_CORE_CAPABILITY = 8  # first compute capability whose tensor cores take TF32


def power_of_two(size: int, low: int, high: int) -> int:
    """Returns the smallest power of two that covers the size, kept between low and high (powers of two)."""
    return min(max(1 << max(size - 1, 0).bit_length(), low), high)


def count_blocks(size: int, block: int) -> int:
    """Returns how many blocks cover the size."""
    return -(-size // block)


def dot_precision(tensor: Tensor) -> str:
    """Returns Triton's name for the arithmetic of float32 products.

    TF32 only where torch was told so (`torch.set_float32_matmul_precision`); else three TF32 products that
    together carry float32's bits, or plain float32 on devices without them.
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
