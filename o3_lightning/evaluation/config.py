"""What is measured after each request."""

from __future__ import annotations

from dataclasses import dataclass

from o3_lightning.errors import InputError

__all__ = ["METRICS", "EvaluationConfig"]

METRICS = ("accuracy", "rouge_l_recall", "probability", "truth_ratio")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured after each request.

    Args:
        metrics: any of "accuracy" (the answer says the truth), "rouge_l_recall",
            "probability" (of the true answer) and "truth_ratio" (TOFU's; only where a benchmark has
            perturbed answers); at least one.
        max_new_tokens: longest generated answer, in tokens; 1 or more. TOFU uses 200.
        batch_size: prompts at a time; 1 or more. It changes the speed, not the values.
        samples: answers per split that the run keeps as text for the report; 0 keeps no text at all.

    Raises:
        InputError: an unknown metric or a number outside its range.
    """

    metrics: tuple[str, ...] = METRICS
    max_new_tokens: int = 64
    batch_size: int = 64
    samples: int = 3

    def __post_init__(self) -> None:
        unknown = [name for name in self.metrics if name not in METRICS]
        if unknown or not self.metrics:
            message = f"expected some of {', '.join(METRICS)}, got {', '.join(unknown) or 'none'}"
            raise InputError(message, field="evaluation.metrics")
        for name, least in (("max_new_tokens", 1), ("batch_size", 1), ("samples", 0)):
            if getattr(self, name) < least:
                raise InputError(
                    f"expected {least} or more, got {getattr(self, name)}", field=f"evaluation.{name}"
                )
