"""Scores prompts under all requests with one encoder pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from o3_lightning.detector.calibration import gaussian_weights
from o3_lightning.detector.channels import score_channels, stack_states
from o3_lightning.detector.detector import Detector
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.lexical import zipf_log_probabilities
from o3_lightning.errors import StoreError

__all__ = ["MultiDetector", "Prompt"]

Prompt = str | Sequence[Mapping[str, str]]


class MultiDetector:
    """The detectors of several requests over one encoder.

    Args:
        encoder: the encoder that all of them were fitted on.
        detectors: by request id; the order is kept.

    Raises:
        StoreError: a detector was fitted on another encoder.
    """

    def __init__(self, encoder: Encoder, detectors: Mapping[str, Detector]) -> None:
        for name, detector in detectors.items():
            if detector.encoder_digest != encoder.digest:
                raise StoreError(f"detector of request '{name}' was fitted on another encoder")
        self.encoder = encoder
        self.detectors = dict(detectors)
        self.ids = tuple(detectors)
        self._log_background = zipf_log_probabilities(len(encoder.tokenizer))
        self._state = stack_states([d.state for d in detectors.values()]) if detectors else None

    def scores(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns scores [B, K], higher = closer to the forget set."""
        if self._state is None or not prompts:
            return torch.zeros(len(prompts), len(self.ids))
        texts = [prompt if isinstance(prompt, str) else prompt[-1]["content"] for prompt in prompts]
        features = self.encoder.encode(texts)[:, -1:]
        tokens = [row[1:-1] for row in self.encoder.tokenize(texts)]
        channels = score_channels(features, tokens, self._state, self._log_background)
        center = torch.stack([d.center for d in self.detectors.values()])
        spread = torch.stack([d.spread for d in self.detectors.values()])
        return ((channels - center) / spread).sum(dim=2)

    def weights(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns weights [B, K] in [0, 1]."""
        scores = self.scores(prompts)
        if not len(scores) or not self.ids:
            return scores
        mean = torch.stack([d.score_mean for d in self.detectors.values()])
        spread = torch.stack([d.score_spread for d in self.detectors.values()])
        tail = next(iter(self.detectors.values())).config.tail
        return gaussian_weights(scores, mean, spread, tail)

    def explain(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Returns, per prompt, score and weight of each request."""
        scores, weights = self.scores(prompts), self.weights(prompts)
        return [
            {
                name: {"score": float(scores[row, k]), "weight": float(weights[row, k])}
                for k, name in enumerate(self.ids)
            }
            for row in range(len(prompts))
        ]
