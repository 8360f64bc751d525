"""The default detector, family "fusion": channels over one encoder pass, standardised and added up.

`score_fusion` computes the channels, `fitting` calibrates them. A prompt is read in several ways, so that
typing errors and surrounding text do not hide a question; the reading closest to the forget set counts.
Shape letters: S texts, K requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from o3_lightning.detector.base import DETECTORS, EvidenceGroup
from o3_lightning.detector.calibration import tail_weights
from o3_lightning.detector.config import CHANNELS, DetectorConfig
from o3_lightning.detector.constants import (
    LEAST_WORDS,
    LEXICAL_POWER,
    MOST_SEGMENTS,
    STRIDE_WORDS,
    WINDOW_WORDS,
    WITHIN_LAYERS,
)
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.feature_evidence import (
    Details,
    FeatureEvidence,
    FeatureGroup,
    Reader,
    read_text,
)
from o3_lightning.detector.fitting import calibrate_fusion, score_rows
from o3_lightning.detector.lexical import hash_tokens
from o3_lightning.detector.prompt_features import PromptInputs, select_layers
from o3_lightning.detector.score_fusion import FusionState, fused_scores, stack_states, whitened_layers
from o3_lightning.detector.segments import Prompt, cut_segments, prompt_texts
from o3_lightning.detector.spelling import WordRepair
from o3_lightning.detector.text import normalise_text
from o3_lightning.detector.text.normalise import visible_text
from o3_lightning.detector.text.reading import clean_text
from o3_lightning.detector.text.reading import read_text as text_readings
from o3_lightning.detector.text.respelling import respell_text
from o3_lightning.detector.text.spans import cut_spans, span_penalty

__all__ = ["FusionEvidence", "FusionGroup", "read_variants"]

SURE = 1.0
FAR = -12.0  # a whole text below it has no span that reaches the request
LONG_WORDS = 16


@DETECTORS.register("fusion")
class FusionEvidence(FeatureEvidence):
    """Weighted sum of standardised channels; its state may hold the stacked states of several requests."""

    state_class = FusionState

    @classmethod
    def fit_state(
        cls, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
    ) -> tuple[FusionState, dict[str, Any], list[str]]:
        """Returns the calibrated state, its figures and warnings."""
        return calibrate_fusion(encoder, inputs, config, seed)

    @classmethod
    def stack(cls, members: Sequence[Self]) -> list[Self]:
        """Returns one evidence with the states of all members."""
        return [cls(members[0].config, stack_states([member.state for member in members]), {})]

    def score_features(self, inputs: PromptInputs, information: Tensor) -> Tensor:
        """Returns standardised scores [S, K]: 0 for a typical unseen forget prompt, 1 its deviation."""
        features = select_layers(inputs.features, WITHIN_LAYERS)
        return fused_scores(features, inputs.words, self.state, information, LEXICAL_POWER)

    def explain_features(self, inputs: PromptInputs, information: Tensor) -> list[Details]:
        """Returns the standardised channels and the whitened cosine of each layer."""
        z = (score_rows(information, inputs, self.state, self.config) - self.state.center) / self.state.spread
        layers = whitened_layers(select_layers(inputs.features, WITHIN_LAYERS), self.state)
        names = [(place, name) for place, name in enumerate(CHANNELS) if name in self.config.channels]
        return [
            [
                {"channels": {name: row[place] for place, name in names}, "layers": own}
                for row, own in zip(z[:, k].tolist(), layers[:, k].tolist(), strict=True)
            ]
            for k in range(z.shape[1])
        ]

    def weight(self, scores: Tensor) -> Tensor:
        """Returns the weights of standardised scores by `tail_weights`."""
        return tail_weights(scores, self.config.tail_quantile, self.config.slope_power)

    @classmethod
    def group(cls, members: Sequence[Any]) -> EvidenceGroup:
        """Returns a group that reads spans and other readings, or segments and repaired spellings."""
        return MeaningGroup(members) if members[0].config.reading == "full" else FusionGroup(members)


class FusionGroup(FeatureGroup):
    """Fusions scored together; a word that any of their requests knows can repair a mistyped one.

    Args:
        members: K fusions with equal `group_key`.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__(members)
        states = [member.state for member in members]
        self.rare = {number for state in states for number in state.rare[state.rare > 0].tolist()}
        self.known = torch.stack([state.known.amax(dim=0) > 0 for state in states]).any(dim=0)

    def weight(self, scores: Tensor) -> Tensor:
        """Returns weights [B, K]; equal keys mean equal calibration settings."""
        weights: Tensor = self.members[0].weight(scores)
        return weights

    def reader(self, encoder: Encoder) -> Reader:
        """Returns `read_variants` with the words that a request of the group knows."""

        def matters(token: int) -> bool:
            return bool(self.known[hash_tokens(torch.tensor(token), len(self.known))])

        repair = WordRepair(encoder.spelling, matters, self.rare).repair
        return partial(read_variants, config=self.config, repair=repair)


class MeaningGroup(FeatureGroup):
    """Fusions scored on every reading of a prompt, and on its spans where the readings do not decide.

    Args:
        members: K fusions with equal `group_key`.
    """

    def weight(self, scores: Tensor) -> Tensor:
        """Returns weights [B, K]; equal keys mean equal calibration settings."""
        weights: Tensor = self.members[0].weight(scores)
        return weights

    def score(self, encoder: Encoder, prompts: Sequence[Prompt], decided: Tensor | None = None) -> Tensor:
        """Returns scores [B, K]: the largest over readings and, less their penalty, spans."""
        readings = [read_prompt(prompt) for prompt in prompts]
        wholes = [(row, text) for row, reading in enumerate(readings) for text in reading.wholes]
        scores = self.largest(encoder, wholes, len(prompts))
        done = self.weight(scores) >= SURE
        if decided is not None:
            done |= decided >= SURE
        far = scores < FAR
        spans = []
        for row, reading in enumerate(readings):
            if not bool(done[row].all()) and (reading.is_long or not bool((far[row] | done[row]).all())):
                spans += [(row, text) for text in reading.spans]
        if not spans:
            return scores
        counts = torch.bincount(torch.tensor([row for row, _ in spans]), minlength=len(prompts)).tolist()
        penalties = torch.tensor([span_penalty(count) for count in counts])
        return torch.maximum(scores, self.largest(encoder, spans, len(prompts)) - penalties[:, None])

    def largest(self, encoder: Encoder, texts: Sequence[tuple[int, str]], rows: int) -> Tensor:
        """Returns the largest scores [rows, K] over the texts of each row; equal texts are encoded once."""
        places = {text: place for place, text in enumerate(dict.fromkeys(text for _, text in texts))}
        own = self.score_texts(encoder, list(places))[[places[text] for _, text in texts]]
        index = torch.tensor([row for row, _ in texts])[:, None].expand_as(own)
        return torch.full((rows, own.shape[1]), -torch.inf).scatter_reduce_(0, index, own, reduce="amax")


class PromptReading(NamedTuple):
    """How the encoder reads a prompt.

    Args:
        wholes: readings of the whole prompt, normalised.
        spans: its spans, normalised; none of them is a whole reading.
        is_long: whether the whole is too long to say that no span is close.
    """

    wholes: list[str]
    spans: list[str]
    is_long: bool


def read_prompt(prompt: Prompt) -> PromptReading:
    """Returns the readings and spans of a prompt."""
    texts = prompt_texts(prompt)
    readings = [reading for text in texts for reading in (*text_readings(text), *respell_text(text))]
    wholes = dict.fromkeys(normalise_text(reading) for reading in readings)
    cleaned = clean_text(visible_text(texts[0]))
    spans = dict.fromkeys(normalise_text(span) for span in cut_spans(cleaned))
    long = len(cleaned.split()) > LONG_WORDS
    return PromptReading(list(wholes), [span for span in spans if span and span not in wholes], long)


def read_variants(
    prompt: Prompt, config: DetectorConfig, repair: Callable[[str], str]
) -> tuple[list[str], list[str]]:
    """Returns the whole texts of a prompt, repaired readings included, and the segments of the first."""
    wholes = prompt_texts(prompt)
    read = list(dict.fromkeys(read_text(text, config) for text in wholes))
    settings, segments = config.segments, []
    if settings.enabled:
        window, stride = WINDOW_WORDS, STRIDE_WORDS
        found = cut_segments(wholes[0], window_words=window, stride_words=stride, most=MOST_SEGMENTS)
        segments = [read_text(part, config) for part in found if part.count(" ") + 1 >= LEAST_WORDS]
    if config.repair_spelling:
        read = list(dict.fromkeys([*read, *(repair(text) for text in read)]))
    return read, [part for part in dict.fromkeys(segments) if part not in read]
