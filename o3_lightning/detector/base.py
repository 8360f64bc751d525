"""The interface of detectors, kinds of evidence that a prompt belongs to a request, and their registry.

A request's detector holds one or more evidences; its weight is the largest of theirs.
Shape letters: B prompts, K requests.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, TypeVar

from o3_lightning.common.registry import Registry
from o3_lightning.detector.reading import Reading

if TYPE_CHECKING:
    from torch import Tensor

    from o3_lightning.detector.config import DetectorConfig
    from o3_lightning.detector.encoder import Encoder

State = TypeVar("State")


@dataclass(frozen=True)
class FitTask:
    """What an evidence is fitted to.

    Args:
        encoder: frozen text encoder; it is not changed.
        prompts: forget prompts as they were given, at least one of them with text.
        config: settings, presets filled in.
        seed: of every random choice.
    """

    encoder: Encoder
    prompts: Sequence[str]
    config: DetectorConfig
    seed: int


class Fitted(NamedTuple):
    """A fitted evidence.

    Args:
        evidence: ready to score.
        report: figures of the fit as plain JSON, without text of the prompts.
        warnings: what is wrong with the request, one sentence each.
    """

    evidence: Evidence
    report: dict[str, Any]
    warnings: list[str]


class Saved(NamedTuple):
    """An evidence as it is stored in detector.safetensors and detector.json.

    Args:
        tensors: finite tensors by name.
        values: plain JSON.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]


class Evidence(ABC):
    """One kind of evidence that a prompt belongs to a request, fitted to that request.

    A subclass is registered with `DETECTORS.register(name)`; `detector.preset` selects it by that
    name.

    Attributes:
        needs_encoder: whether scoring runs the encoder; evidence without it is judged first.
        settings: values of `DetectorConfig` fields that a preset of the evidence's name fills in.
    """

    settings: ClassVar[Mapping[str, Any]] = {}
    needs_encoder: ClassVar[bool] = True

    @classmethod
    @abstractmethod
    def fit(cls, task: FitTask) -> Fitted:
        """Fits the evidence to the forget prompts of one request; no other data is read.

        Raises:
            InputError: the prompts or settings cannot be used.
        """

    @abstractmethod
    def score(self, encoder: Encoder, texts: Sequence[str]) -> Tensor:
        """Returns scores [B], float32, higher = closer to the forget set.

        Args:
            encoder: the encoder that the evidence was fitted on.
            texts: at least one.
        """

    @abstractmethod
    def weight(self, scores: Tensor) -> Tensor:
        """Returns weights in [0, 1] for scores of any shape, non-decreasing in the score."""

    @abstractmethod
    def save(self) -> Saved:
        """Returns everything that `load` needs, without any text of the prompts."""

    @classmethod
    @abstractmethod
    def load(cls, saved: Saved, config: DetectorConfig) -> Evidence:
        """Returns the evidence that `save` described.

        Raises:
            ValueError: a tensor or value is missing, unknown or of the wrong kind.
        """

    def explain(self, encoder: Encoder, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Returns, per text, details behind the score: "channels" by name and one score per layer."""
        return [{"channels": {}, "layers": []} for _ in texts]

    @property
    def scoring_cost(self) -> int:
        """What scoring costs, in any unit; the members of a group are sorted by it."""
        return 0

    def group_key(self) -> Hashable:
        """Returns a value that is equal for evidences which `group` may score together."""
        return id(self)

    @classmethod
    def group(cls, members: Sequence[Any]) -> EvidenceGroup:
        """Returns evidences of this class with equal keys as a group that shares work between them."""
        return EvidenceGroup(members)


class EvidenceGroup:
    """Evidences of one class that are scored together; this one calls them one after the other.

    Args:
        members: K evidences.
    """

    def __init__(self, members: Sequence[Evidence]) -> None:
        self.members = list(members)

    def score(self, encoder: Encoder, readings: Sequence[Reading], decided: Tensor | None = None) -> Tensor:
        """Returns scores [B, K].

        Args:
            encoder: the encoder that the evidences were fitted on.
            readings: of the texts, shared by all groups.
            decided: weights [B, K] that other evidence has reached; where one is 1, a group may do less.
        """
        import torch  # settings are checked, and help is written, without it

        texts = [reading.text for reading in readings]
        return torch.stack([member.score(encoder, texts) for member in self.members], dim=1)

    def weight(self, scores: Tensor) -> Tensor:
        """Returns the weights [B, K] of scores [B, K]."""
        import torch

        columns = zip(self.members, scores.unbind(dim=1), strict=True)
        return torch.stack([member.weight(own).float() for member, own in columns], dim=1)

    def explain(self, encoder: Encoder, readings: Sequence[Reading]) -> list[list[dict[str, Any]]]:
        """Returns the details of each member, one dictionary per text."""
        texts = [reading.text for reading in readings]
        return [member.explain(encoder, texts) for member in self.members]


class GroupedEvidence(Evidence):
    """Evidence that is scored and explained by its group, alone as well as with others."""

    def score(self, encoder: Encoder, texts: Sequence[str]) -> Tensor:
        """Returns scores [B]."""
        return self.group([self]).score(encoder, [Reading(text) for text in texts])[:, 0]

    def explain(self, encoder: Encoder, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Returns the details of every text as a whole."""
        return self.group([self]).explain(encoder, [Reading(text) for text in texts])[0]


def load_state(kind: type[State], tensors: Mapping[str, Tensor]) -> State:
    """Returns a dataclass of tensors.

    Raises:
        ValueError: a tensor is missing or unknown.
    """
    expected = set(kind.__annotations__)
    for name in sorted(expected ^ set(tensors)):
        raise ValueError(f"tensor '{name}': {'missing' if name in expected else 'unknown'}")
    return kind(**tensors)


DETECTORS: Registry[type[Evidence]] = Registry(
    "detector",
    (
        "o3_lightning.detector.fusion",
        "o3_lightning.detector.boundary",
        "o3_lightning.detector.official",
        "o3_lightning.detector.name_evidence",
    ),
    ("fusion", "layers", "official", "names"),
)
