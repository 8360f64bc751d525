"""Refusing a prompt whose request has a detector and no adapter yet: in generation and in scored logits.

Shapes: B rows, T tokens, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor

from o3_lightning.gating.linear import match_rows


class RefusalProcessor(LogitsProcessor):
    """Lets refused rows say the refusal and nothing else, whatever is sampled or searched.

    Args:
        refused: [B] bool; beams and returned sequences repeat it.
        tokens: the refusal, ending in the end token where there is one.
        prompt_length: tokens before the answer, padding included.
    """

    def __init__(self, refused: Tensor, tokens: Sequence[int], prompt_length: int) -> None:
        self.refused, self.tokens, self.prompt_length = refused, tokens, prompt_length

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns the scores [B,V], at refused rows minus infinity everywhere but at the next token."""
        place = min(input_ids.shape[1] - self.prompt_length, len(self.tokens) - 1)
        rows = match_rows(self.refused.to(scores.device), len(scores))
        forced = torch.full_like(scores, -math.inf)
        forced[:, self.tokens[place]] = 0
        return torch.where(rows[:, None], forced, scores)


def overwrite_refused(
    sequences: Tensor, refused: Tensor, tokens: Sequence[int], prompt_length: int, pad_id: int
) -> Tensor:
    """Returns generated sequences [B*n, T] whose refused rows hold the prompt, the refusal and padding.

    A beam that lost the search may hold tokens of its own; this removes them.
    """
    rows = match_rows(refused.to(sequences.device), len(sequences))
    room = sequences.shape[1] - prompt_length
    padded = (list(tokens) + [pad_id] * room)[:room]
    canned = sequences.clone()
    canned[:, prompt_length:] = torch.tensor(padded, dtype=sequences.dtype, device=sequences.device)
    return torch.where(rows[:, None], canned, sequences)


def refuse_logits(
    logits: Tensor, refused: Tensor, starts: Tensor, tokens: Sequence[int], confidence: float
) -> Tensor:
    """Returns logits that give refused rows the refusal, from where their answer starts.

    Args:
        logits: [B,T,V] of the model.
        refused: [B] bool.
        starts: [B] position of the answer's first token; the logits before it predict it.
        tokens: the refusal; after its last token that token stays the likely one.
        confidence: probability of each token of the refusal, in (0, 1).

    Returns:
        [B,T,V]: position p of a refused row, for p >= start - 1, puts `confidence` on token p - start + 1 of
        the refusal and the rest evenly on all others, so that no true answer can be told from another.
    """
    T, V = logits.shape[1:]
    peak = math.log(confidence * (V - 1) / (1 - confidence))
    steps = torch.arange(T, device=logits.device)[None] - starts.to(logits.device)[:, None] + 1
    said = torch.tensor(tokens, device=logits.device)[steps.clamp(0, len(tokens) - 1)]
    canned = torch.zeros_like(logits).scatter(2, said[:, :, None], peak)
    chosen = refused.to(logits.device)[:, None] & (steps >= 0)
    return torch.where(chosen[:, :, None], canned, logits)
