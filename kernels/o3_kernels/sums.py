"""The type that the operations add up in."""

import torch
from torch import Tensor

__all__ = ["sum_type"]


def sum_type(tensor: Tensor) -> torch.dtype:
    """Returns float64 for a tensor of float64, and float32 for any other: half precision is never summed."""
    return torch.float64 if tensor.dtype == torch.float64 else torch.float32
