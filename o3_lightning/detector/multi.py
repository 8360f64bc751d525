"""Scores prompts under all requests at once: one encoder pass for every request that shares the encoder.

Shape letters: B prompts, S texts (prompts, turns and segments), K requests.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from o3_lightning.detector.boundary import BoundaryState, boundary_scores, boundary_weights
from o3_lightning.detector.calibration import tail_weights
from o3_lightning.detector.config import CHANNELS, DetectorConfig
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.fusion import FusionState, fused_scores, fusion_channels, stack_states
from o3_lightning.detector.inputs import PromptInputs, read_texts, select_layers
from o3_lightning.detector.segments import Prompt, cut_segments, prompt_texts
from o3_lightning.detector.spelling import SpellingTable
from o3_lightning.detector.text import normalise_text
from o3_lightning.detector.training import with_lora
from o3_lightning.errors import StoreError

__all__ = ["MultiDetector", "Prompt"]


class MultiDetector:
    """The detectors of several requests over one encoder.

    Args:
        encoder: the encoder that all of them were fitted on.
        detectors: by request id; the order is kept. None are needed.

    Raises:
        StoreError: a detector was fitted on another encoder.

    Attributes:
        ids: the requests in order.
    """

    def __init__(self, encoder: Encoder, detectors: Mapping[str, Detector]) -> None:
        for name, detector in detectors.items():
            if detector.encoder_digest != encoder.digest or detector.config.pooling != encoder.pooling:
                own = f"{detector.encoder_id} ({detector.config.pooling}, {detector.encoder_digest[:12]})"
                given = f"{encoder.id} ({encoder.pooling}, {encoder.digest[:12]})"
                raise StoreError(f"detector of request '{name}' was fitted on encoder {own}, not on {given}")
        self.encoder = encoder
        self.detectors = dict(detectors)
        self.ids = tuple(detectors)
        self._groups = group_detectors(encoder, list(self.detectors.values()))

    def scores(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns scores [B, K], higher = closer to the forget set.

        A score is the largest over the whole prompt, the user turns of a chat, and (less the penalty) the
        segments of either.

        Args:
            prompts: texts, or lists of chat messages with "role" and "content".

        Raises:
            InputError: a chat message lacks role or content.
        """
        result = torch.zeros(len(prompts), len(self.ids))
        if not len(prompts):
            return result
        for group in self._groups:
            result[:, group.columns] = group.score(self.encoder, prompts)
        return result

    def weights(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns weights [B, K] in [0, 1], never falling in the score; arguments as for `scores`."""
        return self.weigh(self.scores(prompts))

    def weigh(self, scores: Tensor) -> Tensor:
        """Returns the weights [B, K] of scores [B, K]."""
        weights = torch.zeros_like(scores)
        for column, detector in enumerate(self.detectors.values()):
            if isinstance(detector.state, BoundaryState):
                weights[:, column] = boundary_weights(
                    scores[:, column], detector.state, detector.config
                ).float()
            else:
                weights[:, column] = tail_weights(scores[:, column], detector.config.tail)
        return weights

    def explain(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Returns, per prompt, {request id: {"score", "weight", "channels"}}.

        `channels` are the standardised channel scores of the whole prompt (the first text of a chat), so a
        weight that comes from a segment shows by channels that are low.
        """
        scores = self.scores(prompts)
        weights = self.weigh(scores)
        rows: list[dict[str, Any]] = [{} for _ in prompts]
        for group in self._groups:
            channels = group.explain(self.encoder, prompts) if len(prompts) else {}
            for column in group.columns:
                for row, answer in enumerate(rows):
                    answer[self.ids[column]] = {
                        "score": float(scores[row, column]),
                        "weight": float(weights[row, column]),
                        "channels": channels.get((row, column), {}),
                    }
        return [{name: answer[name] for name in self.ids} for answer in rows]


class DetectorGroup:
    """Detectors that read the same inputs in the same way, scored together."""

    def __init__(self, encoder: Encoder, columns: list[int], detectors: list[Detector]) -> None:
        self.columns = columns
        self.config = detectors[0].config
        self.fusion: FusionState | None = None
        self.boundary: BoundaryState | None = None
        self.own_encoder: Encoder | None = None
        if detectors[0].lora:
            self.own_encoder = with_lora(encoder, detectors[0].lora, self.config.training)
        if isinstance(detectors[0].state, BoundaryState):
            self.boundary = detectors[0].state
        else:
            self.fusion = stack_states([d.state for d in detectors if isinstance(d.state, FusionState)])

    def score(self, encoder: Encoder, prompts: Sequence[Prompt]) -> Tensor:
        """Returns the scores [B, K'] of this group's requests."""
        texts, owners, penalties = spread_prompts(prompts, self.config, encoder.spelling)
        inputs = read_texts(self.own_encoder or encoder, texts, normalise=self.config.normalise)
        scores = self.score_inputs(encoder, inputs) - penalties[:, None]
        result = torch.full((len(prompts), len(self.columns)), -torch.inf)
        index = owners[:, None].expand(-1, len(self.columns))
        return result.scatter_reduce_(0, index, scores.float(), reduce="amax")

    def score_inputs(self, encoder: Encoder, inputs: PromptInputs) -> Tensor:
        """Returns the scores [S, K'] of texts."""
        if self.boundary is not None:
            return boundary_scores(inputs.features, self.boundary, self.config)[:, None].float()
        assert self.fusion is not None
        return fused_scores(self.channels(encoder, inputs), self.fusion)

    def channels(self, encoder: Encoder, inputs: PromptInputs) -> Tensor:
        """Returns raw channel scores [S, K', C]."""
        assert self.fusion is not None
        features = select_layers(inputs.features, self.config.within_layers)
        return fusion_channels(
            features, inputs.words, self.fusion, encoder.information, self.config.lexical_power
        )

    def explain(self, encoder: Encoder, prompts: Sequence[Prompt]) -> dict[tuple[int, int], dict[str, float]]:
        """Returns the standardised channels of whole prompts by row and column."""
        if self.fusion is None:
            return {}
        texts = [prompt_texts(prompt)[0] for prompt in prompts]
        inputs = read_texts(self.own_encoder or encoder, texts, normalise=self.config.normalise)
        z = (self.channels(encoder, inputs) - self.fusion.center) / self.fusion.spread
        names = [(i, name) for i, name in enumerate(CHANNELS) if name in self.config.channels]
        return {
            (row, column): {name: float(z[row, k, i]) for i, name in names}
            for row in range(len(prompts))
            for k, column in enumerate(self.columns)
        }


def group_detectors(encoder: Encoder, detectors: list[Detector]) -> list[DetectorGroup]:
    """Returns groups that can share one pass; trained encoders and boundaries stand alone."""
    shared: dict[Any, list[int]] = {}
    for column, detector in enumerate(detectors):
        config = detector.config
        alone = bool(detector.lora) or isinstance(detector.state, BoundaryState)
        same = (
            config.normalise,
            config.segments,
            config.within_layers,
            config.lexical_power,
            config.lexical_buckets,
        )
        shared.setdefault(column if alone else same, []).append(column)
    return [DetectorGroup(encoder, columns, [detectors[c] for c in columns]) for columns in shared.values()]


def read_prompt(
    prompt: Prompt, config: DetectorConfig, spelling: SpellingTable
) -> tuple[list[str], list[str]]:
    """Returns the whole texts of a prompt, repaired readings included, and the segments of the first."""
    wholes = prompt_texts(prompt)
    if config.family != "fusion":
        return wholes, []
    settings, segments = config.segments, []
    if settings.enabled:
        window, stride = settings.window_words, settings.stride_words
        found = cut_segments(wholes[0], window_words=window, stride_words=stride, most=settings.most)
        segments = [part for part in found if part.count(" ") + 1 >= settings.least_words]
    if config.repair_spelling:
        read = [normalise_text(text) if config.normalise else text for text in wholes]
        repaired = [(text, spelling.repair(text)) for text in read]
        wholes = wholes + [better for text, better in repaired if better != text]
    return wholes, segments


def spread_prompts(
    prompts: Sequence[Prompt], config: DetectorConfig, spelling: SpellingTable
) -> tuple[list[str], Tensor, Tensor]:
    """Returns all texts to score, the prompt each belongs to [S], and its penalty [S]."""
    texts: list[str] = []
    owners: list[int] = []
    penalties: list[float] = []
    settings = config.segments
    for row, prompt in enumerate(prompts):
        wholes, segments = read_prompt(prompt, config, spelling)
        penalty = settings.penalty + settings.penalty_growth * math.log(max(len(segments), 1))
        texts += [*wholes, *segments]
        owners += [row] * (len(wholes) + len(segments))
        penalties += [0.0] * len(wholes) + [penalty] * len(segments)
    return texts, torch.tensor(owners), torch.tensor(penalties)
