"""Checks of the arguments of the operations, and the choice between Triton and PyTorch."""

import os
from collections.abc import Sequence

import torch
from torch import Tensor

TRITON_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
SWITCH = "O3_KERNELS"  # environment variable
SETTINGS = ("triton", "torch")


def check_shape(name: str, tensor: Tensor, shape: Sequence[int | None], letters: str) -> None:
    """Raises ValueError unless the tensor has the shape; None allows any size, letters name the axes."""
    fits = tensor.dim() == len(shape) and all(
        want is None or want == got for want, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if want is None else str(want) for want in shape)
        raise ValueError(f"{name} must be {letters} = [{wanted}], but its shape is {list(tensor.shape)}")


def check_floating(**tensors: Tensor) -> None:
    """Raises TypeError if one of the named tensors is not of a real floating-point dtype."""
    for name, tensor in tensors.items():
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must hold floating-point numbers, but its dtype is {tensor.dtype}")


def check_devices(tensors: Sequence[Tensor]) -> None:
    """Raises ValueError unless all tensors are on one device."""
    for tensor in tensors:
        if tensor.device != tensors[0].device:
            raise ValueError(
                f"tensors must be on one device, but {tensors[0].device} and {tensor.device} came"
            )


def runs_on_triton(tensors: Sequence[Tensor]) -> bool:
    """Whether Triton is enabled, installed and supports the dtypes (float64 is computed with PyTorch).

    The environment variable `O3_KERNELS=torch` disables Triton, for devices or drivers on which it fails.

    Raises:
        ValueError: the variable is neither "triton", "torch" nor empty.
    """
    setting = os.environ.get(SWITCH) or SETTINGS[0]
    if setting not in SETTINGS:
        raise ValueError(f"the environment's {SWITCH} must be one of {', '.join(SETTINGS)}, not {setting!r}")
    if setting == "torch":
        return False
    if any(tensor.is_floating_point() and tensor.dtype not in TRITON_DTYPES for tensor in tensors):
        return False
    try:
        import triton  # noqa: F401 - only its presence matters
    except ImportError:
        return False
    return True
