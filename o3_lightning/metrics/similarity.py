"""Semantic similarity of answer and truth, judged by models that the caller provides.

Shapes: B examples, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from o3_lightning.metrics.registry import Encode, Entail, Kind, metric
from o3_lightning.metrics.text import rouge_l_recall

__all__ = ["cosine_similarity", "entailment"]

LEAST_ROUGE = 0.1


@metric(
    "cosine_similarity",
    "answers",
    "truths",
    "encode",
    meaning="cosine of the sentence embeddings of answer and truth",
)
def cosine_similarity(answers: Sequence[str], truths: Sequence[str], encode: Encode) -> list[float]:
    """Returns max(0, cos) of the sentence embeddings of answer and truth; B values in [0, 1].

    Args:
        answers: B generated texts.
        truths: B true answers.
        encode: the sentence encoder; closer-look uses `paraphrase-MiniLM-L6-v2`.

    Raises:
        ValueError: the lists differ in length, or the encoder does not give one row per text.

    Source:
        closer-look `metrics.py`, `eval_cosine_similarity`.

    Example:
        >>> cosine_similarity(["a"], ["b"], lambda texts: torch.ones(len(texts), 1))
        [1.0]
    """
    if len(answers) != len(truths):
        raise ValueError(f"expected as many truths as answers ({len(answers)}), got {len(truths)}")
    if not answers:
        return []
    embedded = encode([*answers, *truths]).double()
    if embedded.ndim != 2 or len(embedded) != 2 * len(answers):
        raise ValueError(f"expected embeddings [{2 * len(answers)}, D], got {list(embedded.shape)}")
    similar = torch.cosine_similarity(embedded[: len(answers)], embedded[len(answers) :], dim=1)
    values: list[float] = similar.clamp(0, 1).tolist()
    return values


@metric(
    "entailment",
    "answers",
    "truths",
    "entail",
    "kind",
    meaning="whether answer and truth entail each other, by an inference model",
)
def entailment(
    answers: Sequence[str],
    truths: Sequence[str],
    entail: Entail,
    kind: Kind,
    least_rouge: float = LEAST_ROUGE,
) -> list[float]:
    """Returns 1.0 where one of answer and truth entails the other, else 0.0; B values.

    Args:
        answers: B generated texts.
        truths: B true answers.
        entail: the inference model; closer-look uses `sileod/deberta-v3-base-tasksource-nli`.
        kind: "forget" asks whether the answer entails the truth, "keep" whether the truth entails the answer.
            closer-look's real-world benchmark asks the first on every split.
        least_rouge: answers with a lower ROUGE-L recall count as 0.0, whatever the model says; without a
            ROUGE value the model alone decides.

    Raises:
        ValueError: the lists differ in length, or the model gives another number of values.

    Source:
        closer-look `metrics.py`, `get_entailment_results`.

    Example:
        >>> entailment(["in Paris"], ["Paris"], lambda premises, hypotheses: [True], "forget")
        [1.0]
    """
    close = rouge_l_recall(answers, truths)
    premises, hypotheses = (answers, truths) if kind == "forget" else (truths, answers)
    entailed = list(entail(premises, hypotheses))
    if len(entailed) != len(answers):
        raise ValueError(f"expected {len(answers)} values of the inference model, got {len(entailed)}")
    return [
        float(bool(found) and (recall is None or recall >= least_rouge))
        for found, recall in zip(entailed, close, strict=True)
    ]
