"""The statistics of requests that `layer_scores` uses, and their checks."""

from typing import NamedTuple

import torch
from torch import Tensor

from o3_kernels.checks import check_devices, check_floating, check_shape
from o3_kernels.halves import are_halves

TILE_AXES = 4  # of whitening and bank; their halves have one more
SMALLEST_DISTANCE = torch.finfo(torch.float32).eps  # lower bound of the squared distance in whitened cosines


class RequestStatistics(NamedTuple):
    """Statistics of K requests at L layers of width D; the fields are the arguments of `layer_scores`."""

    means: Tensor | None
    precision_scale: Tensor
    whitening: Tensor
    bank: Tensor
    bank_mask: Tensor | None
    maha_weights: Tensor
    cosine_weights: Tensor
    whitening_sign: int = -1
    whiten_cosine: bool = False

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors that are not None."""
        return [tensor for tensor in self[:7] if isinstance(tensor, Tensor)]


def check_statistics(features: Tensor, statistics: RequestStatistics) -> None:
    """Raises the errors of `layer_scores`, for features [B,L,D]."""
    means, bank, mask = statistics.means, statistics.bank, statistics.bank_mask
    L, D = features.shape[1:]
    whitening, bank = (
        tiles[0] if are_halves(tiles, TILE_AXES) else tiles for tiles in (statistics.whitening, bank)
    )
    check_shape("whitening", whitening, (None, L, None, D), "[K,L,R,D]")
    K = len(whitening)
    check_shape("precision_scale", statistics.precision_scale, (K, L), "[K,L]")
    if means is not None:
        check_shape("means", means, (K, L, D), "[K,L,D]")
    check_shape("bank", bank, (K, L, None, D), "[K,L,M,D]")
    check_shape("maha_weights", statistics.maha_weights, (K, L), "[K,L]")
    check_shape("cosine_weights", statistics.cosine_weights, (K, L), "[K,L]")
    numbers = {name: tensor for name, tensor in statistics._asdict().items() if isinstance(tensor, Tensor)}
    numbers.pop("bank_mask", None)
    check_floating(features=features, **numbers)
    if mask is not None:
        check_shape("bank_mask", mask, (K, bank.shape[2]), "[K,M]")
        if mask.dtype != torch.bool:
            raise TypeError(f"bank_mask must hold bool, but its dtype is {mask.dtype}")
    check_devices([features, *statistics.tensors])
    if statistics.whitening_sign not in (-1, 1):
        raise ValueError(f"whitening_sign must be -1 or 1, but {statistics.whitening_sign} came")
