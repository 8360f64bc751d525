"""Metrics of generated answers, one value per example.

Shared arguments, for B examples: `answers`, the generated texts; `truths`, the true answers; `answer_tokens`,
the generated answers as tokens (ids or pieces) without the end token. Lists that differ in length raise
ValueError.
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from itertools import groupby
from typing import Any, Literal

import torch

from o3_lightning.data.normalise import normalise
from o3_lightning.metrics.registry import Encode, Entail, Kind, Rate, metric

RougeKind = Literal["rouge1", "rougeL"]
RougePart = Literal["recall", "precision", "fmeasure"]
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
STATEMENT = re.compile(r"\b[Aa]nswer(?:\s+is)?\s*:?\s*\(?([A-Z])(?=[.,;:!?)]|\s*$)", re.MULTILINE)
ALONE = re.compile(r"\(?([A-Z])\)?[.:)]?")
LEAST_ROUGE = 0.1
NGRAM = 4


@metric("accuracy", "answers", "truths", meaning="share of answers that contain the truth")
def accuracy(answers: Sequence[str], truths: Sequence[str]) -> list[float]:
    """Returns 1.0 where an answer contains the truth, else 0.0.

    The truth's words have to occur together and in order, ignoring case and punctuation; other words may
    surround them, so a forgotten fact inside a longer sentence counts as known. In scripts without spaces
    between words (Chinese, Japanese, Thai; Korean with its particles) characters count as words. An empty or
    garbled answer counts as 0.0.

    Example:
        >>> accuracy(["It is Paris.", "Parisian", "Rome"], ["Paris", "Paris", "Oslo"])
        [1.0, 0.0, 0.0]
    """
    return [float(says(answer, truth)) for answer, truth in zip(answers, truths, strict=True)]


def says(answer: str, truth: str) -> bool:
    """Returns whether the truth's words occur in the answer, see `accuracy`."""
    words = normalise(truth)
    return bool(words) and f" {words} " in f" {normalise(answer)} "


def rouge(
    answers: Sequence[str], truths: Sequence[str], kind: RougeKind = "rougeL", part: RougePart = "recall"
) -> list[float | None]:
    """Returns the overlap in [0, 1] of the words of answer and truth; words of all scripts as in `accuracy`.

    Args:
        answers: B generated texts.
        truths: B true answers, the references.
        kind: "rouge1" compares the words as multisets, "rougeL" in order.
        part: "recall" (shared words over the truth's), "precision" or "fmeasure" (F1).

    Returns:
        B values; None where the truth has no word, because 0 would mean that everything was forgotten.

    Source:
        The package `rouge_score` with stemming, as in TOFU (recall) and MUSE (F1 of ROUGE-L). Its own
        tokenizer drops every character but a-z and 0-9. Ours equals it on texts in Latin script, letters with
        accents included ("Städte" is "st", "dte"), so that values compare with published ones; it keeps the
        words of other scripts.

    Example:
        >>> rouge(["it is in Paris"], ["in Paris France"], "rougeL", "fmeasure")
        [0.5714285714285715]
    """
    score, words = rouge_scorer(kind).score, rouge_words().tokenize
    return [
        float(getattr(score(truth, answer)[kind], part)) if words(truth) else None
        for answer, truth in zip(answers, truths, strict=True)
    ]


rouge_l_recall = partial(rouge, kind="rougeL", part="recall")


@lru_cache(maxsize=2)
def rouge_scorer(kind: str) -> Any:
    """The scorer of one kind, cached because it loads a stemmer."""
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer([kind], tokenizer=rouge_words())


@lru_cache(maxsize=1)
def rouge_words() -> "RougeWords":
    """The tokenizer, cached for the same reason."""
    from rouge_score.tokenizers import DefaultTokenizer

    return RougeWords(DefaultTokenizer(use_stemmer=True).tokenize)


class RougeWords:
    """The tokenizer of `rouge_score`, with the words of other scripts than Latin added.

    Args:
        latin: splits and stems a text in Latin script.
    """

    def __init__(self, latin: Callable[[str], list[str]]) -> None:
        self.latin = latin

    def tokenize(self, text: str) -> list[str]:
        """Returns the words; characters in scripts without spaces between words."""
        if text.isascii():
            return self.latin(text)
        parts = ((other, "".join(part)) for other, part in groupby(text, OtherScript()))
        return [
            word for other, part in parts for word in (normalise(part).split() if other else self.latin(part))
        ]


class OtherScript:
    """Tells, character by character, the letters of other scripts than Latin, with the marks on them."""

    def __init__(self) -> None:
        self.inside = False

    def __call__(self, character: str) -> bool:
        """Whether the next character is such a letter or mark."""
        kind = unicodedata.category(character)[0]
        if kind != "M":
            self.inside = kind == "L" and "LATIN" not in unicodedata.name(character, "")
        return self.inside


ROUGE: tuple[tuple[str, RougeKind, RougePart, str], ...] = (
    ("rouge1_recall", "rouge1", "recall", "share of the truth's words in the answer"),
    ("rouge1_f1", "rouge1", "fmeasure", "F1 of the words that answer and truth share"),
    ("rouge_l_recall", "rougeL", "recall", "share of the truth's words in the answer, in order"),
    ("rouge_l_f1", "rougeL", "fmeasure", "F1 of the words that answer and truth share in order"),
)


for name, kind, part, meaning in ROUGE:
    metric(name, "answers", "truths", meaning=meaning)(partial(rouge, kind=kind, part=part))


@metric("cosine_similarity", "answers", "truths", "encode", meaning="embedding cosine of answer and truth")
def cosine_similarity(answers: Sequence[str], truths: Sequence[str], encode: Encode) -> list[float]:
    """Returns max(0, cos) of the sentence embeddings of answer and truth.

    Raises:
        ValueError: the lists differ in length, or the encoder does not give one row per text.

    Source:
        closer-look `metrics.py`, `eval_cosine_similarity`, with `paraphrase-MiniLM-L6-v2` as encoder.
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


@metric("entailment", "answers", "truths", "entail", "kind", meaning="entailment between answer and truth")
def entailment(answers: Sequence[str], truths: Sequence[str], entail: Entail, kind: Kind) -> list[float]:
    """Returns 1.0 where one of answer and truth entails the other, else 0.0.

    An answer with a ROUGE-L recall below `LEAST_ROUGE` counts as 0.0, whatever the model says; where the
    truth has no word the model alone decides.

    Args:
        answers: B generated texts.
        truths: B true answers.
        entail: the inference model; closer-look uses `sileod/deberta-v3-base-tasksource-nli`.
        kind: "forget" asks whether the answer entails the truth, "keep" whether the truth entails the answer.
            closer-look's real-world benchmark asks the first on every split, as `entailment@real_world` does.

    Raises:
        ValueError: the lists differ in length, or the model gives another number of values.

    Source:
        closer-look `metrics.py`, `get_entailment_results`.
    """
    close = rouge_l_recall(answers, truths)
    premises, hypotheses = (answers, truths) if kind == "forget" else (truths, answers)
    entailed = list(entail(premises, hypotheses))
    if len(entailed) != len(answers):
        raise ValueError(f"expected {len(answers)} values of the inference model, got {len(entailed)}")
    return [
        float(bool(found) and (recall is None or recall >= LEAST_ROUGE))
        for found, recall in zip(entailed, close, strict=True)
    ]


metric(
    "entailment@real_world",
    "answers",
    "truths",
    "entail",
    meaning="whether the answer entails the truth, on every split",
)(partial(entailment, kind="forget"))


@metric("token_entropy", "answer_tokens", meaning="variety of the tokens; low = repetitive", forget="higher")
def token_entropy(answer_tokens: Sequence[Sequence[int | str]]) -> list[float]:
    """Returns the entropy of each answer's T token frequencies, divided by log T, in [0, 1].

    1 means that no token repeats, 0 that all tokens are the same or that there is at most one.

    Source:
        closer-look `metrics.py`, `compute_token_entropy`: -sum_f f log2 f / log2 T.

    Example:
        >>> token_entropy([["a", "b", "a", "b"], ["a"]])
        [0.5, 0.0]
    """
    values = []
    for tokens in answer_tokens:
        shares = [count / len(tokens) for count in Counter(tokens).values()]
        entropy = -sum(share * math.log2(share) for share in shares)
        values.append(entropy / math.log2(len(tokens)) + 0.0 if len(tokens) > 1 else 0.0)
    return values


@metric("repetition", "answer_tokens", meaning="share of repeated 4-grams in the answer", keep="lower")
def repetition(answer_tokens: Sequence[Sequence[int | str]]) -> list[float]:
    """Returns the share of repeated 4-grams in each answer, 1 - distinct / all, in [0, 1).

    An answer of fewer than 4 tokens has 0.

    Source:
        Welleck et al. 2020, "seq-rep-n".
    """
    values = []
    for tokens in answer_tokens:
        grams = [tuple(tokens[start : start + NGRAM]) for start in range(len(tokens) - NGRAM + 1)]
        values.append(1 - len(set(grams)) / len(grams) if grams else 0.0)
    return values


@metric("gibberish", "answers", "rate_gibberish", meaning="probability of being gibberish", keep="lower")
@metric("toxicity", "answers", "rate_toxicity", meaning="probability of being toxic", keep="lower")
def gibberish(answers: Sequence[str], rate: Rate) -> list[float]:
    """Returns the classifier's probability that each answer is gibberish, or toxic, in [0, 1].

    Raises:
        ValueError: the classifier gives another number of values, or one outside [0, 1].

    Source:
        OpenUnlearning, which uses `madhurjindal/autonlp-Gibberish-Detector-492513457` and reports its "clean"
        class; `rate` has to return one minus that.
    """
    values = [float(value) for value in rate(answers)]
    if len(values) != len(answers) or not all(0 <= value <= 1 for value in values):
        raise ValueError(f"expected {len(answers)} values in [0, 1] of the classifier")
    return values


def chosen_letter(answer: str, options: Sequence[str]) -> str | None:
    """Returns the letter of the one option that an answer names; None if it names none or several.

    An answer names an option by "the answer is B" (also "Answer: B", "(B)"), by the letter alone, by letter
    and text ("B. Paris"), or by the option's text alone. Letters beyond the options do not count.

    Args:
        answer: the generated text.
        options: the option texts, "A" first; at least one.

    Source:
        O3's `eval_o3.py` accepts only one match of `The answer is ([A-Z]).` and counts everything else as
        wrong; here "Answer: The answer is B." and a repeated "The answer is B." are read as B.

    Example:
        >>> options = ["Rome", "Paris"]
        >>> chosen_letter("Answer: The answer is B.", options), chosen_letter("paris", options)
        ('B', 'B')
        >>> chosen_letter("The answer is A. The answer is B.", options) is None
        True
    """
    known, text = dict(zip(LETTERS, options, strict=False)), answer.strip()
    named = set(STATEMENT.findall(text))
    if not named:
        alone, said = ALONE.fullmatch(text), normalise(text)
        named = (
            {alone.group(1)}
            if alone
            else {
                letter
                for letter, option in known.items()
                if said and said in (normalise(option), normalise(f"{letter} {option}"))
            }
        )
    named &= known.keys()
    return named.pop() if len(named) == 1 else None


@metric("multiple_choice", "answers", "truths", "choices", meaning="accuracy of answers that name an option")
def multiple_choice(
    answers: Sequence[str], truths: Sequence[str], options: Sequence[Sequence[str]]
) -> list[float | None]:
    """Returns 1.0 where an answer names the right option, 0.0 for a wrong one, None where it names none.

    `options` are the option texts of each example, "A" first.

    Raises:
        ValueError: the lists differ in length, or a truth names no option.
    """
    values: list[float | None] = []
    for answer, truth, texts in zip(answers, truths, options, strict=True):
        right = chosen_letter(truth, texts)
        if right is None:
            raise ValueError(f"expected a truth that names one of {len(texts)} options, got {truth!r}")
        said = chosen_letter(answer, texts)
        values.append(None if said is None else float(said == right))
    return values


def unparseable(values: Sequence[float | None]) -> int:
    """Returns the number of examples without a value."""
    return sum(value is None for value in values)
