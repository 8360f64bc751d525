"""What is measured after each request."""

from __future__ import annotations

from dataclasses import dataclass, field

from o3_lightning.attacks.config import RobustnessConfig
from o3_lightning.common.errors import InputError
from o3_lightning.metrics.registry import METRICS as KNOWN_METRICS

__all__ = ["METRICS", "EvaluationConfig"]

METRICS = ("accuracy", "rouge_l_recall", "probability", "truth_ratio@tofu")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured after each request.

    Args:
        metrics: names out of `o3_lightning/metrics/catalogue.py`, such as "accuracy" (the answer says the
            truth), "rouge_l_recall", "probability" (of the true answer), "truth_ratio@tofu",
            "extraction_strength" or "mia_min_k"; at least one. The default leaves out a truth ratio where
            a benchmark has no perturbed answers; a metric that was asked for and that no split allows is an
            error.
        max_new_tokens: longest generated answer, in tokens; 1 or more. TOFU uses 200.
        batch_size: prompts at a time; 1 or more. It changes the speed, not the values.
        samples: answers per split that the run keeps as text for the report; 0 keeps no text at all.
        encoder: sentence encoder of "cosine_similarity": "minilm" (the packaged one) or a Hugging Face id or
            folder; closer-look takes paraphrase-MiniLM-L6-v2.
        entailment_model: Hugging Face id or folder of the inference model of "entailment"; closer-look takes
            sileod/deberta-v3-base-tasksource-nli. Empty: there is none, and the metric is an error.
        gibberish_model: the same for "gibberish": a text classifier with a label "clean".
        robustness: what `evaluate --robustness` tries.

    Raises:
        InputError: an unknown metric or a number outside its range.
    """

    metrics: tuple[str, ...] = METRICS
    max_new_tokens: int = 64
    batch_size: int = 64
    samples: int = 3
    encoder: str = "minilm"
    entailment_model: str = ""
    gibberish_model: str = ""
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)

    def __post_init__(self) -> None:
        check_names(self.metrics, tuple(KNOWN_METRICS.names()), "evaluation.metrics")
        for name, least in (("max_new_tokens", 1), ("batch_size", 1), ("samples", 0)):
            check_range(getattr(self, name) >= least, f"{least} or more", getattr(self, name), name)


def check_names(names: tuple[str, ...], known: tuple[str, ...], field: str) -> None:
    """Refuses an empty list and a name that is not known."""
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        message = f"expected some of {', '.join(known)}, got {', '.join(unknown) or 'none'}"
        raise InputError(message, field=field)


def check_range(good: bool, expected: str, value: object, name: str) -> None:
    """Refuses a value that is not good."""
    if not good:
        raise InputError(f"expected {expected}, got {value}", field=f"evaluation.{name}")
