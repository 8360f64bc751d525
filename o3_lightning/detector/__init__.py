"""Detectors: recognise the prompts of a request, and only those."""

from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.detector import Detector, fit_detector
from o3_lightning.detector.encoder import Encoder, load_encoder
from o3_lightning.detector.multi import MultiDetector

__all__ = ["Detector", "DetectorConfig", "Encoder", "MultiDetector", "fit_detector", "load_encoder"]
