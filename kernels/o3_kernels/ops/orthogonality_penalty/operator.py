"""The public call `orthogonality_penalty`: checks, device choice, gradient and registration with torch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from o3_kernels.checks import check_devices, check_floating, check_shape, runs_on_triton
from o3_kernels.ops.orthogonality_penalty.vectorised import (
    GroupedPenalty,
    is_short,
    orthogonality_penalty_vectorised,
    penalty_of_short_history,
)
from o3_kernels.sums import sum_type

__all__ = ["orthogonality_penalty"]


def orthogonality_penalty(new: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """Returns the sum over modules m and earlier requests p of ||old[m][p] new[m]^T||_F^2.

    The gradient flows into `new` only. It is computed together with the value, so that only modules x rank x
    width numbers are kept for the backward pass, however many requests came before.
    For the output side pass B^T [R,O] of each module instead of A [R,D].

    Args:
        new: one [R,D] tensor a module, all of one dtype; widths and ranks may differ between modules.
        old: one [P,Q,D] tensor a module, P earlier requests of rank Q; P may be 0.

    Returns:
        A scalar, at least 0, in float32, or in float64 where `new` is.

    Raises:
        ValueError: the lists are empty or of different lengths, shapes do not fit, or devices differ.
        TypeError: a tensor does not hold floating-point numbers, or the dtypes of `new` differ.

    Source:
        Orthogonality loss of the O3 paper over all earlier requests, as its code has it (the text takes the
        previous one only); unlike both, no mean over layers is taken here: scale the result.

    Example:
        >>> new, old = [torch.tensor([[1.0, 0.0]])], [torch.tensor([[[3.0, 4.0]]])]
        >>> orthogonality_penalty(new, old).item()
        9.0
    """
    new, old = list(new), list(old)
    _check(new, old)
    old = [tensor.detach() for tensor in old]
    on_cpu = new[0].device.type == "cpu"
    if not torch.compiler.is_compiling():
        # a registered operator takes its toll for every tensor: milliseconds for the modules of a model
        if on_cpu and is_short(new, old):
            return penalty_of_short_history(new, old)
        direct: Tensor = (GroupedPenalty if on_cpu else _FusedPenalty).apply(old, *new)  # type: ignore[no-untyped-call]
        return direct
    need_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in new)
    penalty: Tensor = _orthogonality_penalty(new, old, need_gradient)[0]
    return penalty


class _FusedPenalty(torch.autograd.Function):
    """Value and flat gradient in one go; the backward pass scales it in place and cuts it, as on a CPU."""

    @staticmethod
    def forward(ctx: Any, old: Sequence[Tensor], *new: Tensor) -> Tensor:
        penalty, ctx.gradient = _on_device(new, old, any(ctx.needs_input_grad[1:]))
        ctx.old = old
        ctx.save_for_backward(*new)
        return penalty

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_penalty: Tensor) -> tuple[Tensor | None, ...]:
        new = ctx.saved_tensors
        gradient = _on_device(new, ctx.old, True)[1] if ctx.gradient is None else ctx.gradient
        ctx.gradient = None
        return None, *_split(gradient.mul_(grad_penalty), [tensor.shape for tensor in new])


def _check(new: list[Tensor], old: list[Tensor]) -> None:
    """Refuses what the operation is not defined for."""
    if _fits(new, old):
        return
    if len(new) != len(old) or not new:
        raise ValueError(
            f"new and old must hold one tensor for each module, but {len(new)} and {len(old)} came"
        )
    for module, (new_m, old_m) in enumerate(zip(new, old, strict=True)):
        check_shape(f"new[{module}]", new_m, (None, None), "[R,D]")
        check_shape(f"old[{module}]", old_m, (None, None, new_m.shape[1]), "[P,Q,D]")
        check_floating(**{f"new[{module}]": new_m, f"old[{module}]": old_m})
        if new_m.dtype != new[0].dtype:
            raise TypeError(f"all of new must have one dtype, but {new[0].dtype} and {new_m.dtype} came")
    check_devices([*new, *old])


def _fits(new: list[Tensor], old: list[Tensor]) -> bool:
    """Tells whether all is well, which `_check` would take a millisecond to find for a model's modules."""
    if not new or len(new) != len(old):
        return False
    one_kind = len({t.device for t in (*new, *old)}) == len({t.dtype for t in new}) == 1
    return one_kind and all(
        new_m.dim() == 2
        and old_m.dim() == 3
        and new_m.size(1) == old_m.size(2)
        and new_m.is_floating_point()
        and old_m.is_floating_point()
        for new_m, old_m in zip(new, old, strict=True)
    )


def _split(gradient: Tensor, shapes: Sequence[torch.Size]) -> list[Tensor]:
    """Cuts the flat gradient into one tensor a module."""
    pieces = torch.split(gradient, [shape.numel() for shape in shapes])
    return [piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)]


@torch.library.custom_op("o3_kernels::orthogonality_penalty", mutates_args=())
def _orthogonality_penalty(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, Tensor]:
    return orthogonality_penalty_vectorised(new, old, need_gradient)


@_orthogonality_penalty.register_fake
def _orthogonality_penalty_fake(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, Tensor]:
    size = sum(tensor.numel() for tensor in new) if need_gradient else 0
    return new[0].new_empty((), dtype=sum_type(new[0])), new[0].new_empty(size)


@_orthogonality_penalty.register_kernel("cuda")
def _orthogonality_penalty_cuda(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, Tensor]:
    return _on_device(new, old, need_gradient)


def _on_device(new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool) -> tuple[Tensor, Tensor]:
    """Computes with what the device offers."""
    if new[0].device.type != "cuda" or not runs_on_triton([*new, *old]):
        return orthogonality_penalty_vectorised(new, old, need_gradient)
    from o3_kernels.ops.orthogonality_penalty.launch import launch_orthogonality_penalty

    return launch_orthogonality_penalty(new, old, need_gradient)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Keeps the gradient that the forward pass computed; it is a result, not a path for further gradients."""
    new, old, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.shapes, ctx.earlier = [tensor.shape for tensor in new], len(old)


def _backward(ctx: Any, grad_penalty: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    """Scales the kept gradient."""
    (gradient,) = ctx.saved_tensors
    return _split(gradient * grad_penalty.to(gradient.dtype), ctx.shapes), [None] * ctx.earlier, None


torch.library.register_autograd("o3_kernels::orthogonality_penalty", _backward, setup_context=_setup_context)
