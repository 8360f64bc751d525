"""Fits a detector from the forget prompts of one request, and keeps it on disk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from o3_lightning.detector.calibration import cross_fit, gaussian_weights
from o3_lightning.detector.channels import ChannelState, score_channels
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.layer_statistics import fit_statistics
from o3_lightning.detector.lexical import fit_lexical, zipf_log_probabilities
from o3_lightning.errors import InputError, StoreError
from o3_lightning.files import write_json

__all__ = ["Detector", "fit_detector"]


@dataclass(frozen=True)
class Detector:
    """A fitted detector of one request; it scores only together with the encoder it was fitted on."""

    config: DetectorConfig
    encoder_id: str
    encoder_digest: str
    state: ChannelState
    center: Tensor
    spread: Tensor
    score_mean: Tensor
    score_spread: Tensor
    report: dict[str, Any]

    def save(self, folder: str | Path) -> None:
        """Writes detector.safetensors and detector.json; no text and no feature of any single prompt."""
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        tensors = {field.name: getattr(self.state, field.name).contiguous() for field in fields(ChannelState)}
        for name in ("center", "spread", "score_mean", "score_spread"):
            tensors[name] = getattr(self, name).contiguous()
        save_file(tensors, target / "detector.safetensors")
        described = {
            "encoder_id": self.encoder_id,
            "encoder_digest": self.encoder_digest,
            "report": self.report,
        }
        write_json(target / "detector.json", {**described, "config": asdict(self.config)})

    @classmethod
    def load(cls, folder: str | Path) -> Detector:
        """Reads what `save` wrote.

        Raises:
            StoreError: a file is missing or damaged.
        """
        import json

        from safetensors.torch import load_file

        source = Path(folder)
        try:
            described = json.loads((source / "detector.json").read_text())
            tensors = load_file(source / "detector.safetensors")
            config = described["config"]
            config["channels"] = tuple(config["channels"])
            state = ChannelState(**{field.name: tensors.pop(field.name) for field in fields(ChannelState)})
            return cls(
                DetectorConfig(**config),
                described["encoder_id"],
                described["encoder_digest"],
                state,
                report=described["report"],
                **tensors,
            )
        except Exception as error:
            raise StoreError(f"{source}: detector cannot be read: {error}") from error


def fit_detector(
    encoder: Encoder, prompts: Sequence[str], config: DetectorConfig, seed: int, trainer: Any = None
) -> Detector:
    """Fits a detector to the forget prompts of one request.

    Args:
        encoder: the frozen encoder.
        prompts: forget prompts, at least one.
        config: settings.
        seed: of folds and centroids.
        trainer: a `lightning.Trainer` for presets with a training objective.

    Raises:
        InputError: there are no prompts.
    """
    if not prompts:
        raise InputError("expected at least one forget prompt, got none", field="detector.prompts")
    features = encoder.encode(prompts)[:, -1:]
    tokens = [row[1:-1] for row in encoder.tokenize(prompts)]
    log_background = zipf_log_probabilities(len(encoder.tokenizer))

    def fit(rows: Tensor) -> ChannelState:
        chosen = fit_statistics(
            features[rows],
            centroids=config.centroids,
            rows_per_centroid=config.rows_per_centroid,
            seed=seed,
        )
        lexical = fit_lexical(
            [tokens[row] for row in rows.tolist()],
            log_background,
            buckets=config.lexical_buckets,
            share=config.lexical_share,
        )
        mask = torch.ones(1, chosen.bank.shape[1], dtype=torch.bool)
        parts = (chosen.means, chosen.precision_scale, chosen.whitening, chosen.bank)
        return ChannelState(*(part[None] for part in parts), mask, lexical.gains[None])

    def score(fitted: Tensor, scored: Tensor) -> Tensor:
        texts = [tokens[row] for row in scored.tolist()]
        return score_channels(features[scored], texts, fit(fitted), log_background)[:, 0]

    channels = cross_fit(len(prompts), config.folds, seed, score)
    center, spread = channels.mean(dim=0), channels.std(dim=0, correction=0).clamp_min(1e-6)
    fused = ((channels - center) / spread).sum(dim=1)
    state = fit(torch.arange(len(prompts)))
    report = {"prompts": len(prompts)}
    return Detector(
        config,
        encoder.id,
        encoder.digest,
        state,
        center,
        spread,
        fused.mean(),
        fused.std(correction=0),
        report,
    )
