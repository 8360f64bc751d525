"""Definition of `orthogonality_penalty`: one product per module and earlier request."""

from collections.abc import Sequence

from torch import Tensor


def orthogonality_penalty_reference(new: Sequence[Tensor], old: Sequence[Tensor]) -> Tensor:
    """Returns the sum over modules m and earlier requests p of ||old[m][p] new[m]^T||_F^2, a scalar."""
    total = new[0].new_zeros(())
    for new_m, old_m in zip(new, old, strict=True):
        for old_mp in old_m:
            total = total + (old_mp.detach() @ new_m.T).square().sum()
    return total
