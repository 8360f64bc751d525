"""Float32 numbers as two bfloat16 halves, which tensor cores multiply without splitting them first.

high is the number rounded to bfloat16 and low the rest rounded to bfloat16: together 16 significant bits in
the 4 bytes of the number. Split what is fixed once (a bank per fit, the earlier adapters per request).
"""

import torch
from torch import Tensor

from o3_kernels.checks import runs_on_triton


def split_halves(tensor: Tensor) -> Tensor:
    """Returns [2, *shape] in bfloat16: the high halves of a tensor, then the low ones.

    Example:
        >>> halves = split_halves(torch.tensor([1.0, 1.001]))
        >>> halves.dtype, [round(number, 6) for number in halves.float().sum(0).tolist()]
        (torch.bfloat16, [1.0, 1.000999])
    """
    numbers = tensor.detach().float()
    halves = torch.empty((2, *tensor.shape), dtype=torch.bfloat16, device=tensor.device)
    halves[0] = numbers
    halves[1] = numbers - halves[0]
    return halves


def split_on_gpu(tensor: Tensor) -> Tensor:
    """Returns `split_halves` of float32 on a GPU with Triton, which multiplies them; others as they are."""
    splits = tensor.is_cuda and tensor.dtype == torch.float32 and runs_on_triton([tensor])
    return split_halves(tensor) if splits else tensor


def are_halves(tensor: Tensor, axes: int) -> bool:
    """Whether a tensor that has some axes when it is whole is split into halves."""
    return tensor.dim() == axes + 1 and tensor.shape[0] == 2 and tensor.dtype == torch.bfloat16


def join_halves(tensor: Tensor, axes: int) -> Tensor:
    """Returns a tensor with that many axes: halves as float32, any other tensor as it is."""
    return tensor[0].float() + tensor[1] if are_halves(tensor, axes) else tensor
