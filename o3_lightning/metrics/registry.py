"""The registry of metrics, and the evidence that they read; the decorator `metric` registers a function.

A metric gives one value per example of one split. What compares two splits or two models starts from these
values: `metrics.quality` and `metrics.membership`.

Shapes: B examples of the split, P perturbed answers of an example, D width of an embedding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeVar

from o3_lightning.common.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from o3_lightning.metrics.token_scores import TokenScores

Kind = Literal["forget", "keep"]
Direction = Literal["lower", "higher"]
Values = Sequence[float | None]
Function = TypeVar("Function", bound=Callable[..., Values])
Encode = Callable[[Sequence[str]], "Tensor"]
"""Texts to embeddings [B, D] of any length."""
Entail = Callable[[Sequence[str], Sequence[str]], Sequence[bool]]
"""Premises and hypotheses [B] to whether each premise entails its hypothesis."""
Rate = Callable[[Sequence[str]], Sequence[float]]
"""Texts to the probability in [0, 1] that each is gibberish, or toxic."""


@dataclass(frozen=True)
class Evidence:
    """What was collected from a model on one split; a field that was not collected is None.

    Args:
        kind: "forget" for a split that is to be forgotten, "keep" for utility.
        prompts: B prompts.
        truths: B true answers.
        answers: B generated answers.
        answer_tokens: tokens (ids or pieces) of each generated answer, without the end token.
        token_scores: B scores of the true answers.
        paraphrased_losses: B mean losses per token of the paraphrased true answer, nats; the loss of the
            true answer where an example has no paraphrase.
        perturbed_losses: per example P >= 1 mean losses per token of its wrong answers, nats.
        reference_losses: B mean losses per token of the true answers under a reference model, nats.
        gradient_norms: B values of `metrics.membership.gradient_norm`.
        short_gradient_norms: the same without the last token of each answer.
        tests: Python that the program in each answer has to pass.
        choices: options of each example, "A" first; the true answer names one of them.
        encode: a sentence encoder.
        entail: a natural-language-inference model.
        rate_gibberish: a gibberish classifier.
        rate_toxicity: a toxicity classifier.
    """

    kind: Kind
    prompts: Sequence[str]
    truths: Sequence[str]
    answers: Sequence[str] | None = None
    answer_tokens: Sequence[Sequence[int | str]] | None = None
    token_scores: Sequence[TokenScores] | None = None
    paraphrased_losses: Sequence[float] | None = None
    perturbed_losses: Sequence[Sequence[float]] | None = None
    reference_losses: Sequence[float] | None = None
    gradient_norms: Sequence[float] | None = None
    short_gradient_norms: Sequence[float] | None = None
    tests: Sequence[str] | None = None
    choices: Sequence[Sequence[str]] | None = None
    encode: Encode | None = None
    entail: Entail | None = None
    rate_gibberish: Rate | None = None
    rate_toxicity: Rate | None = None

    @property
    def losses(self) -> list[float]:
        """B mean losses per token of the true answers, nats."""
        if self.token_scores is None:
            raise ValueError("the evidence has no token_scores")
        return [scores.loss for scores in self.token_scores]


NEEDS = tuple(field.name for field in fields(Evidence) if field.default is None)
"""The fields of `Evidence` that are None unless they were collected."""


@dataclass(frozen=True)
class Metric:
    """A registered metric; the fields are the arguments of `metric`."""

    name: str
    function: Callable[..., Values]
    arguments: tuple[str, ...]
    forget: Direction | None
    keep: Direction | None
    meaning: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Evidence` that must not be None."""
        fields = ("token_scores" if name == "losses" else name for name in self.arguments)
        return tuple(name for name in fields if name in NEEDS)

    def direction(self, kind: Kind) -> Direction | None:
        """Returns the better direction on a split of this kind; None if neither is better."""
        return self.forget if kind == "forget" else self.keep


MODULES = ("text", "likelihood", "membership", "tasks")
NAMES = (
    "accuracy rouge1_recall rouge1_f1 rouge_l_recall rouge_l_f1 cosine_similarity entailment "
    "entailment@real_world token_entropy repetition toxicity gibberish multiple_choice probability "
    "perplexity normalised_probability truth_ratio_raw truth_ratio@tofu truth_ratio@openunlearning "
    "truth_ratio@closer_look truth_ratio@prob_mean exact_memorization extraction_strength@openunlearning "
    "extraction_strength mia_zlib mia_min_k mia_min_k_plus_plus mia_reference mia_loss mia_gradient_norm "
    "mia_gradient_norm@openunlearning entity_f1@PER entity_f1@LOC entity_f1@ORG entity_f1@MISC gsm8k "
    "pass_at_1"
)
METRICS: Registry[Metric] = Registry(
    "metric", [f"o3_lightning.metrics.{module}" for module in MODULES], NAMES.split()
)


def metric(
    name: str,
    *arguments: str,
    meaning: str,
    forget: Direction | None = "lower",
    keep: Direction | None = "higher",
) -> Callable[[Function], Function]:
    """Returns a decorator that registers a function as a metric and returns it unchanged.

    Args:
        name: in configurations and results; "metric@version" where sources define it differently.
        arguments: the fields or properties of `Evidence` that the function takes, in order, such as
            "answers", "truths", "losses" or "token_scores". It returns B values, None where an example has
            no value.
        meaning: one sentence for reports.
        forget: the better direction on a forget split. None if neither is better: a membership value has a
            meaning only against unseen data, a raw truth ratio only against a retrained model.
        keep: the better direction on a utility split, or None.

    Raises:
        ValueError: an argument that `Evidence` does not have, or another metric has the name.

    Example:
        >>> @metric("words", "answers", forget=None, keep=None, meaning="answer length")  # doctest: +SKIP
        ... def count_words(answers):
        ...     return [float(len(answer.split())) for answer in answers]
    """
    known = {"losses", *(field.name for field in fields(Evidence))}
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise ValueError(f"metric '{name}': expected arguments out of {sorted(known)}, got {unknown}")

    def add(function: Function) -> Function:
        METRICS.register(name)(Metric(name, function, arguments, forget, keep, meaning))
        return function

    return add


def needs_of(names: Iterable[str]) -> set[str]:
    """Returns all fields of `Evidence` that the named metrics need; InputError for an unknown name."""
    return {need for name in names for need in METRICS[name].needs}


def measure(name: str, evidence: Evidence) -> Values:
    """Returns a metric's value of each example, None where an example has none.

    Raises:
        InputError: no metric has this name.
        ValueError: the evidence lacks a field that the metric needs; the message names it.

    Example:
        >>> measure("rouge1_recall", Evidence("keep", ["Where?"], ["in Paris"], answers=["Paris"]))
        [0.5]
    """
    if lacking := [need for need in METRICS[name].needs if getattr(evidence, need) is None]:
        raise ValueError(f"metric {name!r} needs {', '.join(lacking)}, which the evidence lacks")
    found = METRICS[name]
    return found.function(*(getattr(evidence, argument) for argument in found.arguments))
