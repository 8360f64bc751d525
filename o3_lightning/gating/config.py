"""Settings of the gate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from o3_lightning.common.errors import InputError

RULES = ("routed", "max", "top_k", "sum", "last")
CHECKS = ("off", "on", "suspect")


@dataclass(frozen=True)
class GateConfig:
    """How the weights of several requests act on one prompt.

    Args:
        combine: "routed" (each request's adapter at its own weight), "max" (every adapter at the largest
            weight: the rule of the O3 paper, section 3.3), "top_k" (as routed, the largest weights only),
            "sum" (as routed, scaled down where a row's weights add up to more than 1) or "last" (the newest
            adapter alone, at the largest weight: the official code, whose one adapter is trained on from
            request to request; it belongs to adapter.mode "cumulative").
        detect: false gives every prompt the weight 1 for every request, as methods without a gate have it;
            with "cumulative" and "last" the model is then the one that such a method trains.
        top_k: how many requests may act on one prompt under "top_k"; 1 or more.
        floor: weights below this count as 0, in [0, 1); such prompts run at the base model bit for bit.
            0.01 changes an answer by less than the rounding of half precision does.
        check_answers: whether generated answers are checked for values of a forgotten subject that the
            prompt or an earlier turn names: "on", "suspect" (only where a weight, or that of an earlier turn,
            lies between `floor` and 1) or "off". On a hit the row is generated again at full weight, and
            refused if that tells it, too. Requests without stored answers are not checked.
        refuse_threshold: a prompt whose weight for a request without an adapter reaches this is refused, in
            (0, 1]; 0.5 is the middle of the weight's range.
        refusal: what a refused prompt is answered with, until the request's adapter is trained.
        refusal_confidence: probability that scored logits put on each token of the refusal, in (0, 1); the
            rest is spread evenly over the vocabulary, so that a score tells nothing about the true answer.
        timeout_seconds: longest time that the detectors may take for one call, in seconds; a row that they
            have not judged by then is refused. 0 sets no limit.
        batch_size: prompts that are answered or scored together; 1 or more.
        max_new_tokens: longest answer, in tokens; 1 or more.

    Raises:
        InputError: a field is outside its range.
    """

    combine: str = "routed"
    detect: bool = True
    top_k: int = 1
    floor: float = 0.01
    check_answers: str = "on"
    refuse_threshold: float = 0.5
    refusal: str = "I am not able to help with that question."
    refusal_confidence: float = 0.99
    timeout_seconds: float = 0.0
    batch_size: int = 32
    max_new_tokens: int = 64

    def __post_init__(self) -> None:
        if self.combine not in RULES:
            message = f"expected one of {', '.join(RULES)}, got {self.combine!r}"
            raise InputError(message, field="gate.combine")
        if self.check_answers not in CHECKS:
            message = f"expected one of {', '.join(CHECKS)}, got {self.check_answers!r}"
            raise InputError(message, field="gate.check_answers")
        for name in ("top_k", "batch_size", "max_new_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"expected 1 or more, got {getattr(self, name)}", field=f"gate.{name}")
        if not 0 <= self.timeout_seconds < math.inf:
            message = f"expected a number >= 0, got {self.timeout_seconds}"
            raise InputError(message, field="gate.timeout_seconds")
        if not 0 <= self.floor < 1:
            raise InputError(f"expected a number in [0, 1), got {self.floor}", field="gate.floor")
        if not 0 < self.refuse_threshold <= 1:
            message = f"expected a number in (0, 1], got {self.refuse_threshold}"
            raise InputError(message, field="gate.refuse_threshold")
        if not 0 < self.refusal_confidence < 1:
            message = f"expected a number in (0, 1), got {self.refusal_confidence}"
            raise InputError(message, field="gate.refusal_confidence")
        if not self.refusal.strip():
            raise InputError("expected some text, got none", field="gate.refusal")
