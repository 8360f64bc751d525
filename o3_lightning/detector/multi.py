"""Scores prompts under all requests at once: one encoder pass for every request that shares the encoder.

Requests with an encoder of their own (a LoRA) run as one stacked batch over the shared model.

Shape letters: B prompts, K requests.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from o3_lightning.common.errors import StoreError
from o3_lightning.detector.batched_scoring import group_detectors
from o3_lightning.detector.boundary import BoundaryState, boundary_weights
from o3_lightning.detector.calibration import tail_weights
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.segments import Prompt

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
        self._groups = group_detectors(list(self.detectors.values()))
        self._tails: dict[tuple[float, float], list[int]] = {}  # columns that turn scores to weights alike
        for column, detector in enumerate(self.detectors.values()):
            if not isinstance(detector.state, BoundaryState):
                tail = (detector.config.tail, detector.config.sharpness)
                self._tails.setdefault(tail, []).append(column)

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
        for (tail, sharpness), columns in self._tails.items():
            weights[:, columns] = tail_weights(scores[:, columns], tail, sharpness)
        for column, detector in enumerate(self.detectors.values()):
            if isinstance(detector.state, BoundaryState):
                weights[:, column] = boundary_weights(
                    scores[:, column], detector.state, detector.config
                ).float()
        return weights

    def explain(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Returns, per prompt, {request id: {"score", "weight", "channels", "layers"}}.

        `channels` are the standardised channel scores of the whole prompt (the first text of a chat), so a
        weight that comes from a segment shows by channels that are low. `layers` holds one score for each
        of the encoder's layers that count, the last one last, higher = closer: the whitened cosine in
        [-1, 1] of a fusion, the layer score of a boundary.
        """
        scores = self.scores(prompts)
        weights = self.weigh(scores)
        rows: list[dict[str, Any]] = [{} for _ in prompts]
        for group in self._groups:
            for column, details in group.explain(self.encoder, prompts) if len(prompts) else ():
                for row, answer in enumerate(rows):
                    answer[self.ids[column]] = {
                        "score": float(scores[row, column]),
                        "weight": float(weights[row, column]),
                        **details[row],
                    }
        return [{name: answer[name] for name in self.ids} for answer in rows]
