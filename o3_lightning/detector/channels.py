"""The raw scores of prompts under several requests at once, one number per channel; higher = closer.

Shape letters: B rows, K requests, C channels, L layers, D width, R rank, M bank rows, H hash buckets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from o3_kernels import layer_scores
from o3_lightning.detector.config import CHANNELS
from o3_lightning.detector.lexical import lexical_scores

__all__ = ["ChannelState", "score_channels", "stack_states"]


@dataclass(frozen=True)
class ChannelState:
    """Everything the channels of K requests need, stacked.

    Args:
        means: [K, L, D].
        precision_scale: [K, L].
        whitening: [K, L, R, D], zero rows pad.
        bank: unit rows [K, L, M, D], zero rows pad.
        bank_mask: True where a bank row counts [K, M].
        gains: hashed word tables [K, H].
    """

    means: Tensor
    precision_scale: Tensor
    whitening: Tensor
    bank: Tensor
    bank_mask: Tensor
    gains: Tensor


def stack_states(states: Sequence[ChannelState]) -> ChannelState:
    """Returns one state for all requests, padded to the largest rank and bank."""
    stacked = {}
    for field in fields(ChannelState):
        parts = [getattr(state, field.name) for state in states]
        shape = [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]
        whole = parts[0].new_zeros(sum(len(part) for part in parts), *shape)
        start = 0
        for part in parts:
            place = (slice(start, start + len(part)), *(slice(size) for size in part.shape[1:]))
            whole[place] = part
            start += len(part)
        stacked[field.name] = whole
    return ChannelState(**stacked)


def score_channels(
    features: Tensor, tokens: Sequence[Sequence[int]], state: ChannelState, log_background: Tensor
) -> Tensor:
    """Returns the raw channel scores of every prompt under every request.

    Args:
        features: [B, L, D].
        tokens: token ids without special tokens, B prompts.
        state: K stacked requests.
        log_background: log-probabilities by token id [V].

    Returns:
        Scores [B, K, C] in the order of `CHANNELS`.
    """
    zero = torch.zeros_like(state.precision_scale)
    by_layer = layer_scores(
        features,
        state.means,
        state.precision_scale,
        state.whitening,
        state.bank,
        state.bank_mask,
        zero,
        zero,
    )
    channels = {
        "mahalanobis": -by_layer.mahalanobis.mean(dim=2).T,
        "cosine": by_layer.cosine.mean(dim=2).T,
        "lexical": lexical_scores(tokens, state.gains, log_background),
    }
    return torch.stack([channels[name] for name in CHANNELS], dim=2)
