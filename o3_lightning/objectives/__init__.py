"""Objectives: what an adapter is trained to do with a forget set, one loss a file, behind one registry."""

from o3_lightning.objectives.batch_views import Objective, Settings, View
from o3_lightning.objectives.config import ForgetObjective, ObjectiveConfig, RetainObjective
from o3_lightning.objectives.registry import FORGET, RETAIN
from o3_lightning.objectives.targets import build_retain_texts, build_texts, check_needs, load_refusals

__all__ = [
    "FORGET",
    "RETAIN",
    "ForgetObjective",
    "Objective",
    "ObjectiveConfig",
    "RetainObjective",
    "Settings",
    "View",
    "build_retain_texts",
    "build_texts",
    "check_needs",
    "load_refusals",
]
