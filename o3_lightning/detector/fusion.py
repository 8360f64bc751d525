"""The default detector, family "fusion": channels over one encoder pass, standardised and added up.

`score_fusion` computes the channels, `fitting` calibrates them. A text is judged in every form that
`Reading` gives it, so that what surrounds a question does not hide it; the closest form counts.
Shape letters: S texts, K requests.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Self

import torch
from torch import Tensor

from o3_lightning.detector.base import DETECTORS, EvidenceGroup, Saved
from o3_lightning.detector.calibration import tail_weights
from o3_lightning.detector.config import CHANNELS, DetectorConfig
from o3_lightning.detector.constants import WITHIN_LAYERS
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.feature_evidence import Details, FeatureEvidence, FeatureGroup
from o3_lightning.detector.fitting import FusionFit, score_rows
from o3_lightning.detector.lexical import hash_tokens, known_information
from o3_lightning.detector.prompt_features import PromptInputs, select_layers
from o3_lightning.detector.reading import Reading
from o3_lightning.detector.score_fusion import (
    MATRICES,
    FusionState,
    fused_scores,
    place_state,
    similar_sizes,
    stack_states,
    unstack_states,
    whitened_layers,
)
from o3_lightning.detector.text.people import named_people
from o3_lightning.detector.text.spans import span_penalty

SURE = 1.0
FAR = -12.0  # a whole text below it has no span that reaches the request
Span = tuple[int, str, str]  # row, text as the encoder reads it, text with its capitals
LEAST_KNOWN = 0.8  # of what the poorest forget prompt holds, which has no more without its question mark
MOST_ENCODED = 4  # spans of a text; on disguises nobody tuned to, three find what all of them find


@DETECTORS.register("fusion")
class FusionEvidence(FeatureEvidence):
    """Weighted sum of standardised channels; its state may hold the stacked states of several requests."""

    state_class = FusionState

    @classmethod
    def fit_state(
        cls, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
    ) -> tuple[FusionState, dict[str, Any], list[str]]:
        """Returns the calibrated state, its figures and warnings."""
        return FusionFit(encoder, inputs, config, seed).calibrate()

    @classmethod
    def load(cls, saved: Saved, config: DetectorConfig) -> Self:
        """Returns the evidence of these tensors; older ones lack what has a value here, and hold masks."""
        former = {"subject_words": torch.zeros(1, 1, dtype=torch.int64), "least_known": torch.zeros(1)}
        kept = {name: value for name, value in saved.tensors.items() if not name.endswith("_mask")}
        return super().load(Saved({**former, **kept}, saved.values), config)

    @property
    def scoring_cost(self) -> int:
        """Rows of the state's matrices, of all layers."""
        return sum(math.prod(getattr(self.state, name).shape[1:3]) for name in MATRICES)

    def place(self, device: torch.device) -> Self:
        """Returns the evidence with its matrices on a device, split once on a GPU."""
        if self.state.mean.device == device:
            return self
        return type(self)(self.config, place_state(self.state, device), self.lora)

    def score_features(self, inputs: PromptInputs, information: Tensor) -> Tensor:
        """Returns standardised scores [S, K]: 0 for a typical unseen forget prompt, 1 its deviation."""
        features = select_layers(inputs.features, WITHIN_LAYERS)
        return fused_scores(features, inputs.words, self.state, information)

    def explain_features(self, inputs: PromptInputs, information: Tensor) -> list[Details]:
        """Returns the standardised channels and the whitened cosine of each layer."""
        z = (score_rows(information, inputs, self.state) - self.state.center) / self.state.spread
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
        return tail_weights(scores, self.config.tail_quantile)

    @classmethod
    def group(cls, members: Sequence[Any]) -> EvidenceGroup:
        """Returns a group that stacks the members and judges every form of a text."""
        return FusionGroup(members)


class FusionGroup(FeatureGroup):
    """Fusions scored on every form of a text, and on its spans where the forms do not decide.

    Args:
        members: K fusions with equal `group_key`.
    """

    def __init__(self, members: Sequence[Any]) -> None:
        super().__init__(members)
        # [K, H] like the members' own, but what all requests know of one word is adjacent in memory
        self.known = torch.cat([member.state.known for member in members]).T.contiguous().T
        self.named = torch.cat([member.state.named for member in members])
        self.least_known = LEAST_KNOWN * torch.cat([member.state.least_known for member in members])
        if not self.loras:
            self.scorers = list(self.stack(members))

    def stack(self, members: Sequence[Any]) -> Iterator[FusionEvidence]:
        """Yields evidences of adjacent members of similar size; their states become views of its state."""
        for run in similar_sizes([member.scoring_cost for member in members]):
            states = [member.state for member in members[run]]
            stacked = replace(stack_states(states), known=self.known[run])
            for member, own in zip(members[run], unstack_states(stacked, states), strict=True):
                member.state = own
            yield type(members[0])(self.config, stacked, {})

    def weight(self, scores: Tensor) -> Tensor:
        """Returns weights [B, K]; equal keys mean equal calibration settings."""
        weights: Tensor = self.members[0].weight(scores)
        return weights

    def score(self, encoder: Encoder, readings: Sequence[Reading], decided: Tensor | None = None) -> Tensor:
        """Returns scores [B, K]: the largest over the forms and, less their penalty, the spans."""
        if self.config.reading == "plain":
            return super().score(encoder, readings, decided)
        done = torch.zeros(len(readings), len(self.members)) if decided is None else decided
        done = done >= SURE
        wholes: list[Span] = [
            (row, *item) for row, each in enumerate(readings) for item in each.wholes.items()
        ]
        spans, chosen = list[Span](), torch.zeros(0)
        at_once = len(readings) == 1 and len(readings[0].spans) <= MOST_ENCODED
        if at_once:  # one pass costs less than two
            spans, chosen = self.likely_spans(encoder, readings, done)
        judged = self.score_spans(encoder, [*wholes, *spans])
        scores = self.largest(judged[: len(wholes)], wholes, len(readings))
        is_short = torch.tensor([[not reading.is_long] for reading in readings])
        done = done | (self.weight(scores) >= SURE) | (is_short & (scores < FAR))
        if at_once:
            chosen, found = chosen & ~done, judged[len(wholes) :]
        else:
            spans, chosen = self.likely_spans(encoder, readings, done)
            found = self.score_spans(encoder, spans) if spans else judged[:0]
        penalties = torch.tensor([[span_penalty(len(readings[row].spans))] for row, _, _ in spans])
        found = (found - penalties.reshape(-1, 1)).masked_fill(~chosen, -torch.inf)
        return torch.maximum(scores, self.largest(found, spans, len(readings)))

    def likely_spans(
        self, encoder: Encoder, readings: Sequence[Reading], done: Tensor
    ) -> tuple[list[Span], Tensor]:
        """Returns the spans that are judged, and for which requests [S, K].

        For each text and request that are not `done` [B, K] these are the `MOST_ENCODED` spans that share the
        most rare words with the request, whatever other texts and requests there are. Of requests about
        people, spans with less than `LEAST_KNOWN` of the known information of every forget prompt are
        skipped: the frame of a question ("What is the full name of the author") without what it asks about.
        """
        spans: list[Span] = [
            (row, *item)
            for row, decided in enumerate(done.all(dim=1).tolist())
            if not decided
            for item in readings[row].spans.items()
        ]
        chosen = torch.zeros(len(spans), len(self.members), dtype=torch.bool)
        if not spans:
            return spans, chosen
        tokens = encoder.words(encoder.tokenize([text for _, text, _ in spans]))
        held, total = known_information(tokens, self.known, encoder.information)
        enough = held.float() >= self.least_known
        shared = (held / total.clamp_min(1.0)).float().masked_fill(~enough, -1.0)
        rows = torch.tensor([row for row, _, _ in spans])
        for row in sorted({row for row, _, _ in spans}):
            own = (rows == row).nonzero()[:, 0]
            if len(own) <= MOST_ENCODED:
                chosen[own] = True
                continue
            order = shared[own].argsort(dim=0, descending=True, stable=True)[:MOST_ENCODED]
            chosen[own] = torch.zeros_like(chosen[own]).scatter_(0, order, True)
        chosen &= enough & ~done[rows]
        likely = chosen.any(dim=1)
        kept = [span for span, is_likely in zip(spans, likely.tolist(), strict=True) if is_likely]
        return kept, chosen[likely]

    def score_spans(self, encoder: Encoder, texts: Sequence[Span]) -> Tensor:
        """Returns the scores [S, K] of texts; equal texts are encoded once."""
        distinct = {text: written for _, text, written in texts}
        places = {text: place for place, text in enumerate(distinct)}
        scores = self.score_texts(encoder, list(distinct))
        about_others = self.names_others(encoder, list(distinct.values()))
        scores = torch.where(about_others, scores.clamp_max(FAR), scores)
        return scores[[places[text] for _, text, _ in texts]]

    def largest(self, scores: Tensor, texts: Sequence[Span], rows: int) -> Tensor:
        """Returns the largest scores [rows, K] of the texts of each row."""
        index = torch.tensor([row for row, _, _ in texts], dtype=torch.int64)[:, None].expand_as(scores)
        lowest = torch.full((rows, scores.shape[1]), -torch.inf)
        return lowest.scatter_reduce_(0, index, scores, reduce="amax")

    def names_others(self, encoder: Encoder, texts: Sequence[str]) -> Tensor:
        """Returns whether each text names a namesake of a request's people, and none of them [S, K].

        A namesake is a full name of which the request knows one word and lacks another; somebody whom the
        request is about has a full name of words that it knows for certain.
        """
        K = len(self.members)
        people = [(row, name) for row, text in enumerate(texts) for name in named_people(text)]
        if not people or not bool(self.named.any()):
            return torch.zeros(len(texts), K, dtype=torch.bool)
        distinct = dict.fromkeys(word for _, name in people for word in name)
        places = {word: place for place, word in enumerate(distinct)}
        tokens = encoder.words(encoder.tokenize(list(places)))
        ids = hash_tokens(torch.tensor([token for row in tokens for token in row]), self.known.shape[1])
        table, pieces = self.known.T[ids], [len(row) for row in tokens]
        words = torch.tensor([places[word] for _, name in people for word in name])
        sizes = [len(name) for _, name in people]
        length = torch.tensor(sizes)[:, None]
        known, certain = (
            sum_rows((sum_rows(lacking.float(), pieces)[words] == 0).float(), sizes)
            for lacking in (table == 0, table < 1)
        )
        others = self.named & (known > 0) & (known < length)
        rows = torch.tensor([row for row, _ in people])
        found, own = (
            torch.zeros(len(texts), K).index_add_(0, rows, each.float()) > 0
            for each in (others, certain == length)
        )
        return found & ~own


def sum_rows(values: Tensor, sizes: Sequence[int]) -> Tensor:
    """Returns the sums [G, K] of groups of adjacent rows of values [N, K]."""
    owner = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return values.new_zeros(len(sizes), values.shape[1]).index_add_(0, owner, values)
