"""The penalty and its gradient on a CPU, computed in blocks of earlier adapters.

The gradient is 2 sum_p (old_p new^T)^T old_p, one more product of the same overlaps. Storing it instead of
the overlaps reduces the backward pass to a scaling, for any number of earlier requests; histories so short
that reading them again is cheaper than the scaling are left to autograd. A block fits into the cache of a
core, so that each earlier adapter is read from memory once for both products: several modules of one shape
for short histories, some rows for long ones, and at least one module per thread, because a product of so few
rows does not parallelise. docs/results/kernels.md gives the bound by memory bandwidth.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from o3_kernels.blocks import sum_type
from o3_kernels.halves import are_halves, join_halves, split_on_gpu

# P earlier requests, R rank of the new adapter, Q rank of an earlier one, D width

HISTORY_AXES = 3  # of earlier adapters [P,Q,D]; their halves have one more
CACHE_BYTES = 1 << 19  # of earlier adapters per block and thread: a quarter of the cache of a server core
SHORT_HISTORY = 4  # earlier rows per new row; above it, scaling a stored gradient was measured to be faster
Gradients = list[tuple[list[int], Tensor]]  # modules and their gradients, stacked or flat and concatenated


def group_modules(
    new: Sequence[Tensor], old: Sequence[Tensor], most_bytes: int | None = None
) -> list[list[int]]:
    """Groups modules with equal shapes of new and old tensors.

    Groups with more modules than threads have at most `most_bytes` of old tensors.
    """
    members: dict[tuple[torch.Size, torch.Size, torch.dtype], list[int]] = {}
    for module, (new_m, old_m) in enumerate(zip(new, old, strict=True)):
        members.setdefault((new_m.shape, old_m.shape, old_m.dtype), []).append(module)
    if most_bytes is None:
        return list(members.values())
    groups = []
    for modules in members.values():
        first = old[modules[0]]
        most = max(most_bytes // max(first.numel() * first.element_size(), 1), torch.get_num_threads())
        groups += [modules[start : start + most] for start in range(0, len(modules), most)]
    return groups


def stack_history(old: Sequence[Tensor]) -> list[Tensor]:
    """Returns copies of earlier adapters, one [P,Q,D] per module, contiguous in memory, one block per shape.

    On a CPU `orthogonality_penalty` uses such tensors without copying; it copies others on every call. On a
    GPU float32 is stored as `split_halves`, [2,P,Q,D] in bfloat16, of the same size, which the kernel
    multiplies without splitting. Call this function once per request, before its training.

    Example:
        >>> first, second = stack_history([torch.ones(2, 3, 4), torch.zeros(2, 3, 4)])
        >>> first.untyped_storage().data_ptr() == second.untyped_storage().data_ptr()
        True
    """
    stacked: list[Tensor] = list(old)
    for modules in group_modules(old, old):
        block = split_on_gpu(torch.stack([old[m].detach() for m in modules]))
        parts = block.unbind(int(are_halves(block, 1 + HISTORY_AXES)))
        for module, tensor in zip(modules, parts, strict=True):
            stacked[module] = tensor
    return stacked


def side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """Stacks tensors of one shape: a view if they are evenly spaced in one storage, otherwise a copy."""
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
) -> tuple[Tensor, Gradients]:
    """Returns the penalty and the gradient [m,R,D] of each group of modules (none if not needed).

    Half precision is computed in float32.
    """
    dtype = sum_type(new[0])
    old = [join_halves(tensor, HISTORY_AXES) for tensor in old]
    block_bytes = CACHE_BYTES * torch.get_num_threads() if new[0].device.type == "cpu" else 1 << 40
    squares, gradients = [], []
    for modules in group_modules(new, old, block_bytes):
        new_mRD = side_by_side([new[module] for module in modules]).to(dtype)
        old_mND = side_by_side([old[module] for module in modules]).flatten(1, 2)
        row_bytes = len(modules) * old_mND.shape[2] * old_mND.element_size()
        gradient_mRD = new_mRD.new_empty(new_mRD.shape if need_gradient else 0)
        blocks = torch.split(old_mND, max(block_bytes // max(row_bytes, 1), 1), dim=1)
        for number, rows_mND in enumerate(blocks):
            block_mND = rows_mND.to(dtype)
            overlap_mRN = new_mRD @ block_mND.mT
            squares.append(overlap_mRN.flatten().dot(overlap_mRN.flatten()))
            if need_gradient:
                gradient_mRD.baddbmm_(overlap_mRN, block_mND, beta=min(number, 1), alpha=2)
        if need_gradient:
            gradients.append((modules, gradient_mRD))
    return torch.stack(squares).sum(), gradients


def orthogonality_penalty_vectorised(
    new: Sequence[Tensor], old: Sequence[Tensor], need_gradient: bool
) -> tuple[Tensor, Tensor]:
    """Returns the penalty and the concatenated gradients of `new`, each in its layout, in float32 or 64.

    The gradients are empty if they are not needed; transposed adapters have transposed gradients.
    """
    penalty, gradients = penalty_by_group(new, old, need_gradient)
    sizes = [tensor.numel() for tensor in new] if need_gradient else [0]
    gradient = torch.empty(sum(sizes), dtype=sum_type(new[0]), device=new[0].device)
    pieces = torch.split(gradient, sizes)
    transposed = are_transposed(new)
    for modules, part_mRD in gradients:
        flat = (part_mRD.mT if transposed else part_mRD).flatten(1)
        torch._foreach_copy_([pieces[module] for module in modules], list(flat.unbind()))
    return penalty, gradient


def are_transposed(new: Sequence[Tensor]) -> bool:
    """Whether all new adapters, and so their gradients, are transposed views: those of the output side."""
    return all(tensor.T.is_contiguous() for tensor in new) and not all(t.is_contiguous() for t in new)


def is_short(new: Sequence[Tensor], old: Sequence[Tensor]) -> bool:
    """Whether reading the earlier adapters again is as cheap as scaling a stored gradient."""
    earlier = sum(tensor.shape[-3] * tensor.shape[-2] for tensor in old)
    return earlier <= SHORT_HISTORY * sum(len(tensor) for tensor in new)


def penalty_of_short_history(new: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """Returns the penalty from one product per shape; autograd stores the overlaps and reads `old` twice."""
    dtype, old = sum_type(new[0]), [join_halves(tensor, HISTORY_AXES) for tensor in old]
    squares = []
    for modules in group_modules(new, old):
        old_mND = side_by_side([old[module] for module in modules]).flatten(1, 2).to(dtype)
        overlap_mRN = torch.stack([new[module] for module in modules]).to(dtype) @ old_mND.mT
        squares.append(overlap_mRN.square().sum())
    return torch.stack(squares).sum()
