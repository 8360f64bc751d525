"""What a text says: normal form, readings, spans and word frequencies, without any encoder."""

from o3_lightning.detector.text.normalise import normalise_text

__all__ = ["normalise_text"]
