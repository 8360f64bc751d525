"""Settings of the gate."""

from __future__ import annotations

from dataclasses import dataclass

from o3_lightning.common.checks import (
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    INSIDE,
    UP_TO_1,
    check_choice,
    check_ranges,
    refuse,
)

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
        timeout_seconds: longest time that reading and judging the prompts of one call may take, in seconds;
            a call that takes longer is refused. 0 sets no limit.
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
        check_choice(self, "gate", "combine", RULES)
        check_choice(self, "gate", "check_answers", CHECKS)
        check_ranges(self, "gate", top_k=AT_LEAST_1, batch_size=AT_LEAST_1, max_new_tokens=AT_LEAST_1)
        check_ranges(self, "gate", timeout_seconds=AT_LEAST_0, floor=BELOW_1)
        check_ranges(self, "gate", refuse_threshold=UP_TO_1, refusal_confidence=INSIDE)
        if not self.refusal.strip():
            refuse("gate", "refusal", "some text", "none")
