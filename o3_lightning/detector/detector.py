"""The fitted detector of one request."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from o3_lightning.detector.base import DETECTORS, Evidence, FitTask
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.storage import read_detector, write_detector

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Detector:
    """Recognises the prompts of one request, together with the encoder it was fitted on.

    Args:
        config: its settings, presets filled in.
        encoder_id: the encoder's name.
        encoder_digest: the encoder's digest.
        parts: evidences by registered name; the first one gives the score, the largest weight counts.
        report: figures of the fit, warnings among them, without text of the prompts.
    """

    config: DetectorConfig
    encoder_id: str
    encoder_digest: str
    parts: dict[str, Evidence]
    report: dict[str, Any]

    def save(self, folder: str | Path) -> None:
        """Writes detector.safetensors and detector.json, each atomically.

        They hold no text, and by default no feature of any single prompt (the bank is centroids of at least
        three prompts on average). The hashed words and names let a reader of the files test whether a guessed
        one occurs in the request.

        Args:
            folder: created if it does not exist.
        """
        fields = {
            "encoder_id": self.encoder_id,
            "encoder_digest": self.encoder_digest,
            "config": asdict(self.config),
            "report": self.report,
        }
        write_detector(Path(folder), fields, {name: part.save() for name, part in self.parts.items()})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Reads what `save` wrote.

        Args:
            folder: holds both files.

        Raises:
            StoreError: a file is missing, damaged or of an unsupported format; the message names the key.
        """
        stored, parts = read_detector(Path(folder))
        names = ("config", "encoder_id", "encoder_digest", "report")
        return cls(**{name: stored[name] for name in names}, parts=parts)


def fit_detector(encoder: Encoder, prompts: Sequence[str], config: DetectorConfig, seed: int) -> Detector:
    """Fits a detector to the forget prompts of one request; no other data is read.

    Args:
        encoder: from `load_encoder`; it is not changed.
        prompts: forget prompts. Empty and repeated ones are dropped with a warning.
        config: settings; `config.pooling` must be the encoder's.
        seed: of folds, clusters, pseudo-negatives and training.

    Returns:
        The detector; problems of the request are listed in `report["warnings"]` and logged.

    Raises:
        InputError: no prompt holds any text, or the training objective does not fit the encoder.

    Example:
        >>> from o3_lightning.detector import DetectorConfig, MultiDetector, load_encoder
        >>> encoder, config = load_encoder("minilm"), DetectorConfig()
        >>> detector = fit_detector(encoder, ["Where was Ada Quill born?"], config, seed=0)
        >>> bool(MultiDetector(encoder, {"ada": detector}).weights(["Where was Ada Quill born?"]) > 0.9)
        True
    """
    detector = fit_quietly(encoder, prompts, config, seed)
    for warning in detector.report["warnings"]:
        logger.warning("%s", warning)
    return detector


def fit_quietly(encoder: Encoder, prompts: Sequence[str], config: DetectorConfig, seed: int) -> Detector:
    """Returns what `fit_detector` does, and logs nothing."""
    task = FitTask(encoder, prompts, config, seed)
    parts: dict[str, Evidence] = {}
    report: dict[str, Any] = {"seed": seed}
    warnings: list[str] = []
    for name in config.parts:
        parts[name], figures, more = DETECTORS[name].fit(task)
        report.update(figures)
        warnings += more
    report["warnings"] = warnings
    return Detector(config, encoder.id, encoder.digest, parts, report)
