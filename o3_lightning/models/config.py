"""The shape and training of the small base models that are trained here."""

from dataclasses import dataclass

__all__ = ["FictitiousBaseConfig"]


@dataclass(frozen=True)
class FictitiousBaseConfig:
    """The embedded base model's shape and training; tuned for seconds on two cores at full accuracy.

    Args:
        layers: transformer blocks.
        width: hidden size.
        feed_forward: inner size of the feed-forward part.
        heads: attention heads.
        context_tokens: longest sequence.
        vocabulary: entries of the byte-level tokenizer at most, special ones included; the text gives
            about 1,700, so that most words are one token.
        epochs: passes over the rows.
        common_repeats: how often a pass shows each common fact; these have fewer phrasings than the
            authors' facts and are learnt last.
        batch_size: rows per step.
        learning_rate: peak of AdamW, reached after warm-up and brought down by a cosine.
        weight_decay: of AdamW.
        second_moment: AdamW's beta_2, lower than usual because there are few steps.
        warmup_fraction: part of all steps with a rising learning rate.
        clip: largest gradient norm.
        threads: processor threads; one gives the same weights whatever the number of cores, and suffers
            least from other work on the machine.
    """

    layers: int = 4
    width: int = 192
    feed_forward: int = 448
    heads: int = 6
    context_tokens: int = 256
    vocabulary: int = 2048
    epochs: int = 14
    common_repeats: int = 4
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    second_moment: float = 0.95
    warmup_fraction: float = 0.05
    clip: float = 1.0
    threads: int = 1
