"""Scorers of the relevance of answers to a topic, in [0, 1].

All scorers but `TruthScorer` use only what a user knows: the name of the topic, a word list or a classifier.
"""

import ast
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from o3_lightning.common.errors import InputError
from o3_lightning.data.fictitious import Author
from o3_lightning.detector.encoder import Encoder
from o3_lightning.evaluation.judges import classify, probabilities
from o3_lightning.metrics.text import says
from o3_lightning.reveal.arms import Arm
from o3_lightning.reveal.speaking import Speaker


class Scorer(Protocol):
    """Scores the relevance of answers."""

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the relevance of each answer to an instruction, in [0, 1]."""


@dataclass(frozen=True)
class ContrastScorer:
    """Relevance = max(0, p(answer | topic) - mean over others of p(answer | other)).

    p is the geometric mean of the token probabilities after the same instruction with another name. Only the
    name of the topic is needed. Instructions that do not name the topic score 0, and soft tokens are ignored.

    Args:
        speaker: the model.
        others: names of the same kind as the topic, at least one.
    """

    speaker: Speaker
    others: tuple[str, ...]

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the relevance of each answer."""
        if not arm.names_topic or not answers:
            return [0.0] * len(answers)
        names = [topic, *self.others]
        prompts = [arm.prompt(name) for name in names for _ in answers]
        flat = self.speaker.likelihoods(prompts, list(answers) * len(names))
        table = torch.tensor(flat, dtype=torch.float64).view(len(names), len(answers))
        return (table[0] - table[1:].mean(0)).clamp(min=0).tolist()


@dataclass(frozen=True)
class SimilarityScorer:
    """Relevance = max(0, largest cosine of the sentence embeddings of the answer and a phrase).

    Args:
        encoder: sentence encoder, of which the last layer is used.
        phrases: about the topic, at least one.
    """

    encoder: Encoder
    phrases: tuple[str, ...]

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the relevance of each answer."""
        if not answers:
            return []
        wanted = [phrase.replace("{topic}", topic) for phrase in self.phrases]
        features = self.encoder.encode([*wanted, *answers])[:, -1]
        unit = torch.nn.functional.normalize(features, dim=1)
        cosines = unit[len(wanted) :] @ unit[: len(wanted)].T
        return cosines.max(dim=1).values.clamp(0, 1).tolist()


@dataclass(frozen=True)
class WordScorer:
    """Relevance = min(1, matches / `saturation`).

    Args:
        patterns: case-insensitive regular expressions; a plain word matches whole words.
        saturation: number of matches from which the relevance is 1, at least 1.
    """

    patterns: tuple[str, ...]
    saturation: int = 1

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the relevance of each answer."""
        compiled = [
            compile_pattern(pattern.replace("{topic}", re.escape(topic))) for pattern in self.patterns
        ]
        counts = [sum(len(pattern.findall(answer)) for pattern in compiled) for answer in answers]
        return [min(1.0, count / self.saturation) for count in counts]


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Returns a compiled pattern, with word boundaries for plain words; InputError if it is invalid."""
    text = rf"\b{pattern}\b" if re.fullmatch(r"[\w' -]+", pattern) else pattern
    try:
        return re.compile(text, re.IGNORECASE)
    except re.error as error:
        raise InputError(f"invalid regular expression {pattern!r}: {error}", field="reward.words") from error


@dataclass(frozen=True)
class EntityScorer:
    """Relevance = share of the words that are entities of the given types.

    Args:
        tag: returns the entity type of each word of a text, "" for none.
        types: relevant types, e.g. "PER".
    """

    tag: Any
    types: tuple[str, ...]

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the relevance of each answer."""
        found = []
        for answer in answers:
            tags = self.tag(answer)
            found.append(sum(tag in self.types for tag in tags) / len(tags) if tags else 0.0)
        return found


class CodeScorer:
    """Relevance = share of the lines in the longest run of lines that parse as Python.

    Bare words and numbers also parse, so a run must contain a statement or a call.
    """

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the relevance of each answer."""
        return [code_rate(answer) for answer in answers]


def code_rate(text: str) -> float:
    r"""Returns the share of lines in the longest run of Python code.

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
    """Whether a text parses as Python and contains a statement or a call."""
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
    """Relevance = largest probability among the relevant labels of a text classifier.

    Args:
        model: a Hugging Face sequence classifier in evaluation mode.
        tokenizer: its tokenizer.
        labels: names or indices of the relevant labels, at least one.
        batch_size: answers per batch.
    """

    model: Any
    tokenizer: Any
    labels: tuple[str, ...]

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the relevance of each answer.

        Raises:
            InputError: the classifier has no such label.
        """
        columns = self.columns()
        rows = classify(self.model, self.tokenizer, answers)
        return [float(probabilities(self.model, row)[columns].max()) for row in rows]

    def columns(self) -> list[int]:
        """Returns the indices of the labels."""
        known = {str(name): int(place) for place, name in self.model.config.id2label.items()}
        known |= {str(place): place for place in known.values()}
        unknown = [label for label in self.labels if label not in known]
        if unknown:
            message = f"the classifier has no label {unknown[0]!r}; it has {', '.join(known)}"
            raise InputError(message, field="reward.labels")
        return [known[label] for label in self.labels]


@dataclass(frozen=True)
class TruthScorer:
    """Relevance = 1 for answers with a true fact about a fictitious author, otherwise 0. For tests."""

    author: Author

    def score(self, arm: Arm, topic: str, answers: Sequence[str]) -> list[float]:
        """Returns the relevance of each answer."""
        return [float(any(says(answer, fact) for fact in self.author.facts.values())) for answer in answers]
