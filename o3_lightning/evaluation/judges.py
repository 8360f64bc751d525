"""Models that judge answers: a sentence encoder, an inference model, a gibberish classifier.

Each is loaded when a metric asks for it, from the disk or the Hub; safetensors only, no code of theirs runs.

Shapes: B texts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.detector.encoder import load_encoder
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.metrics.registry import Encode, Entail, RateGibberish

__all__ = ["load_encode", "load_entail", "load_gibberish"]

TEXTS_AT_ONCE = 32
SAFE = {"trust_remote_code": False}


def load_encode(config: EvaluationConfig) -> Encode:
    """Returns the sentence encoder: the mean of the last layer over the tokens, [B,D]."""
    encoder = cached_encoder(config.encoder)

    def encode(texts: Sequence[str]) -> Tensor:
        features: Tensor = encoder.encode(texts)
        return features[:, -1]

    return encode


@lru_cache(maxsize=2)
def cached_encoder(name: str) -> Any:
    """One encoder for all splits of an evaluation."""
    return load_encoder(name)


def load_entail(config: EvaluationConfig) -> Entail:
    """Returns the inference model: whether its likeliest label is an entailment."""
    classify = load_classifier(config.entailment_model, "evaluation.entailment_model", "entailment")

    def entail(premises: Sequence[str], hypotheses: Sequence[str]) -> list[bool]:
        return [bool(row.argmax() == classify.label) for row in classify.shares(premises, hypotheses)]

    return entail


def load_gibberish(config: EvaluationConfig) -> RateGibberish:
    """Returns the gibberish classifier: one minus the share of its label "clean"."""
    classify = load_classifier(config.gibberish_model, "evaluation.gibberish_model", "clean")

    def rate(texts: Sequence[str]) -> list[float]:
        return [1 - float(row[classify.label]) for row in classify.shares(texts, None)]

    return rate


class Classifier:
    """A text classifier and the number of the label that is asked for."""

    def __init__(self, model: Any, tokenizer: Any, label: int) -> None:
        self.model, self.tokenizer, self.label = model, tokenizer, label

    @torch.no_grad()
    def shares(self, texts: Sequence[str], pairs: Sequence[str] | None) -> list[Tensor]:
        """Returns the probability of each label, text by text."""
        rows: list[Tensor] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = slice(start, start + TEXTS_AT_ONCE)
            second = None if pairs is None else list(pairs[part])
            batch = self.tokenizer(
                list(texts[part]), second, padding=True, truncation=True, return_tensors="pt"
            )
            rows.extend(self.model(**batch).logits.softmax(-1))
        return rows


@lru_cache(maxsize=2)
def load_classifier(name: str, field: str, label: str) -> Classifier:
    """Loads a classifier that has a label of this name.

    Raises:
        InputError: it cannot be loaded, or has no such label.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, **SAFE)
        model: Any = AutoModelForSequenceClassification.from_pretrained(name, use_safetensors=True, **SAFE)
    except (OSError, ValueError) as error:
        raise InputError(f"'{name}' cannot be loaded: {' '.join(str(error).split())}", field=field) from error
    labels = {str(text).lower(): int(number) for number, text in model.config.id2label.items()}
    if label not in labels:
        raise InputError(f"expected a label '{label}', '{name}' has {', '.join(labels)}", field=field)
    return Classifier(model.eval(), tokenizer, labels[label])
