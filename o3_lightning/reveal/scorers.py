"""Relevance: how much an answer has to do with the topic, in [0, 1], behind one small interface.

Every scorer but `TruthScorer` works from what a user can know: the topic's name, a word list, a classifier.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import Author
from o3_lightning.detector.encoder import Encoder
from o3_lightning.metrics.text import says
from o3_lightning.reveal.arms import Arm
from o3_lightning.reveal.speaking import Speaker

__all__ = [
    "ClassifierScorer",
    "CodeScorer",
    "ContrastScorer",
    "EntityScorer",
    "Scorer",
    "SimilarityScorer",
    "TruthScorer",
    "WordScorer",
]


class Scorer(Protocol):
    """Says how relevant answers are."""

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns one value in [0, 1] for each answer to an instruction; higher is more relevant."""


@dataclass(frozen=True)
class ContrastScorer:
    """What the model says about the topic and not about others.

    Relevance = max(0, p(answer | topic) - mean over others of p(answer | other)), each p the geometric mean
    probability of a token after the same instruction with another name in it. Needs the model's
    likelihoods, and no knowledge beyond the name. An instruction that does not name the topic scores 0, and
    so does one with soft tokens, whose likelihoods are not computed.

    Args:
        speaker: the model that is asked.
        others: names of the same kind as the topic, at least one.
    """

    speaker: Speaker
    others: tuple[str, ...]

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the contrast of each answer."""
        if not arm.names_topic or not answers:
            return [0.0] * len(answers)
        names = [topic, *self.others]
        prompts = [arm.prompt(name) for name in names for _ in answers]
        flat = self.speaker.likelihoods(prompts, list(answers) * len(names))
        table = torch.tensor(flat, dtype=torch.float64).view(len(names), len(answers))
        return (table[0] - table[1:].mean(0)).clamp(min=0).tolist()


@dataclass(frozen=True)
class SimilarityScorer:
    """Nearness to a few phrases about the topic.

    Relevance = the largest cosine between the answer's and a phrase's sentence embedding, at least 0.

    Args:
        encoder: sentence encoder; its last layer counts.
        phrases: at least one.
    """

    encoder: Encoder
    phrases: tuple[str, ...]

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the nearness of each answer."""
        if not answers:
            return []
        wanted = [phrase.replace("{topic}", topic) for phrase in self.phrases]
        features = self.encoder.encode([*wanted, *answers])[:, -1]
        unit = torch.nn.functional.normalize(features, dim=1)
        cosines = unit[len(wanted) :] @ unit[: len(wanted)].T
        return cosines.max(dim=1).values.clamp(0, 1).tolist()


@dataclass(frozen=True)
class WordScorer:
    """Keywords or regular expressions.

    Relevance = matches / `saturation`, at most 1.

    Args:
        patterns: regular expressions, case aside; a plain word matches as a whole word.
        saturation: matches that make an answer wholly relevant, at least 1.
    """

    patterns: tuple[str, ...]
    saturation: int = 1

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the share of matches of each answer."""
        compiled = [
            compile_pattern(pattern.replace("{topic}", re.escape(topic))) for pattern in self.patterns
        ]
        counts = [sum(len(pattern.findall(answer)) for pattern in compiled) for answer in answers]
        return [min(1.0, count / self.saturation) for count in counts]


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Returns a compiled pattern; a plain word or phrase gets word borders.

    Raises:
        InputError: it is no regular expression.
    """
    text = rf"\b{pattern}\b" if re.fullmatch(r"[\w' -]+", pattern) else pattern
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"not a regular expression: {pattern!r}: {error}", field="reward.words") from error


@dataclass(frozen=True)
class EntityScorer:
    """The part of an answer's words that are entities of given types.

    Args:
        tag: returns the entity type of each word of a text, "" for none, e.g. "PER".
        types: the types that count.
    """

    tag: Any
    types: tuple[str, ...]

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the rate of each answer."""
        found = []
        for answer in answers:
            tags = self.tag(answer)
            found.append(sum(tag in self.types for tag in tags) / len(tags) if tags else 0.0)
        return found


class CodeScorer:
    """The part of an answer's lines that belong to its longest run of lines that parse as Python.

    A line that is a bare word or number parses too and says nothing, so only runs with a statement or a call
    count.
    """

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the code rate of each answer."""
        return [code_rate(answer) for answer in answers]


def code_rate(text: str) -> float:
    r"""Returns the share of lines in the longest run that is Python code.

    Example:
        >>> code_rate("x = f(1)"), code_rate("This is prose."), code_rate("Sure:\ndef f(x):\n    return x")
        (1.0, 0.0, 0.6666666666666666)
    """
    lines = [line for line in text.splitlines() if line.strip() and not line.strip().startswith("```")]
    for length in range(len(lines), 0, -1):
        for start in range(len(lines) - length + 1):
            if is_code("\n".join(lines[start : start + length])):
                return length / len(lines)
    return 0.0


def is_code(text: str) -> bool:
    """Whether a text parses as Python and does something."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return False
    return any(
        not isinstance(node, ast.Expr) or isinstance(node.value, ast.Call | ast.ListComp | ast.BinOp)
        for node in tree.body
    )


@dataclass(frozen=True)
class ClassifierScorer:
    """A text classifier's probability of some labels.

    Args:
        model: a Hugging Face sequence classifier in evaluation mode.
        tokenizer: its tokenizer.
        labels: names or numbers of the labels that count, at least one.
        batch_size: answers at a time.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]
    batch_size: int = 32

    @torch.inference_mode()
    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the largest probability among the labels for each answer."""
        columns, found = self.columns(), []
        for start in range(0, len(answers), self.batch_size):
            batch = self.tokenizer(
                list(answers[start : start + self.batch_size]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(next(self.model.parameters()).device)
            logits = self.model(**batch).logits.float()
            several = getattr(self.model.config, "problem_type", None) == "multi_label_classification"
            likely = logits.sigmoid() if several or logits.shape[1] == 1 else logits.softmax(-1)
            found += likely[:, columns].max(dim=1).values.tolist()
        return found

    def columns(self) -> list[int]:
        """Returns the places of the labels.

        Raises:
            InputError: the classifier has no such label.
        """
        known = {str(name): int(place) for place, name in self.model.config.id2label.items()}
        known |= {str(place): place for place in known.values()}
        unknown = [label for label in self.labels if label not in known]
        if unknown:
            message = f"the classifier has no label {unknown[0]!r}; it has {', '.join(known)}"
            raise InputError(message, field="reward.labels")
        return [known[label] for label in self.labels]


@dataclass(frozen=True)
class TruthScorer:
    """Whether an answer holds a true fact about a fictitious author. For tests: it knows what is to be found.

    Args:
        author: the author and the facts.
    """

    author: Author

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns 1 for each answer that holds one of the facts, else 0."""
        return [float(any(says(answer, fact) for fact in self.author.facts.values())) for answer in answers]
