"""`gated_lora` as two products over the rows that have a weight; the other rows are not even read."""

from collections.abc import Sequence

from torch import Tensor

__all__ = ["add_gated_lora"]

# B rows, T tokens, D width in, O width out, S stacked rank, J layers that share their input


def add_gated_lora(
    outputs: Sequence[Tensor], x: Tensor, a: Tensor, b: Sequence[Tensor], weights: Tensor
) -> None:
    """Adds to each output [B,T,O], in place, its update; rows whose weights are all zero stay as they are.

    a is [J*S,D], b holds J tensors [O,S], weights is [B,S].
    """
    active = weights.ne(0).any(1)
    everyone = bool(active.all())
    if not everyone:
        if not bool(active.any()):
            return
        rows = active.nonzero().squeeze(1)
        x, weights = x.index_select(0, rows), weights.index_select(0, rows)
    S = weights.shape[1]
    hidden = (x @ a.T).view(*x.shape[:2], len(outputs), S) * weights[:, None, None, :].to(x.dtype)
    for place, (output, b_j) in enumerate(zip(outputs, b, strict=True)):
        update = hidden[:, :, place] @ b_j.T
        if everyone:
            output += update
        else:
            output.index_add_(0, rows, update)
