"""The public call `orthogonality_penalty`: checks, device choice, gradient and registration with torch."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from o3_kernels.blocks import sum_type
from o3_kernels.checks import check_devices, check_floating, check_shape, runs_on_triton
from o3_kernels.halves import are_halves
from o3_kernels.ops.orthogonality_penalty.vectorised import (
    HISTORY_AXES,
    Gradients,
    are_transposed,
    is_short,
    orthogonality_penalty_vectorised,
    penalty_by_group,
    penalty_of_short_history,
)


def orthogonality_penalty(new: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """Returns the sum over modules m and earlier requests p of ||old[m][p] new[m]^T||_F^2.

    Only `new` has a gradient. It is computed with the value, so that the backward pass needs one tensor of
    the size of `new`, for any number of earlier requests. For the output side pass B^T [R,O] of each module
    instead of A [R,D].

    Args:
        new: one [R,D] tensor per module, all of one dtype; widths and ranks may differ between modules.
        old: one [P,Q,D] tensor per module, P earlier requests of rank Q; P may be 0. `stack_history` makes
            them faster to read; on a GPU it returns float32 as `split_halves`, [2,P,Q,D].

    Returns:
        A scalar, at least 0, in float32, or in float64 if `new` is. On a GPU numbers enter products with 16
        significant bits, so that it and each gradient are within 1e-5 of the largest number.

    Raises:
        ValueError: the lists are empty or of different lengths, shapes do not match, or devices differ.
        TypeError: a tensor is not floating-point, or the dtypes of `new` differ.

    Source:
        Orthogonality loss of the O3 paper over all earlier requests, as in its code (its text uses the
        previous request only); unlike both, the result is a sum, not a mean, over layers.

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
        # a registered operator has an overhead per tensor: milliseconds for the modules of a model
        if on_cpu and is_short(new, old):
            return penalty_of_short_history(new, old)
        direct: Tensor = Penalty.apply(penalty_by_group if on_cpu else penalty_on_device, old, *new)  # type: ignore[no-untyped-call]
        return direct
    need_gradient = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in new)
    penalty: Tensor = _orthogonality_penalty(new, old, need_gradient)[0]
    return penalty


class Penalty(torch.autograd.Function):
    """Computes the gradient with the value, without the overhead of a registered operator.

    The backward pass scales it in place and releases it; a second one computes it again.
    """

    @staticmethod
    def forward(
        ctx: Any,
        compute: Callable[[Sequence[Tensor], Sequence[Tensor], bool], tuple[Tensor, Gradients]],
        old: Sequence[Tensor],
        *new: Tensor,
    ) -> Tensor:
        """Returns the penalty; stores its gradient if one is needed."""
        penalty, ctx.gradients = compute(new, old, any(ctx.needs_input_grad[2:]))
        ctx.compute, ctx.old = compute, old
        ctx.save_for_backward(*new)
        return penalty

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_penalty: Tensor) -> tuple[Tensor | None, ...]:
        """Returns the stored gradient, scaled."""
        new = ctx.saved_tensors
        gradients = ctx.gradients or ctx.compute(new, ctx.old, True)[1]
        ctx.gradients = None
        results: list[Tensor | None] = [None] * len(new)
        for modules, gradient in gradients:
            scaled = gradient.mul_(grad_penalty).to(new[0].dtype)
            flat = scaled.dim() == 1
            parts = _split(scaled, [new[module] for module in modules]) if flat else scaled.unbind()
            for module, part in zip(modules, parts, strict=True):
                results[module] = part
        return None, None, *results


def penalty_on_device(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, Gradients]:
    """Returns the penalty and the gradient of all modules, with the best implementation for the device."""
    penalty, gradient = _on_device(new, old, need_gradient)
    return penalty, [(list(range(len(new))), gradient)]


def _check(new: list[Tensor], old: list[Tensor]) -> None:
    """Raises the errors of `orthogonality_penalty`."""
    if _fits(new, old):
        return
    if len(new) != len(old) or not new:
        raise ValueError(
            f"new and old must contain one tensor per module, but {len(new)} and {len(old)} came"
        )
    for module, (new_m, old_m) in enumerate(zip(new, old, strict=True)):
        check_shape(f"new[{module}]", new_m, (None, None), "[R,D]")
        whole = old_m[0] if are_halves(old_m, HISTORY_AXES) else old_m
        check_shape(f"old[{module}]", whole, (None, None, new_m.shape[1]), "[P,Q,D]")
        check_floating(**{f"new[{module}]": new_m, f"old[{module}]": old_m})
        if new_m.dtype != new[0].dtype:
            raise TypeError(f"all of new must have one dtype, got {new[0].dtype} and {new_m.dtype}")
    check_devices([*new, *old])


def _fits(new: list[Tensor], old: list[Tensor]) -> bool:
    """Whether the arguments are valid; `_check` alone would take a millisecond for the modules of a model."""
    if not new or len(new) != len(old):
        return False
    one_kind = len({t.device for t in (*new, *old)}) == len({t.dtype for t in new}) == 1
    return one_kind and all(
        new_m.dim() == 2
        and (old_m.dim() == HISTORY_AXES or are_halves(old_m, HISTORY_AXES))
        and new_m.size(1) == old_m.size(-1)
        and new_m.is_floating_point()
        and old_m.is_floating_point()
        for new_m, old_m in zip(new, old, strict=True)
    )


def _split(gradient: Tensor, new: Sequence[Tensor]) -> list[Tensor]:
    """Splits the concatenated gradient into one tensor per module, of the layout of the modules."""
    pieces = torch.split(gradient, [tensor.numel() for tensor in new])
    if are_transposed(new):
        return [piece.view(tensor.T.shape).T for piece, tensor in zip(pieces, new, strict=True)]
    return [piece.view(tensor.shape) for piece, tensor in zip(pieces, new, strict=True)]


def _on_device(new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool) -> tuple[Tensor, Tensor]:
    """Computes the penalty and the concatenated gradient with Triton if possible."""
    if new[0].device.type != "cuda" or not runs_on_triton([*new, *old]):
        return orthogonality_penalty_vectorised(new, old, need_gradient)
    from o3_kernels.ops.orthogonality_penalty.launch import launch_orthogonality_penalty

    return launch_orthogonality_penalty(new, old, need_gradient)


@torch.library.custom_op("o3_kernels::orthogonality_penalty", mutates_args=())
def _orthogonality_penalty(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, Tensor]:
    return _on_device([tensor.contiguous() for tensor in new], old, need_gradient)


@_orthogonality_penalty.register_fake
def _orthogonality_penalty_fake(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, Tensor]:
    size = sum(tensor.numel() for tensor in new) if need_gradient else 0
    dtype, empty = sum_type(new[0]), new[0].new_empty
    return empty((), dtype=dtype), empty(size, dtype=dtype)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Stores the gradient, which is not differentiable itself."""
    new, old, _ = inputs
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])
    ctx.shapes, ctx.dtype, ctx.earlier = [tensor.shape for tensor in new], new[0].dtype, len(old)


def _backward(ctx: Any, grad_penalty: Tensor, _: Tensor | None) -> tuple[Any, ...]:
    """Scales the stored gradient."""
    (gradient,) = ctx.saved_tensors
    scaled = (gradient * grad_penalty).to(ctx.dtype)
    pieces = torch.split(scaled, [shape.numel() for shape in ctx.shapes])
    views = [piece.view(shape) for piece, shape in zip(pieces, ctx.shapes, strict=True)]
    return views, [None] * ctx.earlier, None


torch.library.register_autograd("o3_kernels::orthogonality_penalty", _backward, setup_context=_setup_context)
