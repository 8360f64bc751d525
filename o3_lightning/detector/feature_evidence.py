"""Evidence computed from the encoder's pooled features: shared reading and encoding of many requests.

Shape letters: B texts as given, S texts as the encoder reads them, K requests, L layers, D width.
"""

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from o3_lightning.detector.base import EvidenceGroup, FitTask, Fitted, GroupedEvidence, Saved, load_state
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.constants import LORA_ALPHA, LORA_RANK
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.prompt_features import PromptInputs, read_inputs
from o3_lightning.detector.reading import Reading
from o3_lightning.detector.stacked_lora import encode_stacked
from o3_lightning.detector.text import normalise_text
from o3_lightning.detector.training import train_encoder, with_lora

Details = list[dict[str, Any]]
LORA_PREFIX = "lora."


class FeatureEvidence(GroupedEvidence):
    """Evidence whose score is a function of the pooled features of a text.

    Args:
        config: settings, presets filled in.
        state: a dataclass of tensors, an instance of `state_class`.
        lora: the encoder's adapter by PEFT's names, empty where the encoder was not trained.
    """

    state_class: ClassVar[type[Any]]

    def __init__(self, config: DetectorConfig, state: Any, lora: Mapping[str, Tensor]) -> None:
        self.config, self.state, self.lora = config, state, lora

    @classmethod
    @abstractmethod
    def fit_state(
        cls, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
    ) -> tuple[Any, dict[str, Any], list[str]]:
        """Returns the state fitted to the forget prompts, figures for the report, and warnings."""

    @abstractmethod
    def score_features(self, inputs: PromptInputs, information: Tensor) -> Tensor:
        """Returns the scores of S texts [S, K], K the number of requests stacked in the state.

        Args:
            inputs: the texts.
            information: -log p of each token of the vocabulary.
        """

    @abstractmethod
    def explain_features(self, inputs: PromptInputs, information: Tensor) -> list[Details]:
        """Returns for each stacked request the "channels" and "layers" of every text."""

    def place(self, device: torch.device) -> Self:
        """Returns the evidence ready to score on the encoder's device; by default it scores on the CPU."""
        return self

    @classmethod
    def fit(cls, task: FitTask) -> Fitted:
        """Reads the prompts, trains the encoder where an objective is set, and fits the state."""
        encoder, config, seed = task.encoder, task.config, task.seed
        inputs, warnings = read_inputs(encoder, task.prompts, config, seed)
        report: dict[str, Any] = {"prompts": len(inputs) + len(inputs.other_words)}
        lora: dict[str, Tensor] = {}
        if config.objective != "none":
            lora, report["training"] = train_encoder(encoder, inputs.tokens, config, seed)
            encoder = with_lora(encoder, lora)
            inputs = replace(inputs, features=encoder.encode_tokens(inputs.tokens))
        state, figures, more = cls.fit_state(encoder, inputs, config, seed)
        return Fitted(cls(config, state, lora), {**report, **figures}, warnings + more)

    def save(self) -> Saved:
        """Returns the tensors of the state and of the adapter."""
        return Saved(
            {**vars(self.state), **{LORA_PREFIX + name: value for name, value in self.lora.items()}}, {}
        )

    @classmethod
    def load(cls, saved: Saved, config: DetectorConfig) -> Self:
        """Returns the evidence of these tensors."""
        own: dict[str, Tensor] = {}
        lora: dict[str, Tensor] = {}
        for name, value in saved.tensors.items():
            (lora if name.startswith(LORA_PREFIX) else own)[name.removeprefix(LORA_PREFIX)] = value
        return cls(config, load_state(cls.state_class, own), lora)

    def group_key(self) -> Hashable:
        """Returns what decides which texts are read and how they are encoded, scored and weighted."""
        config = self.config
        shapes = tuple((name, tuple(value.shape)) for name, value in sorted(self.lora.items()))
        scaling = LORA_ALPHA / LORA_RANK
        return (config.reading, config.channels, config.tail_quantile, (shapes, scaling) if shapes else None)

    @classmethod
    def group(cls, members: Sequence[Any]) -> EvidenceGroup:
        """Returns a group that reads and encodes each text once for all members."""
        return FeatureGroup(members)


class FeatureGroup(EvidenceGroup):
    """Evidences of one class over one encoder: texts are read, tokenised and encoded once for all of them.

    Args:
        members: K evidences with equal `group_key`.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__(members)
        self.config: DetectorConfig = members[0].config
        self.loras = [member.lora for member in members if member.lora]
        self.scorers: Sequence[Any] = members  # a subclass may score several members in one call

    def score(self, encoder: Encoder, readings: Sequence[Reading], decided: Tensor | None = None) -> Tensor:
        """Returns the scores [B, K] of the texts as wholes."""
        return self.score_texts(encoder, [normalise_text(reading.text) for reading in readings])

    def score_texts(self, encoder: Encoder, texts: list[str]) -> Tensor:
        """Returns the scores of texts as the encoder reads them [S, K]."""
        parts = [
            scorer.score_features(inputs, encoder.information).float()
            for scorer, inputs in self.read(encoder, texts)
        ]
        return torch.cat(parts, dim=1)

    def explain(self, encoder: Encoder, readings: Sequence[Reading]) -> list[Details]:
        """Returns each member's details of every text as a whole."""
        texts = [normalise_text(reading.text) for reading in readings]
        parts = [
            scorer.explain_features(inputs, encoder.information)
            for scorer, inputs in self.read(encoder, texts)
        ]
        return [details for part in parts for details in part]

    def read(self, encoder: Encoder, texts: list[str]) -> Iterator[tuple[Any, PromptInputs]]:
        """Yields each scorer with the texts as its encoder reads them."""
        tokens = encoder.tokenize(texts)
        words = encoder.words(tokens)
        if self.loras:
            scaling = LORA_ALPHA / LORA_RANK
            features = encode_stacked(encoder, self.loras, scaling, tokens)
        else:
            features = encoder.encode_tokens(tokens).expand(len(self.scorers), -1, -1, -1)
        self.scorers = [scorer.place(encoder.device) for scorer in self.scorers]
        for scorer, own in zip(self.scorers, features, strict=True):
            yield scorer, PromptInputs(tokens, words, own)
