"""Definition of `gated_lora`: two products with a weight in between."""

from torch import Tensor


def gated_lora_reference(y: Tensor, x: Tensor, a: Tensor, b: Tensor, weights: Tensor) -> Tensor:
    """Returns y + ((x a^T) * weights[:, None, :]) b^T, of the shape and dtype of y."""
    return y + ((x @ a.T) * weights[:, None, :]) @ b.T
