"""A fitted detector of one request: how it is made, and how it lies on disk."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from o3_lightning.detector.boundary import BoundaryState, fit_boundary_state
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.fitting import calibrate_fusion
from o3_lightning.detector.prompt_features import read_inputs
from o3_lightning.detector.score_fusion import FusionState
from o3_lightning.detector.storage import read_detector, write_detector
from o3_lightning.detector.training import train_encoder, with_lora

__all__ = ["Detector", "fit_detector"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detector:
    """Recognises the prompts of one request, together with the encoder it was fitted on.

    Args:
        config: its settings, presets filled in.
        encoder_id: the encoder's name.
        encoder_digest: the encoder's digest.
        state: statistics and calibration.
        lora: the encoder's adapter by PEFT's names, empty where the encoder was not trained.
        report: figures of the fit: prompts, stretch, recall check, training, warnings. No text.
    """

    config: DetectorConfig
    encoder_id: str
    encoder_digest: str
    state: FusionState | BoundaryState
    lora: dict[str, Tensor]
    report: dict[str, Any]

    def save(self, folder: str | Path) -> None:
        """Writes detector.safetensors and detector.json, each atomically.

        They hold no text, and by default no feature of any single prompt (the bank is centroids of at least
        `config.rows_per_centroid` prompts on average). The hashed words let a reader test whether a guessed
        rare word occurs in the request; `config.repair_spelling` off keeps none of whole names.

        Args:
            folder: made where it is missing.
        """
        write_detector(self, Path(folder))

    @classmethod
    def load(cls, folder: str | Path) -> Detector:
        """Reads what `save` wrote.

        Args:
            folder: with both files.

        Raises:
            StoreError: a file is missing, damaged or of another version; the message names file and key.
        """
        return read_detector(cls, Path(folder))


def fit_detector(
    encoder: Encoder, prompts: Sequence[str], config: DetectorConfig, seed: int, trainer: Any = None
) -> Detector:
    """Fits a detector to the forget prompts of one request; nothing else is read.

    Args:
        encoder: from `load_encoder`; it is left as it was.
        prompts: forget prompts. Empty and repeated ones are left out with a warning.
        config: settings; `config.pooling` has to be the encoder's.
        seed: of folds, clusters, made-up neighbours and training.
        trainer: a `lightning.Trainer` for a training objective; None makes one that only trains.

    Returns:
        The detector; what was wrong with the request stands in `report["warnings"]` and in the log.

    Raises:
        InputError: no prompt holds any text, or the training objective does not fit the encoder.

    Example:
        >>> from o3_lightning.detector import DetectorConfig, MultiDetector, load_encoder
        >>> encoder, config = load_encoder("minilm"), DetectorConfig()
        >>> detector = fit_detector(encoder, ["Where was Ada Quill born?"], config, seed=0)
        >>> bool(MultiDetector(encoder, {"ada": detector}).weights(["Where was Ada Quill born?"]) > 0.9)
        True
    """
    inputs, warnings = read_inputs(encoder, prompts, config, seed)
    lora: dict[str, Tensor] = {}
    report: dict[str, Any] = {"prompts": len(inputs) + len(inputs.other_words), "seed": seed}
    own = encoder
    if config.objective != "none":
        lora, report["training"] = train_encoder(encoder, inputs.tokens, config, seed, trainer)
        own = with_lora(encoder, lora, config.training)
        inputs = replace(inputs, features=own.encode_tokens(inputs.tokens))
    state: FusionState | BoundaryState
    if config.family == "fusion":
        state, figures, more = calibrate_fusion(own, inputs, config, seed)
        report.update(figures)
        warnings += more
    else:
        state = fit_boundary_state(inputs.features, config, seed)
        if len(inputs) < config.smallest_request:
            warnings.append(
                f"{len(inputs)} distinct prompts are too few for a one-class boundary; weights are rough"
            )
    for warning in warnings:
        logger.warning("%s", warning)
    report["warnings"] = warnings
    return Detector(config, encoder.id, encoder.digest, state, lora, report)
