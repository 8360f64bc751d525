"""Detectors: recognise the prompts of a request, and only those."""

from typing import TYPE_CHECKING

from o3_lightning.common.lazy import import_on_use
from o3_lightning.detector.config import DetectorConfig

if TYPE_CHECKING:
    from o3_lightning.detector.detector import Detector, fit_detector
    from o3_lightning.detector.encoder import Encoder, load_encoder
    from o3_lightning.detector.multi import MultiDetector

__all__ = ["Detector", "DetectorConfig", "Encoder", "MultiDetector", "fit_detector", "load_encoder"]

__getattr__ = import_on_use(
    __name__,
    {
        "Detector": "detector",
        "fit_detector": "detector",
        "Encoder": "encoder",
        "load_encoder": "encoder",
        "MultiDetector": "multi",
    },
)
