"""Scores prompts under all requests at once: evidences of one kind share one encoder pass.

Shape letters: B texts, K requests.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from o3_lightning.common.errors import StoreError
from o3_lightning.detector.base import Evidence, EvidenceGroup
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.reading import Reading

TYPICAL = 0.0  # score of a typical forget prompt under a fusion, the only first evidence beside others


class Columns(NamedTuple):
    """A group of evidences and the requests that they belong to.

    Args:
        group: the evidences.
        columns: index of the request of each.
        is_first: whether each is the first part of its request, whose score is reported.
    """

    group: EvidenceGroup
    columns: Tensor
    is_first: Tensor


class MultiDetector:
    """The detectors of several requests over one encoder.

    Args:
        encoder: the encoder that all detectors were fitted on.
        detectors: by request id, in the order of the columns; may be empty.

    Raises:
        StoreError: a detector was fitted on another encoder.

    Attributes:
        ids: the request ids in order.
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
        self._groups = group_parts(list(self.detectors.values()))

    def judge(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Returns scores and weights, [B, K] each, from one pass.

        A weight is the largest over the evidences of a request. A score is that of its first evidence, at
        least `TYPICAL` where another one is certain, so that scores rank prompts as weights do. The gate
        (`gating.chats`) decides which texts of a chat are judged.
        """
        return self._judge([Reading(text) for text in texts])

    def _judge(self, readings: Sequence[Reading]) -> tuple[Tensor, Tensor]:
        scores = torch.zeros(len(readings), len(self.ids))
        weights = torch.zeros_like(scores)
        is_certain = torch.zeros_like(scores, dtype=torch.bool)
        for group, columns, is_first in self._groups if len(readings) else ():
            own = group.score(self.encoder, readings, weights[:, columns])
            scores[:, columns[is_first]] = own[:, is_first]
            weighed = group.weight(own)
            weights[:, columns] = torch.maximum(weights[:, columns], weighed)
            is_certain[:, columns[~is_first]] |= weighed[:, ~is_first] >= 1
        return torch.where(is_certain, scores.clamp_min(TYPICAL), scores), weights

    def scores(self, texts: Sequence[str]) -> Tensor:
        """Returns scores [B, K], higher = closer to the forget set."""
        return self.judge(texts)[0]

    def weights(self, texts: Sequence[str]) -> Tensor:
        """Returns weights [B, K] in [0, 1]."""
        return self.judge(texts)[1]

    def explain(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Returns, per text, {request id: {"score", "weight", "channels", "layers"}}.

        `channels` are the standardised channel scores of the whole text: a high weight with low channels
        comes from a span or another form of it. `layers` holds one score for each
        encoder layer that is used, in order, higher = closer: the whitened cosine in [-1, 1] of a fusion, the
        layer score of a boundary. Where a name or a span was found, "evidence" is its kind and "place" the
        characters [start, end) where it stands, None where it was decoded or respelt.
        """
        readings = [Reading(text) for text in texts]
        scores, weights = (values.tolist() for values in self._judge(readings))
        rows: list[dict[str, Any]] = [{name: {} for name in self.ids} for _ in texts]
        for group, columns, is_first in self._groups if len(texts) else ():
            details = group.explain(self.encoder, readings)
            members = zip(columns.tolist(), is_first.tolist(), details, strict=True)
            for column, first, described in members:
                for number, row in enumerate(rows):
                    judged = {"score": scores[number][column], "weight": weights[number][column]}
                    own = row[self.ids[column]]
                    own.update({**judged, **described[number]} if first else described[number])
        return rows


def group_parts(detectors: Sequence[Detector]) -> list[Columns]:
    """Returns the evidences of all requests, those with equal class and key together."""
    shared: dict[tuple[type[Evidence], Hashable], list[tuple[int, bool, Evidence]]] = {}
    for column, detector in enumerate(detectors):
        for place, part in enumerate(detector.parts.values()):
            shared.setdefault((type(part), part.group_key()), []).append((column, place == 0, part))
    for group in shared.values():
        group.sort(key=lambda member: member[2].scoring_cost)
    return [
        Columns(
            kind.group([part for _, _, part in members]),
            torch.tensor([column for column, _, _ in members]),
            torch.tensor([first for _, first, _ in members]),
        )
        for (kind, _), members in sorted(shared.items(), key=lambda item: item[0][0].needs_encoder)
    ]
