"""Classifiers that judge texts, loaded from disk or the Hub: safetensors only, no remote code."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError

TEXTS_AT_ONCE = 32
SAFE = {"trust_remote_code": False}


def load_classifier(
    name: str, field: str, head: str = "AutoModelForSequenceClassification"
) -> tuple[Any, Any]:
    """Returns a classifier in evaluation mode and its tokenizer.

    Args:
        name: Hugging Face id or folder.
        field: of the configuration, named in the error.
        head: the class of `transformers` that loads the model.

    Raises:
        InputError: the model cannot be loaded.
    """
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, **SAFE)
        model = getattr(transformers, head).from_pretrained(name, use_safetensors=True, **SAFE)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"'{name}' cannot be loaded: {' '.join(str(error).split())}", field=field) from error
    return model.eval().requires_grad_(False), tokenizer


def probabilities(model: Any, logits: Tensor) -> Tensor:
    """Returns the probability of each label, [labels]: independent ones where a text may have several."""
    several = getattr(model.config, "problem_type", None) == "multi_label_classification"
    return logits.sigmoid() if several or len(logits) == 1 else logits.softmax(-1)


@torch.no_grad()
def classify(
    model: Any, tokenizer: Any, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> list[Tensor]:
    """Returns the logits [labels] of each text, or of each text with its pair, in float32."""
    device, rows = next(model.parameters()).device, []
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        part = slice(start, start + TEXTS_AT_ONCE)
        second = () if pairs is None else (list(pairs[part]),)
        batch = tokenizer(list(texts[part]), *second, padding=True, truncation=True, return_tensors="pt")
        rows.extend(model(**batch.to(device)).logits.float())
    return rows
