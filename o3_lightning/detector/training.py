"""Adapts the encoder to one request with a LoRA and a contrastive objective."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from o3_lightning.detector.config import DetectorConfig, TrainingConfig
from o3_lightning.detector.encoder import Encoder
from o3_lightning.errors import InputError


def train_encoder(
    encoder: Encoder, tokens: list[list[int]], config: DetectorConfig, seed: int, trainer: Any
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    raise InputError("not there yet", field="detector.objective")


def with_lora(encoder: Encoder, lora: dict[str, Tensor], training: TrainingConfig) -> Encoder:
    raise InputError("not there yet", field="detector.objective")
