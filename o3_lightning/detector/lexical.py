"""How much of what is rare in a prompt is known to a request.

How rare a word piece is needs no data: a vocabulary is sorted by frequency, so its rank gives a probability
by Zipf's law. What a request knows is one hashed table over all its prompts, no row per prompt, no text;
whoever holds the table can still test whether a guessed rare word occurs in the request.
Shape letters: B rows, K requests, H hash buckets, V vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from o3_lightning.detector.constants import LEXICAL_POWER

HASH_MULTIPLIER = 2654435761  # Knuth's multiplicative hash: 2^32 over the golden ratio
HASH_BITS = 32
ZIPF_OFFSET = 2.7  # Mandelbrot's shift, the usual value for English words
ROWS_AT_ONCE = 64  # prompts whose words are looked up together
SYMBOL_RANK = 500  # single characters stand at the head of a vocabulary whatever their frequency


def token_information(pieces: Sequence[str]) -> Tensor:
    """Returns -log p of every token, p by Zipf's law from its place among the words of the vocabulary.

    Args:
        pieces: the vocabulary in the order of its ids, most frequent first; word markers are ignored.

    Returns:
        Information in nats [V], float32; symbols and single characters count as fairly frequent words.

    Example:
        >>> rare = token_information(["[PAD]", "!", "the", "of", *(f"word{i}" for i in range(1000))])
        >>> bool(rare[2] < rare[3] < rare[1000])
        True
    """
    ranks, words = [], 0
    for piece in pieces:
        bare = piece.strip("#Ġ▁ ")
        is_word = len(bare) > 1 and bare.isalnum()
        ranks.append(words if is_word else SYMBOL_RANK)
        words += is_word
    shifted = torch.tensor(ranks, dtype=torch.float64) + ZIPF_OFFSET
    return (shifted.log() + torch.logsumexp(-shifted.log(), dim=0)).float()


def hash_tokens(tokens: Tensor, buckets: int) -> Tensor:
    """Returns the bucket of each token id, an int64 tensor with values in [0, buckets)."""
    mixed = (tokens.to(torch.int64) * HASH_MULTIPLIER) & ((1 << HASH_BITS) - 1)
    return (mixed * buckets) >> HASH_BITS


def fit_word_table(tokens: Sequence[Sequence[int]], *, buckets: int, certain_count: float) -> Tensor:
    """Returns how well known each hash bucket is to a request, in [0, 1], float32 [H].

    Args:
        tokens: token ids of each forget prompt, without special tokens.
        buckets: H.
        certain_count: number of prompts from which a token counts as fully known; the rise is logarithmic.
    """
    lengths = torch.tensor([len(row) for row in tokens], dtype=torch.int64)
    slots = hash_tokens(torch.tensor([token for row in tokens for token in row], dtype=torch.int64), buckets)
    rows = torch.repeat_interleave(torch.arange(len(tokens)), lengths)
    distinct = torch.unique(rows * buckets + slots) % buckets
    counts = torch.bincount(distinct, minlength=buckets).float()
    ceiling = torch.log1p(torch.tensor(max(certain_count, 1.0)))
    return (torch.log1p(counts) / ceiling).clamp_max(1)


def known_information(
    tokens: Sequence[Sequence[int]], known: Tensor, information: Tensor
) -> tuple[Tensor, Tensor]:
    """Returns the known information of each prompt, sum(known * information^2), and all of it.

    Args:
        tokens: token ids of B prompts, without special tokens.
        known: tables of K requests [K, H].
        information: from `token_information` [V].

    Returns:
        Known [B, K] and all [B, 1], in nats^2, float64; 0 for a prompt without tokens.
    """
    parts = []
    for first in range(0, max(len(tokens), 1), ROWS_AT_ONCE):
        block = tokens[first : first + ROWS_AT_ONCE]
        counts = torch.tensor([len(row) for row in block], dtype=torch.int64)
        rows = torch.repeat_interleave(torch.arange(len(block)), counts)
        words = torch.tensor([token for row in block for token in row], dtype=torch.int64)
        ids, places = torch.unique(words, return_inverse=True)
        weights = torch.zeros(len(block), len(ids), dtype=torch.float64)
        weights[rows, places] = information[words].double() ** LEXICAL_POWER  # a word counts once
        held = weights @ known.T[hash_tokens(ids, known.shape[1])].double()
        parts.append((held, weights.sum(dim=1, keepdim=True)))
    held, total = (torch.cat(part) for part in zip(*parts, strict=True))
    return held, total


def lexical_scores(tokens: Sequence[Sequence[int]], known: Tensor, information: Tensor) -> Tensor:
    """Returns the known share [B, K], in [0, 1], of what `known_information` counts; 0 without tokens."""
    held, total = known_information(tokens, known, information)
    return (held / total.clamp_min(torch.finfo(torch.float64).tiny)).float()
