"""The memory that training an adapter takes on a GPU, from the shape of a model that is not at hand."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["LLAMA_2_7B", "LLAMA_3_8B", "ModelShape", "training_memory"]

RANK = 8  # of the adapter
FLOAT32, BFLOAT16, NF4 = 4.0, 2.0, 0.55  # bytes of a number; NF4 with its doubly quantised scales
OPTIMIZER_COPIES = 4  # weight, gradient and AdamW's two moments
LIVE_WIDTHS, LIVE_INNER = 12, 4  # [B, T, width] and [B, T, inner] tensors alive in one layer's backward pass


@dataclass(frozen=True)
class ModelShape:
    """What decides the memory of a Llama-class model.

    Args:
        layers: decoder layers.
        width: hidden size.
        inner: of the feed-forward part.
        vocabulary: tokens.
        key_value: width of keys and values, less than `width` with grouped queries.
    """

    layers: int
    width: int
    inner: int
    vocabulary: int
    key_value: int

    @property
    def linear(self) -> int:
        """Weights of the decoder layers, their norms left out."""
        layer = 2 * self.width * (self.width + self.key_value) + 3 * self.width * self.inner
        return self.layers * layer

    @property
    def embeddings(self) -> int:
        """Weights of the embedding and of the output layer, which does not share them."""
        return 2 * self.vocabulary * self.width

    def adapter(self, rank: int) -> int:
        """Weights of an adapter on all seven projections."""
        attention = 2 * (2 * self.width) + 2 * (self.width + self.key_value)
        return self.layers * rank * (attention + 3 * (self.width + self.inner))


LLAMA_2_7B = ModelShape(32, 4096, 11008, 32000, 4096)
LLAMA_3_8B = ModelShape(32, 4096, 14336, 128256, 1024)


def training_memory(shape: ModelShape, rows: int, tokens: int, *, bits: int = 16, shards: int = 1) -> float:
    """Returns the bytes that training an adapter takes on one GPU, activations recomputed layer by layer.

    Counted are the frozen weights, the adapter with gradient and AdamW's moments, one [B, T, width] tensor a
    layer, what one layer's backward pass keeps alive, and the logits with their float32 copy, log-softmax and
    gradient. It has not been measured on a GPU yet; leave a tenth for fragmentation.

    Args:
        shape: of the model.
        rows: B, on this GPU.
        tokens: T of a row.
        bits: of a frozen weight of the decoder layers, 16 or 4; embedding and output layer keep 16.
        shards: GPUs that the frozen weights are spread over; one layer is then whole beside its part.

    Example:
        >>> round(training_memory(LLAMA_2_7B, rows=4, tokens=256) / 2**30, 1)
        13.7
    """
    frozen = shape.linear * (BFLOAT16 if bits == 16 else NF4) + shape.embeddings * BFLOAT16
    if shards > 1:
        frozen = frozen / shards + frozen / shape.layers
    adapter = shape.adapter(RANK) * FLOAT32 * OPTIMIZER_COPIES
    place = rows * tokens
    kept = shape.layers * place * shape.width * BFLOAT16
    layer = place * (LIVE_WIDTHS * shape.width + LIVE_INNER * shape.inner) * BFLOAT16
    logits = place * shape.vocabulary * (BFLOAT16 + 3 * FLOAT32)
    return frozen + adapter + kept + layer + logits
