"""The penalty and its gradient on a CPU, block by block of earlier adapters.

The gradient is 2 sum_p (old_p new^T)^T old_p: one more product while the overlaps are at hand. Keeping
it instead of the overlaps makes the backward pass a single scaling, whatever the number of earlier requests;
a history so short that it is read faster than a gradient is scaled is left to autograd, which reads it twice.
A block is some rows of one module that fit the processors' own caches, so that each earlier adapter comes
from memory once for both products. The first product is cut into pieces of the width: each thread multiplies
columns of its own, the same ones as in the second product, and reads them from memory a tenth faster. What is
left is that way of reading, two thirds as fast as a plain sum (README, "Kernels").
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from o3_kernels.sums import sum_type

__all__ = [
    "GroupedPenalty",
    "group_modules",
    "is_short",
    "orthogonality_penalty_vectorised",
    "penalty_of_short_history",
    "stack_history",
]

# P earlier requests, R rank of the new adapter, Q rank of an earlier one, D width, K pieces of C columns

BLOCK_BYTES = (
    1 << 19
)  # of earlier adapters in a block, for each thread: a quarter of a server core's own cache
LEAST_ROWS = 16  # of a block: products of fewer run at half the speed
PIECE = 256  # columns of a piece, measured; products of half as many are several times slower
SHORT_HISTORY = 4  # earlier rows for each new one; beyond, measured, scaling a gradient is the cheaper


def group_modules(new: Sequence[Tensor], old: Sequence[Tensor]) -> list[list[int]]:
    """Groups modules whose new and old tensors have equal shapes."""
    members: dict[tuple[torch.Size, torch.Size, torch.dtype], list[int]] = {}
    for module, (new_m, old_m) in enumerate(zip(new, old, strict=True)):
        members.setdefault((new_m.shape, old_m.shape, old_m.dtype), []).append(module)
    return list(members.values())


def stack_history(old: Sequence[Tensor]) -> list[Tensor]:
    """Returns copies of the earlier adapters that lie side by side in memory, one block for each shape.

    `orthogonality_penalty` reads such tensors where they are; tensors that lie apart it copies on every call
    on a CPU. Call it once for each request, before its training.

    Args:
        old: one [P,Q,D] tensor a module.

    Returns:
        Tensors of the same shapes and values in the same order.

    Example:
        >>> first, second = stack_history([torch.ones(2, 3, 4), torch.zeros(2, 3, 4)])
        >>> first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
        True
    """
    stacked: list[Tensor] = list(old)
    for modules in group_modules(old, old):
        for module, tensor in zip(modules, torch.stack([old[m].detach() for m in modules]), strict=True):
            stacked[module] = tensor
    return stacked


def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """Stacks tensors of one shape: a view where they lie evenly in one storage, a copy elsewhere."""
    first = tensors[0]
    if len(tensors) == 1:
        return first.unsqueeze(0)
    step = tensors[1].storage_offset() - first.storage_offset()
    storage = first.untyped_storage().data_ptr()
    even = step > 0 and all(
        tensor.untyped_storage().data_ptr() == storage
        and tensor.storage_offset() == first.storage_offset() + place * step
        and tensor.stride() == first.stride()
        for place, tensor in enumerate(tensors)
    )
    if even:
        return first.as_strided((len(tensors), *first.shape), (step, *first.stride()))
    return torch.stack(list(tensors))


def penalty_by_group(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, list[tuple[list[int], Tensor]]]:
    """Returns the penalty and, for each group of modules, its gradient [m,R,D] (none if not needed).

    Half precision is computed in float32.
    """
    dtype = sum_type(new[0])
    block_bytes = BLOCK_BYTES * torch.get_num_threads()
    squares, gradients = [], []
    for modules in group_modules(new, old):
        R, D = new[modules[0]].shape
        # in one piece: many small ones go back to the system after every step, and come again page by page
        gradient_mRD = new[0].new_empty(len(modules) if need_gradient else 0, R, D, dtype=dtype)
        rows = max(block_bytes // max(D * old[modules[0]].element_size(), 1), LEAST_ROWS)
        for place, module in enumerate(modules):
            new_RD = new[module].to(dtype)
            for number, rows_ND in enumerate(torch.split(old[module].flatten(0, 1), rows)):
                block_ND = rows_ND.to(dtype)
                overlap_RN = _overlap(new_RD, block_ND)
                squares.append(overlap_RN.flatten().dot(overlap_RN.flatten()))
                if need_gradient:
                    gradient_mRD[place].addmm_(overlap_RN, block_ND, beta=min(number, 1), alpha=2)
        if need_gradient:
            gradients.append((modules, gradient_mRD))
    return torch.stack(squares).sum(), gradients


def _overlap(new_RD: Tensor, old_ND: Tensor) -> Tensor:
    """Returns new old^T, [R,N], summed over pieces of the width where it has whole ones."""
    pieces, rest = divmod(new_RD.shape[1], PIECE)
    if rest:
        return new_RD @ old_ND.T
    new_KRC = new_RD.reshape(len(new_RD), pieces, PIECE).transpose(0, 1)
    old_KCN = old_ND.reshape(len(old_ND), pieces, PIECE).permute(1, 2, 0)
    return torch.bmm(new_KRC, old_KCN).sum(0)


def orthogonality_penalty_vectorised(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Returns the penalty and, one module after the other, its gradient for `new` (empty if not needed)."""
    penalty, gradients = penalty_by_group(new, old, need_gradient)
    sizes = [tensor.numel() for tensor in new] if need_gradient else [0]
    gradient = torch.empty(sum(sizes), dtype=new[0].dtype, device=new[0].device)
    pieces = torch.split(gradient, sizes)
    for modules, part_mRD in gradients:
        torch._foreach_copy_([pieces[module] for module in modules], list(part_mRD.flatten(1).unbind()))
    return penalty, gradient


def is_short(new: Sequence[Tensor], old: Sequence[Tensor]) -> bool:
    """Tells whether reading the earlier adapters again costs no more than scaling a kept gradient."""
    earlier = sum(tensor.shape[0] * tensor.shape[1] for tensor in old)
    return earlier <= SHORT_HISTORY * sum(len(tensor) for tensor in new)


def penalty_of_short_history(new: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """Returns the penalty from one product a shape; autograd keeps the overlaps and reads `old` twice."""
    dtype = sum_type(new[0])
    squares = []
    for modules in group_modules(new, old):
        old_mND = side_by_side([old[module] for module in modules]).flatten(1, 2).to(dtype)
        overlap_mRN = torch.stack([new[module] for module in modules]).to(dtype) @ old_mND.mT
        squares.append(overlap_mRN.square().sum())
    return torch.stack(squares).sum()


class GroupedPenalty(torch.autograd.Function):
    """The same with its gradient, without the toll that a registered operator takes for every tensor.

    The backward pass scales the kept gradient where it lies and gives it away; if it is asked again, it
    computes another.
    """

    @staticmethod
    def forward(ctx: Any, old: Sequence[Tensor], *new: Tensor) -> Tensor:
        """Computes value and gradient; keeps the gradient."""
        penalty, ctx.gradients = penalty_by_group(new, old, any(ctx.needs_input_grad[1:]))
        ctx.old = old
        ctx.save_for_backward(*new)
        return penalty

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_penalty: Tensor) -> tuple[Tensor | None, ...]:
        """Scales the gradient."""
        new = ctx.saved_tensors
        gradients = ctx.gradients or penalty_by_group(new, ctx.old, True)[1]
        ctx.gradients = None
        results: list[Tensor | None] = [None] * len(new)
        for modules, part_mRD in gradients:
            parts = part_mRD.mul_(grad_penalty).to(new[0].dtype).unbind()
            for module, result in zip(modules, parts, strict=True):
                results[module] = result
        return None, *results
