"""Detectors that read prompts in the same way, scored together.

Shape letters: S texts (prompts, turns, repaired readings and segments), K requests of the group, L layers,
D width, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from o3_lightning.detector.boundary import BoundaryState, boundary_layers, boundary_scores
from o3_lightning.detector.config import CHANNELS, DetectorConfig
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.lexical import hash_tokens
from o3_lightning.detector.prompt_features import select_layers
from o3_lightning.detector.score_fusion import (
    FusionState,
    fused_scores,
    fusion_channels,
    stack_states,
    whitened_layers,
)
from o3_lightning.detector.segments import Prompt, cut_segments, prompt_texts
from o3_lightning.detector.spelling import WordRepair
from o3_lightning.detector.stacked_lora import encode_stacked
from o3_lightning.detector.text import normalise_text

__all__ = ["DetectorGroup", "group_detectors"]

Details = list[dict[str, Any]]


class DetectorGroup:
    """Detectors of one group: their texts are cut, normalised and tokenised once.

    Args:
        columns: where their scores go.
        detectors: with settings that `group_detectors` found alike.
    """

    def __init__(self, columns: list[int], detectors: list[Detector]) -> None:
        self.columns = columns
        self.config = detectors[0].config
        training = self.config.training
        self.scaling = training.alpha / training.rank
        self.loras = [detector.lora for detector in detectors if detector.lora]
        states = [detector.state for detector in detectors]
        fusions = [state for state in states if isinstance(state, FusionState)]
        self.configs = [detector.config for detector in detectors]
        self.boundaries = [state for state in states if isinstance(state, BoundaryState)]
        self.fusions = fusions if self.loras or not fusions else [stack_states(fusions)]
        self.rare = {number for state in fusions for number in state.rare[state.rare > 0].tolist()}
        known = [state.known.amax(dim=0) > 0 for state in fusions]
        self.known = torch.stack(known).any(dim=0) if known else torch.zeros(0, dtype=torch.bool)

    def score(self, encoder: Encoder, prompts: Sequence[Prompt]) -> Tensor:
        """Returns the scores [B, K] of this group's requests."""
        repair = WordRepair(encoder.spelling, self.matters, self.rare).repair
        texts, owners, penalties = spread_prompts(prompts, self.config, repair)
        scores = torch.cat([part.float() for part in self.score_texts(encoder, texts)], dim=1)
        scores = scores - penalties[:, None]
        result = torch.full((len(prompts), len(self.columns)), -torch.inf)
        index = owners[:, None].expand(-1, len(self.columns))
        return result.scatter_reduce_(0, index, scores, reduce="amax")

    def matters(self, token: int) -> bool:
        """Whether any request of the group knows a token."""
        return bool(self.known[hash_tokens(torch.tensor(token), len(self.known))])

    def encode(self, encoder: Encoder, tokens: list[list[int]]) -> Tensor:
        """Returns features [1, S, L, D], or one for each request's own encoder [K, S, L, D]."""
        if self.loras:
            return encode_stacked(encoder, self.loras, self.scaling, tokens)
        return encoder.encode_tokens(tokens)[None]

    def score_texts(self, encoder: Encoder, texts: list[str]) -> Iterator[Tensor]:
        """Yields the scores of texts, the columns of one state after the other [S, 1 or K]."""
        tokens = encoder.tokenize(texts)
        features = self.encode(encoder, tokens)
        if self.fusions:
            words = encoder.words(tokens)
            for state, own in zip(self.fusions, features, strict=True):
                yield fused_scores(self.channels(encoder, own, words, state), state)
        for number, boundary in enumerate(self.boundaries):
            own = features[number if self.loras else 0]
            yield boundary_scores(own, boundary, self.configs[number])[:, None]

    def channels(
        self, encoder: Encoder, features: Tensor, words: list[list[int]], state: FusionState
    ) -> Tensor:
        """Returns raw channel scores [S, K, C]."""
        own = select_layers(features, self.config.within_layers)
        return fusion_channels(own, words, state, encoder.information, self.config.lexical_power)

    def explain(self, encoder: Encoder, prompts: Sequence[Prompt]) -> Iterator[tuple[int, Details]]:
        """Yields each request's column with the channels and layer scores of every whole prompt."""
        texts = [read_text(prompt_texts(prompt)[0], self.config) for prompt in prompts]
        tokens = encoder.tokenize(texts)
        features = self.encode(encoder, tokens)
        if self.fusions:
            yield from self.explain_fusions(encoder, features, encoder.words(tokens))
        for number, state in enumerate(self.boundaries):
            layers = boundary_layers(features[number if self.loras else 0], state, self.configs[number])
            yield self.columns[number], [{"channels": {}, "layers": row} for row in layers.tolist()]

    def explain_fusions(
        self, encoder: Encoder, features: Tensor, words: list[list[int]]
    ) -> Iterator[tuple[int, Details]]:
        """Yields the same for fusions."""
        columns = iter(self.columns)
        names = [(place, name) for place, name in enumerate(CHANNELS) if name in self.config.channels]
        for state, own in zip(self.fusions, features, strict=True):
            z = (self.channels(encoder, own, words, state) - state.center) / state.spread
            layers = whitened_layers(select_layers(own, self.config.within_layers), state)
            for number in range(z.shape[1]):
                yield (
                    next(columns),
                    [
                        {"channels": {name: float(row[place]) for place, name in names}, "layers": own_layers}
                        for row, own_layers in zip(z[:, number], layers[:, number].tolist(), strict=True)
                    ],
                )


def group_detectors(detectors: list[Detector]) -> list[DetectorGroup]:
    """Returns groups whose members read the same texts and whose encoders run as one batch."""
    shared: dict[Any, list[int]] = {}
    for column, detector in enumerate(detectors):
        config = detector.config
        adapter = [(name, tuple(value.shape)) for name, value in sorted(detector.lora.items())]
        same = (
            config.family == "fusion",
            config.normalise,
            config.repair_spelling,
            config.segments,
            config.channels,
            config.within_layers,
            config.lexical_power,
            config.lexical_buckets,
            (tuple(adapter), config.training.alpha / config.training.rank) if adapter else None,
        )
        shared.setdefault(same, []).append(column)
    return [DetectorGroup(columns, [detectors[c] for c in columns]) for columns in shared.values()]


def read_text(text: str, config: DetectorConfig) -> str:
    """Returns a text as the encoder reads it."""
    return normalise_text(text) if config.normalise else text


def read_prompt(
    prompt: Prompt, config: DetectorConfig, repair: Callable[[str], str]
) -> tuple[list[str], list[str]]:
    """Returns the whole texts of a prompt, repaired readings included, and the segments of the first."""
    wholes = prompt_texts(prompt)
    read = list(dict.fromkeys(read_text(text, config) for text in wholes))
    if config.family != "fusion":
        return read, []
    settings, segments = config.segments, []
    if settings.enabled:
        window, stride = settings.window_words, settings.stride_words
        found = cut_segments(wholes[0], window_words=window, stride_words=stride, most=settings.most)
        segments = [read_text(part, config) for part in found if part.count(" ") + 1 >= settings.least_words]
    if config.repair_spelling:
        read = list(dict.fromkeys([*read, *(repair(text) for text in read)]))
    return read, [part for part in dict.fromkeys(segments) if part not in read]


def spread_prompts(
    prompts: Sequence[Prompt], config: DetectorConfig, repair: Callable[[str], str]
) -> tuple[list[str], Tensor, Tensor]:
    """Returns all texts to score, the prompt each belongs to [S], and its penalty [S]."""
    texts: list[str] = []
    owners: list[int] = []
    penalties: list[float] = []
    settings = config.segments
    for row, prompt in enumerate(prompts):
        wholes, segments = read_prompt(prompt, config, repair)
        penalty = settings.penalty + settings.penalty_growth * math.log(max(len(segments), 1))
        texts += [*wholes, *segments]
        owners += [row] * (len(wholes) + len(segments))
        penalties += [0.0] * len(wholes) + [penalty] * len(segments)
    return texts, torch.tensor(owners), torch.tensor(penalties)
