"""How far the words of a prompt are the words of a request: a likelihood ratio of two unigram models.

The background model needs no data: a WordPiece vocabulary is sorted by frequency, so a token's rank gives
its probability by Zipf's law. The request model is one aggregated, hashed table, never a row per prompt.
Shape letters: B rows, H hash buckets, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["LexicalModel", "fit_lexical", "lexical_scores", "zipf_log_probabilities"]

HASH_MULTIPLIER = 2654435761  # Knuth's multiplicative hash: 2^32 over the golden ratio
HASH_BITS = 32


@dataclass(frozen=True)
class LexicalModel:
    """What a request keeps of its words.

    Args:
        gains: log-likelihood ratio of each hash bucket [H], float32; 0 where the request has no token.
        miss: log-likelihood ratio of a token that the request never uses (negative).
    """

    gains: Tensor
    miss: float


def zipf_log_probabilities(vocabulary_size: int, offset: float = 2.7) -> Tensor:
    """Returns log p(rank) with p ~ 1 / (rank + offset), the Zipf-Mandelbrot law, as float32 [V].

    Args:
        vocabulary_size: V, at least 1.
        offset: Mandelbrot's shift in ranks; 2.7 is the usual value for English words.

    Example:
        >>> zipf_log_probabilities(100).exp().sum().item()  # doctest: +ELLIPSIS
        1.0...
    """
    ranks = torch.arange(vocabulary_size, dtype=torch.float64)
    return torch.log_softmax(-torch.log(ranks + offset), dim=0).float()


def hash_tokens(tokens: Tensor, buckets: int) -> Tensor:
    """Returns the bucket of each token id."""
    mixed = (tokens.to(torch.int64) * HASH_MULTIPLIER) & ((1 << HASH_BITS) - 1)
    return (mixed * buckets) >> HASH_BITS


def fit_lexical(
    tokens: Sequence[Sequence[int]], log_background: Tensor, *, buckets: int, share: float
) -> LexicalModel:
    """Counts the tokens of all prompts of a request into one table of likelihood ratios.

    Args:
        tokens: token ids of each prompt, without special tokens.
        log_background: log-probabilities by token id [V].
        buckets: H.
        share: weight of the request model in the mixture with the background, in (0, 1).

    Returns:
        The table: log(1 + share / (1 - share) * p_request / p_background) + log(1 - share) a bucket.
    """
    prompts = [torch.tensor(sorted(set(row)), dtype=torch.int64) for row in tokens if row]
    counts = torch.zeros(buckets, dtype=torch.float64)
    background = torch.full((buckets,), -torch.inf, dtype=torch.float64)
    if prompts:
        flat = torch.cat(prompts)
        slots = hash_tokens(flat, buckets)
        counts.scatter_add_(0, slots, torch.ones(len(flat), dtype=torch.float64))
        background.scatter_reduce_(0, slots, log_background[flat].double(), reduce="amax")
    probability = counts / counts.sum().clamp_min(1)
    ratio = share / (1 - share) * probability * torch.exp(-background)
    gains = torch.where(counts > 0, torch.log1p(ratio), torch.zeros_like(ratio))
    return LexicalModel(gains.float(), float(torch.log(torch.tensor(1 - share))))


def lexical_scores(tokens: Sequence[Sequence[int]], gains: Tensor, log_background: Tensor) -> Tensor:
    """Returns the information-weighted mean gain of the tokens of each prompt.

    Args:
        tokens: token ids of each prompt, without special tokens; B prompts.
        gains: tables of K requests [K, H].
        log_background: log-probabilities by token id [V]; rare tokens weigh more.

    Returns:
        Scores [B, K], float32; 0 for a prompt without tokens.
    """
    scores = torch.zeros(len(tokens), gains.shape[0])
    for index, row in enumerate(tokens):
        if row:
            ids = torch.tensor(sorted(set(row)), dtype=torch.int64)
            weights = -log_background[ids]
            scores[index] = gains[:, hash_tokens(ids, gains.shape[1])] @ weights / weights.sum()
    return scores
