"""`gated_lora` as two products over the rows with a nonzero weight; other rows are not read."""

from collections.abc import Sequence

from torch import Tensor

# B rows, T tokens, D width in, O width out, S stacked rank, J layers that share their input


def live_rows(weights: Tensor) -> Tensor:
    """Returns the indices of the rows of weights [B,S] with a nonzero weight; synchronises a GPU.

    Compute it once for layers with the same weights, and pass it to `gated_lora`.

    Example:
        >>> import torch
        >>> live_rows(torch.tensor([[0.5, 0.0], [0.0, 0.0], [0.0, 1.0]])).tolist()
        [0, 2]
    """
    return weights.ne(0).any(1).nonzero().squeeze(1)


def add_gated_lora(
    outputs: Sequence[Tensor],
    x: Tensor,
    a: Tensor,
    b: Sequence[Tensor],
    weights: Tensor,
    live: Tensor | None = None,
) -> None:
    """Adds the updates to the outputs [B,T,O] in place; rows whose weights are all zero are not changed.

    a is [J*S,D], b contains J tensors [O,S], weights is [B,S], live is `live_rows(weights)`.
    """
    live = live_rows(weights) if live is None else live
    if not len(live):
        return
    all_live = len(live) == len(weights)
    if not all_live:
        x, weights = x.index_select(0, live), weights.index_select(0, live)
    rows, T, D = x.shape
    J, S = len(outputs), weights.shape[1]
    hidden = (x.reshape(rows * T, D) @ a.T).view(rows, T, J, S) * weights[:, None, None, :].to(x.dtype)
    hidden = hidden.view(rows * T, J, S)
    for layer, (output, b_j) in enumerate(zip(outputs, b, strict=True)):
        update = (hidden[:, layer] @ b_j.T).view(rows, T, output.shape[2])
        if all_live:
            output += update
        else:
            output.index_add_(0, live, update)
