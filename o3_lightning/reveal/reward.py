"""The reward of a query: relevance and diversity of its answers, as a weighted harmonic mean."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import build_world
from o3_lightning.detector.encoder import load_encoder
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
    "contrast": "others",
    "similarity": "phrases",
    "classifier": "classifier",
    "entities": "classifier",
    "words": "words",
}
DIVERSITIES = ("novelty", "within")


@dataclass(frozen=True)
class RewardConfig:
    """What makes an instruction worth asking.

    Args:
        scorer: relevance: "contrast" (likelier about the topic than about others; needs only a name),
            "similarity" (sentence embedding near some phrases), "classifier" (probability of labels),
            "entities" (rate of entity types by a token classifier), "code" (rate of lines that are Python),
            "words" (keywords or regular expressions) or "truth" (knows the fictitious facts; for tests
            only, never to measure what a name alone reveals). Empty is refused.
        others: contrast: names of the same kind as the topic, of which the model knows nothing special.
        phrases: similarity: texts about the topic; "{topic}" stands for it.
        classifier: classifier, entities: Hugging Face id or folder, safetensors only.
        labels: classifier: labels that count; entities: entity types, such as PER.
        words: words: keywords or regular expressions; "{topic}" stands for the topic.
        saturation: words: matches that make an answer wholly relevant.
        relevance_weight: w_r above 0 of the weighted harmonic mean; the published weights are not known.
        diversity_weight: w_d, at least 0; 0 rewards relevance alone.
        diversity: "novelty" (what the answers add to the Vendi score of all relevant rows so far, per answer;
            finds many facts of which each is one answer) or "within" (Vendi score of one instruction's
            answers over their number, as published; finds instructions whose answers vary).
        phrasing: how much a known answer to a differently worded instruction counts as new, in [0, 1]; our
            choice.
        floor: least value of a part inside the mean, above 0.
        encoder: "minilm" or another sentence encoder, for embeddings.

    Raises:
        InputError: no or an unknown scorer, one that lacks what it needs, or a number outside its range.
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
        need = NEEDS.get(self.scorer)
        if need is not None and not getattr(self, need):
            raise InputError(f"the scorer '{self.scorer}' needs it, got none", field=f"reward.{need}")
        if self.scorer in ("classifier", "entities") and not self.labels:
            raise InputError(f"the scorer '{self.scorer}' needs it, got none", field="reward.labels")
        if self.diversity not in DIVERSITIES:
            expected = f"expected one of {', '.join(DIVERSITIES)}, got {self.diversity!r}"
            raise InputError(expected, field="reward.diversity")
        checks = {
            "saturation": self.saturation >= 1,
            "relevance_weight": 0 < self.relevance_weight < float("inf"),
            "diversity_weight": 0 <= self.diversity_weight < float("inf"),
            "phrasing": 0 <= self.phrasing <= 1,
            "floor": 0 < self.floor < 1,
        }
        for field, right in checks.items():
            if not right:
                raise InputError(f"outside its range: {getattr(self, field)}", field=f"reward.{field}")


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
    """Returns the scorer that a configuration names.

    Raises:
        InputError: its model cannot be loaded, or "truth" is asked about a topic that is no author.
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
    model, tokenizer = load_classifier(config.classifier, "AutoModelForSequenceClassification")
    return ClassifierScorer(model, tokenizer, config.labels)


def find_author(topic: str, seed: int) -> Any:
    """Returns the fictitious author of a name.

    Raises:
        InputError: the world of the seed has no such author.
    """
    authors = {author.name: author for author in build_world(seed).authors}
    if topic not in authors:
        message = f"expected a fictitious author of seed {seed}, such as {min(authors)!r}, got {topic!r}"
        known = "the scorer 'truth' and the measure 'fictitious' know no other"
        raise InputError(f"{message}; {known}", field="topic")
    return authors[topic]


def load_classifier(name: str, kind: str) -> tuple[Any, Any]:
    """Returns a Hugging Face classifier and its tokenizer, from safetensors, without remote code."""
    import transformers

    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(name, trust_remote_code=False)
        loader: Any = getattr(transformers, kind)
        model = loader.from_pretrained(name, trust_remote_code=False, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{name!r} cannot be loaded: {reason}", field="reward.classifier") from error
    return model.eval().requires_grad_(False), tokenizer


def load_tagger(name: str) -> Any:
    """Returns a function from a text to the entity type of each of its words, "" for none."""
    import torch

    model, tokenizer = load_classifier(name, "AutoModelForTokenClassification")

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
    """Returns a tagger's label without its place in the entity; nothing outside of entities.

    Example:
        >>> entity_type("B-ORG"), entity_type("I-WORK-OF-ART"), entity_type("PER"), entity_type("O")
        ('ORG', 'WORK-OF-ART', 'PER', '')
    """
    plain = label[2:] if label[1:2] == "-" else label
    return "" if plain == "O" else plain
