"""The settings of a detector. A field left empty takes the value of its preset."""

from __future__ import annotations

from dataclasses import dataclass

from o3_lightning.errors import InputError

__all__ = ["CHANNELS", "DetectorConfig"]

CHANNELS = ("mahalanobis", "cosine", "lexical")
PRESETS: dict[str, dict[str, object]] = {
    "default": {"pooling": "mean", "channels": CHANNELS},
}


@dataclass(frozen=True)
class DetectorConfig:
    """How a detector is trained, fitted and calibrated.

    Args:
        preset: values of the fields left empty.
        encoder: "minilm" (offline), a folder, or a Hugging Face id.
        pooling: "mean", "first", "last" or "padded_mean".
        channels: which scores are added up, out of `CHANNELS`.
        max_tokens: longer prompts are cut; their segments still see everything.
        device: torch device of the encoder.
        folds: parts for cross-fitting, at least 2.
        centroids: most centroids a request keeps.
        rows_per_centroid: forget prompts behind one centroid at least, on average.
        tail: share of forget prompts allowed to get a weight below 1, in (0, 0.5).
        lexical_buckets: size of the hashed word table.
        lexical_share: weight of the request's words in the mixture with the background, in (0, 1).
    """

    preset: str = "default"
    encoder: str = "minilm"
    pooling: str = ""
    channels: tuple[str, ...] = ()
    max_tokens: int = 256
    device: str = "cpu"
    folds: int = 5
    centroids: int = 64
    rows_per_centroid: int = 3
    tail: float = 0.1
    lexical_buckets: int = 8192
    lexical_share: float = 0.9

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise InputError(
                f"expected one of {', '.join(PRESETS)}, got {self.preset!r}", field="detector.preset"
            )
        for name, value in PRESETS[self.preset].items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
