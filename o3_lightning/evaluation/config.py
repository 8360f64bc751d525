"""What is measured after each request."""

from __future__ import annotations

from dataclasses import dataclass, field

from o3_lightning.common.errors import InputError
from o3_lightning.metrics.registry import METRICS as KNOWN_METRICS

__all__ = ["ATTACKS", "METRICS", "EvaluationConfig", "RobustnessConfig"]

METRICS = ("accuracy", "rouge_l_recall", "probability", "truth_ratio@tofu")
ATTACKS = (
    "none",
    "paraphrase",
    "distractor_before",
    "distractor_after",
    "distractor_around",
    "role_play",
    "ignore_above",
    "typos",
    "upper_case",
    "look_alikes",
    "few_shot",
    "later_turn",
    "two_turns",
    "adapter_off",
    "adapter_always_on",
    "quantise",
    "quantise_merged",
    "relearn",
)
QUANTISERS = ("auto", "simulated")


@dataclass(frozen=True)
class RobustnessConfig:
    """What `evaluate --robustness` tries.

    Args:
        attacks: any of "none" (the question as it is, to compare with), "paraphrase" (held-out prompts),
            "distractor_before", "distractor_after", "distractor_around" (the distractor text stands there),
            "role_play", "ignore_above", "typos", "upper_case", "look_alikes", "few_shot", "later_turn",
            "two_turns", "adapter_off", "adapter_always_on", "quantise" (the base model's weights),
            "quantise_merged" (those with the request's adapter folded in, and no gate) and "relearn" (on
            these, too); at least one.
        rows: prompts of each request, and of each utility split, at most; evenly spread; 0 takes all.
        distractor_words: length of the distractor text, in words, 1 upward.
        typo_share: share of the words of four letters or more that get a typo, in (0, 1].
        shots: solved examples before the question, 1 upward; from the utility splits.
        bits: precisions of "quantise" and "quantise_merged", each 2 to 16.
        quantiser: "auto" takes bitsandbytes for 4 bits (NF4) and 8 bits (LLM.int8()) where it is installed;
            elsewhere, and with "simulated", weights are rounded, and the attack's name says so.
        relearn_rows: forget rows that "relearn" trains on, one attack each, 1 upward; whole facts, drawn.
        relearn_other_rows: rows of the utility splits that it trains on beside, 0 upward; without them a
            small model forgets everything else on the way.
        relearn_epochs: passes over these rows, 1 upward.
        relearn_checks: how often the attacker looks, evenly spread over the epochs, 1 up to these; of all
            looks at all rates the one that leaks most counts.
        relearn_learning_rates: of AdamW, each above 0; the attacker tries all. O3 relearns at 3e-4 on a 7B
            model, small models need more.
        relearn_rank: rank of the attacker's own LoRA, 1 upward.
        relearn_batch_size: rows a step, 1 upward.
        alarm: a prompt with a weight of this or more, in (0, 1], counts as caught, or as a false alarm where
            nobody asked to forget what it is about.

    Raises:
        InputError: an unknown attack or a number outside its range.
    """

    attacks: tuple[str, ...] = ATTACKS
    rows: int = 40
    distractor_words: int = 200
    typo_share: float = 0.5
    shots: int = 3
    bits: tuple[int, ...] = (8, 4)
    quantiser: str = "auto"
    relearn_rows: tuple[int, ...] = (10, 50)
    relearn_other_rows: int = 40
    relearn_epochs: int = 10
    relearn_checks: int = 2
    relearn_learning_rates: tuple[float, ...] = (3e-4, 1e-3, 2e-3, 5e-3)
    relearn_rank: int = 8
    relearn_batch_size: int = 12
    alarm: float = 0.5

    def __post_init__(self) -> None:
        check_names(self.attacks, ATTACKS, "evaluation.robustness.attacks")
        least = {"rows": 0, "distractor_words": 1, "shots": 1, "relearn_other_rows": 0, "relearn_epochs": 1}
        least |= {"relearn_checks": 1, "relearn_rank": 1, "relearn_batch_size": 1}
        for name, low in least.items():
            check_range(
                getattr(self, name) >= low, f"{low} or more", getattr(self, name), f"robustness.{name}"
            )
        good = all(2 <= bits <= 16 for bits in self.bits)
        check_range(good, "numbers from 2 to 16", self.bits, "robustness.bits")
        good = all(rows >= 1 for rows in self.relearn_rows)
        check_range(good, "numbers of 1 or more", self.relearn_rows, "robustness.relearn_rows")
        for name in ("typo_share", "alarm"):
            good = 0 < getattr(self, name) <= 1
            check_range(good, "a share in (0, 1]", getattr(self, name), f"robustness.{name}")
        rates = self.relearn_learning_rates
        good = bool(rates) and all(rate > 0 for rate in rates)
        check_range(good, "numbers above 0", rates, "robustness.relearn_learning_rates")
        good = self.relearn_checks <= self.relearn_epochs
        check_range(good, "no more than the epochs", self.relearn_checks, "robustness.relearn_checks")
        check_names((self.quantiser,), QUANTISERS, "evaluation.robustness.quantiser")


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
