"""The reward of a query, a weighted harmonic mean of relevance and diversity."""

from typing import Any

import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import Author, build_world
from o3_lightning.detector.encoder import load_encoder
from o3_lightning.evaluation.judges import load_classifier
from o3_lightning.reveal.config import RewardConfig
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

CLASSIFIER = "reward.classifier"


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
