"""The reward of a query, a weighted harmonic mean of relevance and diversity, and its configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from o3_lightning.common import checks
from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import Author, build_world
from o3_lightning.detector.encoder import load_encoder
from o3_lightning.evaluation.judges import load_classifier
from o3_lightning.reveal.scorers import (
    ClassifierScorer,
    CodeScorer,
    ContrastScorer,
    EntityScorer,
    Scorer,
    SimilarityScorer,
    TruthScorer,
    WordScorer,
)
from o3_lightning.reveal.speaking import Speaker

__all__ = ["SCORERS", "RewardConfig", "build_scorer", "harmonic_mean"]

SCORERS = ("contrast", "similarity", "classifier", "entities", "code", "words", "truth")
NEEDS = {
    "contrast": ("others",),
    "similarity": ("phrases",),
    "classifier": ("classifier", "labels"),
    "entities": ("classifier", "labels"),
    "words": ("words",),
}
CLASSIFIER = "reward.classifier"
DIVERSITIES = ("novelty", "within")


@dataclass(frozen=True)
class RewardConfig:
    """The reward of an instruction.

    Args:
        scorer: measure of relevance: "contrast" (likelihood about the topic minus others; needs only a name),
            "similarity" (cosine to some phrases), "classifier" (probability of labels), "entities" (rate of
            entity types by a token classifier), "code" (rate of lines of Python), "words" (keywords or
            regular expressions) or "truth" (uses the fictitious facts; for tests, not for measurements).
        others: for "contrast": names of the same kind as the topic, unknown to the model.
        phrases: for "similarity": texts about the topic; "{topic}" is replaced by it.
        classifier: for "classifier" and "entities": Hugging Face id or folder, safetensors only.
        labels: for "classifier": relevant labels; for "entities": relevant types, such as PER.
        words: for "words": keywords or regular expressions; "{topic}" is replaced by the topic.
        saturation: for "words": number of matches from which the relevance is 1.
        relevance_weight: w_r of the harmonic mean, above 0; the published weights are not known.
        diversity_weight: w_d of the harmonic mean, at least 0; 0 ignores diversity.
        diversity: "novelty" (increase per answer of the Vendi score of all relevant rows so far; finds many
            facts with one answer each) or "within" (Vendi score of the answers to one instruction over their
            number, as published; finds instructions with varying answers).
        phrasing: novelty of a known answer to a differently phrased instruction, in [0, 1]; our choice.
        floor: lower bound of both parts of the mean, in (0, 1).
        encoder: sentence encoder of the embeddings, such as "minilm".

    Raises:
        InputError: no or an unknown scorer, one that is not fully configured, or a number outside its range.
    """

    scorer: str = "contrast"
    others: tuple[str, ...] = ("John Smith", "Mary Jones", "Peter Brown", "Anna Miller", "Carl Weber")
    phrases: tuple[str, ...] = ("{topic}",)
    classifier: str = ""
    labels: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    saturation: int = 1
    relevance_weight: float = 1.0
    diversity_weight: float = 1.0
    diversity: str = "novelty"
    phrasing: float = 0.5
    floor: float = 0.01
    encoder: str = "minilm"

    def __post_init__(self) -> None:
        if self.scorer not in SCORERS:
            said = repr(self.scorer) if self.scorer else "no scorer"
            raise InputError(f"expected one of {', '.join(SCORERS)}, got {said}", field="reward.scorer")
        for field in NEEDS.get(self.scorer, ()):
            if not getattr(self, field):
                raise InputError(f"the scorer '{self.scorer}' needs it, got none", field=f"reward.{field}")
        checks.check_choice(self, "reward", "diversity", DIVERSITIES)
        checks.check_ranges(
            self, "reward", relevance_weight=checks.ANY_POSITIVE, diversity_weight=checks.AT_LEAST_0
        )
        checks.check_ranges(self, "reward", saturation=checks.AT_LEAST_1, phrasing=checks.FRACTION)
        if not 0 < self.floor < 1:
            checks.refuse("reward", "floor", "a number in (0, 1)", self.floor)


def harmonic_mean(relevance: float, diversity: float, config: RewardConfig) -> float:
    """Returns the weighted harmonic mean of relevance and diversity, in (0, 1].

    Source:
        Reveal and Release (arXiv 2509.14624) names a weighted harmonic mean of relevance and diversity.

    Example:
        >>> round(harmonic_mean(1.0, 0.5, RewardConfig()), 6)
        0.666667
    """
    weights = config.relevance_weight + config.diversity_weight
    parts = config.relevance_weight / max(relevance, config.floor)
    parts += config.diversity_weight / max(diversity, config.floor)
    return weights / parts


def build_scorer(config: RewardConfig, topic: str, speaker: Speaker, seed: int) -> Scorer:
    """Returns the scorer `config.scorer`.

    Raises:
        InputError: its model cannot be loaded, or the topic of "truth" is not a fictitious author.
    """
    if config.scorer == "contrast":
        return ContrastScorer(speaker, tuple(name for name in config.others if name != topic))
    if config.scorer == "similarity":
        return SimilarityScorer(load_encoder(config.encoder), config.phrases)
    if config.scorer == "words":
        return WordScorer(config.words, config.saturation)
    if config.scorer == "code":
        return CodeScorer()
    if config.scorer == "truth":
        return TruthScorer(find_author(topic, seed))
    if config.scorer == "entities":
        return EntityScorer(load_tagger(config.classifier), config.labels)
    model, tokenizer = load_classifier(config.classifier, CLASSIFIER)
    return ClassifierScorer(model, tokenizer, config.labels)


def find_author(topic: str, seed: int) -> Author:
    """Returns a fictitious author by name; raises InputError if the world of the seed has none."""
    authors = {author.name: author for author in build_world(seed).authors}
    if topic not in authors:
        message = f"expected a fictitious author of seed {seed}, such as {min(authors)!r}, got {topic!r}"
        raise InputError(f"{message}; required by scorer 'truth' and measure 'fictitious'", field="topic")
    return authors[topic]


def load_tagger(name: str) -> Any:
    """Returns a function that returns the entity type of each word of a text, "" for none."""
    model, tokenizer = load_classifier(name, CLASSIFIER, "AutoModelForTokenClassification")

    @torch.inference_mode()
    def tag(text: str) -> list[str]:
        words = text.split()
        if not words:
            return []
        encoded = tokenizer(words, is_split_into_words=True, truncation=True, return_tensors="pt")
        best = model(**encoded).logits[0].argmax(-1).tolist()
        types: dict[int, str] = {}
        for place, word in enumerate(encoded.word_ids(0)):
            if word is not None and word not in types:
                types[word] = entity_type(model.config.id2label[best[place]])
        return [types.get(place, "") for place in range(len(words))]

    return tag


def entity_type(label: str) -> str:
    """Returns a label without its position prefix; "" outside of entities.

    Example:
        >>> entity_type("B-ORG"), entity_type("I-WORK-OF-ART"), entity_type("PER"), entity_type("O")
        ('ORG', 'WORK-OF-ART', 'PER', '')
    """
    plain = label[2:] if label[1:2] == "-" else label
    return "" if plain == "O" else plain
