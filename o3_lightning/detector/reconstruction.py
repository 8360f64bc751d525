"""How much of the forget prompts can be guessed back from what a detector keeps.

An attacker with a list of candidate texts and the encoder compares every candidate with every kept row and
says which candidates were forget prompts. With centroids the rows are means of several prompts; with a kept
bank they are the prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from o3_lightning.detector.detector import Detector
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.prompt_features import read_texts

__all__ = ["reconstruct_prompts"]

SAME = 0.999  # cosine above which a kept row is a candidate's own feature, float32 rounding and more allowed


def reconstruct_prompts(
    encoder: Encoder, detector: Detector, prompts: Sequence[str], decoys: Sequence[str]
) -> dict[str, float]:
    """Returns how well nearest-neighbour inversion finds forget prompts among candidates.

    Args:
        encoder: the detector's encoder.
        detector: with its bank, whether centroids or examples.
        prompts: the forget prompts, which the attacker has among the candidates.
        decoys: candidates about the same knowledge that were not in the request, such as paraphrases.

    Returns:
        "exact": share of kept rows that are the feature of one prompt; "nearest": share of kept rows whose
        nearest candidate is a forget prompt and not a decoy; "chance": share of forget prompts among the
        candidates; "rows": how many rows are kept.
    """
    bank = detector.state.bank.float()
    rows = (bank[0, -1] if bank.dim() == 4 else bank[-1]).float()
    texts = [*prompts, *decoys]
    features = read_texts(encoder, texts, normalise=detector.config.normalise).features[:, -1]
    similarity = rows @ F.normalize(features, dim=1).T
    best, place = similarity.max(dim=1)
    return {
        "exact": float((best > SAME).float().mean()),
        "nearest": float((place < len(prompts)).float().mean()),
        "chance": len(prompts) / len(texts),
        "rows": float(torch.tensor(len(rows))),
    }
