"""What a metric is: a name, what it needs, how it is computed, which way is better.

Shapes: B examples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from o3_lightning.metrics.evidence import Evidence, Kind

__all__ = ["Direction", "Metric", "Need", "Values"]

Direction = Literal["lower", "higher"]
Need = Literal[
    "answers",
    "answer_tokens",
    "token_scores",
    "paraphrased_losses",
    "perturbed_losses",
    "reference_losses",
    "gradient_norms",
    "choices",
    "encode",
    "entail",
    "rate_gibberish",
]
Values = Sequence[float | None]


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: how configurations and results call it; "metric@version" where sources define it differently.
        needs: fields of `Evidence` that have to be there.
        compute: from the evidence of a split to B values; None where an example has no value.
        forget: which way is better on a split that is to be forgotten; None where neither is: a membership
            value says something only against unseen data, a raw truth ratio only against a retrained model.
        keep: which way is better on a utility split, or None.
        meaning: one sentence for people.
    """

    name: str
    needs: tuple[Need, ...]
    compute: Callable[[Evidence], Values]
    forget: Direction | None
    keep: Direction | None
    meaning: str

    def direction(self, kind: Kind) -> Direction | None:
        """Returns which way is better on a split of this kind."""
        return self.forget if kind == "forget" else self.keep
