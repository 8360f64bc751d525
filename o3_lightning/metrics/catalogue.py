"""The metrics of one split, listed; `metrics.registry` finds them by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from o3_lightning.metrics import choice, fluency, likelihood, membership, memorization, similarity, text
from o3_lightning.metrics.evidence import Evidence
from o3_lightning.metrics.likelihood import TruthRatioVersion
from o3_lightning.metrics.metric import Metric, Need, Values

__all__ = ["LISTED"]


def of_texts(function: Callable[[Sequence[str], Sequence[str]], Values], evidence: Evidence) -> Values:
    """A metric of answers and truths."""
    return function(given(evidence.answers), evidence.truths)


def of_scores(function: Callable[[Any], Values], evidence: Evidence) -> Values:
    """A metric of the true answers' token scores."""
    return function(given(evidence.token_scores))


def of_tokens(function: Callable[[Any], Values], evidence: Evidence) -> Values:
    """A metric of the generated answers' tokens."""
    return function(given(evidence.answer_tokens))


def given(field: Any) -> Any:
    """A field that `registry.measure` has found to be there."""
    assert field is not None
    return field


def raw_truth_ratio(evidence: Evidence, version: TruthRatioVersion = "tofu") -> list[float]:
    """The raw ratios of a version."""
    losses = given(evidence.paraphrased_losses)
    return likelihood.truth_ratio(losses, given(evidence.perturbed_losses), version)


def read_truth_ratio(evidence: Evidence, version: TruthRatioVersion) -> list[float]:
    """A version's reading of its raw ratios."""
    return likelihood.truth_ratio_quality(raw_truth_ratio(evidence, version), evidence.kind, version)


TRUTH_RATIO_NEEDS: tuple[Need, ...] = ("paraphrased_losses", "perturbed_losses")
ROUGE: tuple[tuple[str, Any, Any, str], ...] = (
    ("rouge1_recall", "rouge1", "recall", "share of the truth's words in the answer"),
    ("rouge1_f1", "rouge1", "fmeasure", "F1 of the words that answer and truth share"),
    ("rouge_l_recall", "rougeL", "recall", "share of the truth's words in the answer, in order"),
    ("rouge_l_f1", "rougeL", "fmeasure", "F1 of the words that answer and truth share in order"),
)
LISTED = (
    Metric(
        "accuracy",
        ("answers",),
        partial(of_texts, text.accuracy),
        "lower",
        "higher",
        "whether the answer says the truth",
    ),
    *(
        Metric(
            name,
            ("answers",),
            partial(of_texts, partial(text.rouge, kind=kind, part=part)),
            "lower",
            "higher",
            meaning,
        )
        for name, kind, part, meaning in ROUGE
    ),
    Metric(
        "multiple_choice",
        ("answers", "choices"),
        lambda evidence: choice.multiple_choice(
            given(evidence.answers), evidence.truths, given(evidence.choices)
        ),
        "lower",
        "higher",
        "whether the answer names the right option; no value where it names none",
    ),
    Metric(
        "probability",
        ("token_scores",),
        lambda evidence: likelihood.probability(evidence.losses),
        "lower",
        "higher",
        "probability of the true answer, per token",
    ),
    Metric(
        "normalised_probability",
        ("token_scores", "perturbed_losses"),
        lambda evidence: likelihood.normalised_probability(evidence.losses, given(evidence.perturbed_losses)),
        "lower",
        "higher",
        "probability of the true answer among the given answers",
    ),
    Metric(
        "truth_ratio_raw",
        TRUTH_RATIO_NEEDS,
        raw_truth_ratio,
        None,
        None,
        "how much likelier wrong answers are than the true one",
    ),
    Metric(
        "truth_ratio@tofu",
        TRUTH_RATIO_NEEDS,
        partial(read_truth_ratio, version="tofu"),
        "higher",
        "higher",
        "TOFU: min(R, 1/R) on what is forgotten, max(0, 1 - R) on what is kept",
    ),
    Metric(
        "truth_ratio@openunlearning",
        TRUTH_RATIO_NEEDS,
        partial(read_truth_ratio, version="openunlearning"),
        "higher",
        "higher",
        "as TOFU's, with 1e-10 in both denominators",
    ),
    Metric(
        "truth_ratio@closer_look",
        TRUTH_RATIO_NEEDS,
        partial(read_truth_ratio, version="closer_look"),
        "lower",
        "higher",
        "1 - min(R, 1/R) on what is forgotten, max(0, 1 - R) on what is kept",
    ),
    Metric(
        "token_entropy",
        ("answer_tokens",),
        partial(of_tokens, fluency.token_entropy),
        "higher",
        "higher",
        "how varied the answer's tokens are; low = repeats itself",
    ),
    Metric(
        "repetition",
        ("answer_tokens",),
        partial(of_tokens, fluency.repetition),
        "lower",
        "lower",
        "share of the answer's 4-grams that it has said before",
    ),
    Metric(
        "gibberish",
        ("answers", "rate_gibberish"),
        lambda evidence: fluency.gibberish(given(evidence.answers), given(evidence.rate_gibberish)),
        "lower",
        "lower",
        "share to which a classifier finds the answer gibberish",
    ),
    Metric(
        "cosine_similarity",
        ("answers", "encode"),
        lambda evidence: similarity.cosine_similarity(
            given(evidence.answers), evidence.truths, given(evidence.encode)
        ),
        "lower",
        "higher",
        "cosine of the sentence embeddings of answer and truth",
    ),
    Metric(
        "entailment",
        ("answers", "entail"),
        lambda evidence: similarity.entailment(
            given(evidence.answers), evidence.truths, given(evidence.entail), evidence.kind
        ),
        "lower",
        "higher",
        "whether answer and truth entail each other, by an inference model",
    ),
    Metric(
        "exact_memorization",
        ("token_scores",),
        partial(of_scores, memorization.exact_memorization),
        "lower",
        "higher",
        "share of the answer's tokens that are the likeliest ones",
    ),
    Metric(
        "extraction_strength",
        ("token_scores",),
        partial(of_scores, partial(memorization.extraction_strength, floor=False)),
        "lower",
        "higher",
        "share of the answer that follows by itself from the shortest prefix",
    ),
    Metric(
        "extraction_strength@openunlearning",
        ("token_scores",),
        partial(of_scores, memorization.extraction_strength),
        "lower",
        "higher",
        "the same with OpenUnlearning's floor of one token",
    ),
    Metric(
        "mia_loss",
        ("token_scores",),
        lambda evidence: evidence.losses,
        None,
        None,
        "membership value: mean loss per token",
    ),
    Metric(
        "mia_zlib",
        ("token_scores",),
        lambda evidence: membership.zlib_ratio(evidence.losses, evidence.truths),
        None,
        None,
        "membership value: loss over compressed length",
    ),
    Metric(
        "mia_min_k",
        ("token_scores",),
        partial(of_scores, membership.min_k),
        None,
        None,
        "membership value: loss of the 40 % least likely tokens",
    ),
    Metric(
        "mia_min_k_plus_plus",
        ("token_scores",),
        partial(of_scores, membership.min_k_plus_plus),
        None,
        None,
        "membership value: the same, standardised over the vocabulary",
    ),
    Metric(
        "mia_reference",
        ("token_scores", "reference_losses"),
        lambda evidence: membership.reference_difference(evidence.losses, given(evidence.reference_losses)),
        None,
        None,
        "membership value: loss less that of a reference model",
    ),
    Metric(
        "mia_gradient_norm",
        ("gradient_norms",),
        lambda evidence: [float(norm) for norm in given(evidence.gradient_norms)],
        None,
        None,
        "membership value: mean norm of the parameters' gradients",
    ),
)
